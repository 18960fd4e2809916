"""`arclight serve`: models over HTTP, until stopped."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.errors import SpecError, printable
from arclight.spec import Replicas
from arclight.spec_file import load_spec
from cluster.profiles import load_profile
from jobs.runs import known_store
from jobs.say import answer, say
from ray_apps.serving.api_keys import load_keys
from ray_apps.serving.deploy import DEFAULT_PORT, Binding, hold, pin, served
from ray_apps.serving.loopback import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.bundle import ModelBundle


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What is typed after `arclight serve MODEL...`.

    Attributes:
        replicas: how many copies; None: as many as the spec says.
        spec: whose `serve` section counts; None: one copy.
        hosts: further names a request may be for, such as a TLS proxy's.
        keys: a file that `arclight keys` wrote.
    """

    port: int = DEFAULT_PORT
    replicas: int | None = None
    spec: Path | None = None
    host: str = LOOPBACK
    hosts: tuple[str, ...] = ()
    keys: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def copies(self) -> Replicas:
        """Return how many copies of the models serve.

        Raises:
            SpecError: less than one, or the spec is wrong.
        """
        asked = Replicas() if self.spec is None else load_spec(self.spec).spec.serve.replicas
        if self.replicas is None:
            return asked
        if self.replicas < 1:
            raise SpecError(f"replicas must be at least 1, got {self.replicas}; use --replicas.")
        return asked.model_copy(update={"min": self.replicas, "max": self.replicas})

    def binding(self) -> Binding:
        """Return where to listen and whom to let in.

        Raises:
            MissingError: the file of keys does not exist.
            RefusedError: others can read it.
        """
        return Binding(
            host=self.host,
            keys=None if self.keys is None else load_keys(self.keys),
            # an address that means every one is nobody's name
            hosts=frozenset(map(_host_header, (self.host, *self.hosts))) - {"0.0.0.0", "[::]"},  # noqa: S104
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
        )


def serve_command(
    refs: Sequence[str],
    options: ServeOptions,
    *,
    store: str | None,
    profile: str,
    as_json: bool,
) -> None:
    """Serve models until Ctrl-C or SIGTERM.

    Raises:
        EngineError: Ray, without which nobody answers, ended by itself.
    """
    catalog = known_store(store, Path.cwd())
    bundles = pin(catalog, refs)
    place = load_profile(profile)
    binding, replicas = options.binding(), options.copies()
    pinned = [bundle.ref for bundle in bundles]
    names = ", ".join(pinned)
    say(f"serve: checking {names} and starting; this takes about 20 s.")
    server = served(
        catalog,
        pinned,
        profile=place,
        port=options.port,
        binding=binding,
        replicas=replicas,
    )
    with server as url:
        say(f"serve: {names} at {url}; stop with Ctrl-C. Try:", style="green")
        for bundle in bundles:
            say(curl_line(url, bundle, has_keys=binding.keys is not None))
        answer({"url": url, "models": pinned}, as_json=as_json)
        hold(url)


def _host_header(name: str) -> str:
    """Return a host's name as the header `Host` has it, without a port.

    Raises:
        SpecError: it has a port, or is none.
    """
    with contextlib.suppress(ValueError):
        return f"[{ipaddress.IPv6Address(name.strip('[]'))}]"
    if ":" in name or "/" in name:
        raise SpecError(
            f"--allow-host must be a name without a port, got '{printable(name)}'; give what "
            "stands before the ':' in the URL."
        )
    return name.lower()


def curl_line(url: str, bundle: ModelBundle, *, has_keys: bool) -> str:
    """Return a command that asks the model for the score of one of its golden rows."""
    row: dict[str, Any] = dict(bundle.golden.rows[0]) if bundle.golden.rows else {}
    body = json.dumps({"rows": [row]}, ensure_ascii=False)
    key = "-H 'Authorization: Bearer KEY' " if has_keys else ""
    return (
        f"curl -s {url}/v1/models/{bundle.name}:predict -H 'Content-Type: application/json' "
        f"{key}-d {shlex.quote(body)}"
    )
