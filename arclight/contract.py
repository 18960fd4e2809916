"""The base of every stored value: frozen, strict, versioned, with one JSON form and one digest.

A stored form holds its own SHA-256 (`own`), so that a record whose bytes have changed is refused
wherever it is read. It proves no author: signatures do (`arclight.signing`).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from arclight.errors import IntegrityError, printable

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
OWN = "own"
"""The field of a stored form that holds the SHA-256 of the others."""


def _inside(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or {"", ".", ".."}.intersection(parts) or "\0" in path:
        raise ValueError(f"'{printable(path)}' must be a plain path below its folder.")
    return path


InnerPath = Annotated[str, AfterValidator(_inside)]
"""A path below the folder of what records it; none can lead out of there."""


class Contract(BaseModel):
    """A frozen value; subclasses that are stored set `kind` and raise `version` on a new shape."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1
    is_sealed: ClassVar[bool] = True
    """Whether the stored form holds its digest; not where people may edit the file."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON form."""
        return digest_of(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Return the stored form: the fields, `kind` and `version` beside them, and `own`."""
        body = {"kind": self.kind, "version": self.version, **self.model_dump(mode="json")}
        if self.is_sealed:
            body = sealed(body)
        return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "record") -> Self:
        """Parse the stored form.

        Raises:
            IntegrityError: the text is not JSON, or was changed since it was written, or is of
                another kind, version or shape.
        """
        try:
            body = json.loads(text)
            is_whole = unseal(body)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(
                f"'{source}' must be a {cls.kind} in JSON, but it cannot be parsed ({error}); "
                "restore it from a backup or publish a new version."
            ) from error
        if not is_whole:
            raise IntegrityError(
                f"'{source}' must be as it was written, but its SHA-256 is not the one it holds: "
                "it was changed since; restore it from a backup or publish a new version."
            )
        kind, version = None, None
        if isinstance(body, dict):
            kind, version = body.pop("kind", None), body.pop("version", None)
        if (kind, version) != (cls.kind, cls.version):
            raise IntegrityError(
                f"'{source}' must be a {cls.kind} of version {cls.version}, got "
                f"{printable(repr(kind))} of version {printable(repr(version))}; read it with the "
                "release that wrote it."
            )
        try:
            return cls.model_validate_json(json.dumps(body))
        except ValidationError as error:
            first = error.errors()[0]
            where = printable(".".join(str(part) for part in first["loc"]) or "the text")
            raise IntegrityError(
                f"'{source}' is not a valid {cls.kind}: {where}: {first['msg']}; "
                "restore it from a backup or publish a new version."
            ) from error


def sealed(body: dict[str, Any]) -> dict[str, Any]:
    """Return a stored form with its digest in it."""
    # of what a reader will have in hand, where every key is text
    return {**body, OWN: digest_of(json.loads(json.dumps(body, allow_nan=False)))}


def unseal(body: Any) -> bool:
    """Take the digest out of a stored form and say if it fits; older releases wrote none."""
    if not isinstance(body, dict) or OWN not in body:
        return True
    own = body.pop(OWN)
    return bool(own == digest_of(body))


def canonical_json(value: Any) -> bytes:
    """Return the one JSON form of a value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON-able value's canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
