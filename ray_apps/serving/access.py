"""Who may ask what: hosts, methods, keys and roles, decided before any route is looked at."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arclight.errors import RefusedError, printable
from cluster.profiles import is_loopback
from ray_apps.serving.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ray_apps.serving.api_keys import ApiKey, ApiKeys, Role

METHODS = ("GET", "POST")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?$")
_ORIGIN = re.compile(r"^https?://(.+)$")


@dataclass(frozen=True)
class Limits:
    """What one request and one replica may take."""

    body_bytes: int = 8 << 20
    rows: int = 10_000
    read_s: float = 10.0
    """Seconds from the first look at a request to the last byte of its body."""
    concurrent: int = 32
    """Requests a replica works on at once; the next is told to come back."""
    retry_after_s: int = 1


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    Attributes:
        hosts: host names a request may be for, without a port.
        keys: None on loopback without keys: every local caller is let in.
        clock: tells whether a key has ended.
    """

    hosts: frozenset[str] = LOOPBACK_HOSTS
    keys: ApiKeys | None = None
    clock: Callable[[], dt.datetime] = field(default=_now)

    def admit(self, scope: Mapping[str, Any]) -> ApiKey | None:
        """Let a request in or refuse it, whatever its path.

        Returns:
            The caller's key; None if this server asks for none.

        Raises:
            Problem: `host`, `method` or `no-key`.
        """
        headers = _single(scope["headers"])
        self._check_host(headers)
        if scope["method"] not in METHODS:
            raise method_refused(METHODS)
        if self.keys is None:
            return None
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        key = None
        if scheme.lower() == b"bearer":
            key = self.keys.find(secret.strip().decode("latin-1"), self.clock())
        if key is None:
            raise Problem(
                "no-key",
                "Send a valid key as 'Authorization: Bearer KEY'.",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        return key

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        # a page of another site can reach a loopback port through its own DNS name
        host = _HOST.match(headers.get(b"host", b"").decode("latin-1"))
        if host is None or host[1].lower() not in self.hosts:
            raise Problem("host", "The Host header must name this server.")
        if b"origin" not in headers:
            return
        origin = _ORIGIN.match(headers[b"origin"].decode("latin-1"))
        site = _HOST.match(origin[1]) if origin else None
        if site is None or site[1].lower() not in self.hosts:
            raise Problem("host", "Requests from pages of other sites are not answered.")


def hold_role(key: ApiKey | None, role: Role) -> None:
    """Refuse a key whose role lies below the wanted one; None is a caller that needs no key.

    Raises:
        Problem: `role`.
    """
    if key is not None and not key.covers(role):
        raise Problem(
            "role", f"This needs a key of role '{role}', '{key.id}' has the role '{key.role}'."
        )


def method_refused(allowed: tuple[str, ...]) -> Problem:
    """Return the refusal that names the allowed methods."""
    text = ", ".join(allowed)
    return Problem("method", f"Use {text}.", headers=((b"allow", text.encode()),))


def _single(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name; one that decides something may not be sent twice."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in found and name in _DECIDING:
            raise Problem("bad-request", f"'{name.decode('latin-1')}' must be sent once.")
        found[name] = value
    return found


_DECIDING = frozenset({b"host", b"origin", b"authorization", b"content-length", b"content-type"})


def check_binding(host: str, *, has_tls: bool, has_keys: bool) -> None:
    """Refuse to listen beyond this machine without TLS and keys.

    Raises:
        RefusedError: the address is not loopback, and one of both is missing.
    """
    missing = [
        name
        for name, given in (("TLS (--tls-cert, --tls-key)", has_tls), ("keys (--keys)", has_keys))
        if not given
    ]
    if not is_loopback(host) and missing:
        raise RefusedError(
            f"'{printable(host)}' must not be listened on without {' and '.join(missing)}: "
            "anybody could ask; give both, or stay on 127.0.0.1 and put a TLS proxy in front."
        )
