"""API keys: 256 random bits, of which only the SHA-256 is kept; each with a role and an end."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from arclight.contract import Contract
from arclight.errors import ConflictError, MissingError, SpecError, nearest, printable
from arclight.spec import Name
from arclight.spec_field import Instant, parse_instant
from arclight.store import open_private
from cluster.tokens import check_secret_file

if TYPE_CHECKING:
    from collections.abc import Iterator

Role = Literal["viewer", "submitter", "deployer", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "submitter", "deployer", "admin")
SECRET_BYTES = 32
_SECRET = re.compile(r"^arc_([a-z0-9][a-z0-9-]{0,62})_([0-9a-f]{64})$")
_NO_HASH = "0" * 64


class ApiKey(Contract):
    """One key; 256 random bits cannot be guessed, so their hash needs no salt and no slowness."""

    id: Name
    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires: Instant
    """From this instant on the key is not valid."""

    def covers(self, role: Role) -> bool:
        """Return whether the key's role is the wanted one or above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


class ApiKeys(Contract):
    """The keys a server knows, as its file holds them."""

    kind: ClassVar[str] = "api-keys"
    is_sealed: ClassVar[bool] = False

    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [key.id for key in self.keys]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"key '{name}' must stand once.")
        return self

    def find(self, secret: str, now: dt.datetime) -> ApiKey | None:
        """Return the valid key of a secret; a wrong id takes as long as a wrong secret."""
        match = _SECRET.match(secret)
        wanted = match[1] if match else ""
        key = next((key for key in self.keys if key.id == wanted), None)
        given = hashlib.sha256(secret.encode()).hexdigest()
        same = hmac.compare_digest(given, key.sha256 if key else _NO_HASH)
        if key is None or not same or parse_instant(key.expires) <= now:
            return None
        return key


def make_key(name: str, role: Role, *, expires: dt.datetime) -> tuple[ApiKey, str]:
    """Return a new key and its secret, which is shown once and kept nowhere."""
    secret = f"arc_{name}_{secrets.token_hex(SECRET_BYTES)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    end = expires.astimezone(dt.UTC).isoformat(timespec="seconds")
    return ApiKey(id=name, role=role, sha256=digest, expires=end), secret


def load_keys(file: Path) -> ApiKeys:
    """Read a 0600 file of keys.

    Raises:
        MissingError: there is no such file.
        RefusedError: others can read it.
        IntegrityError: it is not a file of keys.
    """
    check_secret_file(file)
    return ApiKeys.from_json(file.read_bytes(), source=str(file))


def add_key(file: Path, key: ApiKey) -> ApiKeys:
    """Write a file of keys with one more; readers see the old file or the new one, whole.

    Raises:
        ConflictError: a key of this id is there.
    """
    with _changing(file) as real:
        known = load_keys(real).keys if real.exists() else ()
        if any(held.id == key.id for held in known):
            raise ConflictError(
                f"key '{key.id}' exists in '{printable(file)}'; remove it first or take another "
                "id."
            )
        return _write(real, ApiKeys(keys=(*known, key)))


def remove_key(file: Path, name: str) -> ApiKeys:
    """Write a file of keys with one less.

    Raises:
        MissingError: there is no key of this id.
    """
    with _changing(file) as real:
        known = load_keys(real).keys
        if all(held.id != name for held in known):
            raise MissingError(
                f"key '{printable(name)}' does not exist.{nearest(name, [k.id for k in known])}"
            )
        return _write(real, ApiKeys(keys=tuple(held for held in known if held.id != name)))


@contextlib.contextmanager
def _changing(file: Path) -> Iterator[Path]:
    """Be the only one that changes a file: of two at once one would bring a removed key back.

    Yields:
        The file that a link leads to: replaced itself, it would leave the keys where they are.

    Raises:
        SpecError: its folder does not exist.
    """
    real = Path(os.path.realpath(file))
    try:
        folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise SpecError(
            f"the folder of '{printable(file)}' must exist; make it with mode 0700."
        ) from error
    try:
        with contextlib.suppress(OSError):  # a file system may have no locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield real
    finally:
        os.close(folder)


def _write(file: Path, keys: ApiKeys) -> ApiKeys:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with open_private(temporary) as stream:
        stream.write(keys.to_json().encode())
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    return keys
