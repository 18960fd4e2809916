"""Signatures of model records: who vouches that a version is the one that was trained.

The signed bytes are the canonical JSON form of the record as a reader has it in hand, so whatever
decides a prediction is covered: name, number, file hashes, plan, golden rows, lineage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from arclight.bundle import ModelSignature
from arclight.contract import NAME, canonical_json
from arclight.errors import RefusedError, SpecError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.bundle import ModelBundle

PURPOSE = b"arclight model record, Ed25519, form 1\n"
"""Begins what is signed, so that no signature made for something else fits."""
ALGORITHM = "ed25519"
KEY_BYTES = 32
_HEX_SIGNATURE = re.compile(r"[0-9a-f]{128}\Z")


def signed_bytes(bundle: ModelBundle) -> bytes:
    """Return what a signature of a model's record is made over."""
    body = {"kind": bundle.kind, "version": bundle.version, **bundle.model_dump(mode="json")}
    return PURPOSE + canonical_json(body)


def record_sha256(bundle: ModelBundle) -> str:
    """Return the SHA-256 (hex) of what a signature of a model's record is made over."""
    return hashlib.sha256(signed_bytes(bundle)).hexdigest()


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with, and the name its keeper gave it."""

    name: str
    raw: bytes

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the key's SHA-256."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def line(self) -> str:
        """The key as a line of a file of trusted keys."""
        return f"{ALGORITHM} {base64.b64encode(self.raw).decode()} {self.name}"

    def fits(self, signature: ModelSignature, message: bytes) -> bool:
        """Return whether this key made the signature over the message."""
        if not _HEX_SIGNATURE.match(signature.signature):
            return False
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(bytes.fromhex(signature.signature), message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A private key, to sign records with."""

    private: Ed25519PrivateKey = field(repr=False)
    name: str

    @property
    def public(self) -> PublicKey:
        """The key to trust."""
        return PublicKey(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, bundle: ModelBundle) -> ModelSignature:
        """Return the signature of a record; the same record gives the same signature."""
        return ModelSignature(
            model=bundle.ref,
            record_sha256=record_sha256(bundle),
            key_id=self.public.id,
            signature=self.private.sign(signed_bytes(bundle)).hex(),
        )


@dataclass(frozen=True)
class TrustedKeys:
    """The keys whose models may be loaded.

    Attributes:
        source: where the keys were read, for people.
    """

    keys: tuple[PublicKey, ...]
    source: str

    def check(self, bundle: ModelBundle, signatures: Sequence[ModelSignature]) -> PublicKey:
        """Return the trusted key that signed a record.

        Args:
            bundle: the record as it will be used.
            signatures: those stored for its version; one that fits is enough.

        Raises:
            RefusedError: none of them is of a trusted key and of this very record.
        """
        message = signed_bytes(bundle)
        for key in self.keys:
            if any(key.fits(signature, message) for signature in signatures):
                return key
        raise RefusedError(
            f"model '{bundle.ref}' must be signed by a key of '{printable(self.source)}', but "
            f"{self._why_not(signatures)}."
        )

    def _why_not(self, signatures: Sequence[ModelSignature]) -> str:
        if not signatures:
            return (
                "it has no signature; train it with ARCLIGHT_SIGNING_KEY set, or sign it with "
                "`arclight keys sign` where its key is kept"
            )
        ids = {signature.key_id for signature in signatures}
        known = [key for key in self.keys if key.id in ids]
        if known:
            return (
                f"the signature of key {known[0].id} ({printable(known[0].name)}) does not fit "
                "the record, which was changed after it was signed; restore the record from a "
                "backup or publish a new version"
            )
        named = printable(", ".join(sorted(ids)))
        return (
            f"it is signed by key {named} only, which is not one of them; add that key's line if "
            "you trust it, or sign the model with `arclight keys sign` and a key that is"
        )


def parse_trusted(text: str, *, source: str) -> TrustedKeys:
    """Read lines of `ed25519 BASE64 NAME`; empty lines and lines that begin with # are skipped.

    Raises:
        SpecError: a line is none of these, or a key stands twice.
    """
    keys: list[PublicKey] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _parse_line(line)
        if key is None or any(known.raw == key.raw for known in keys):
            raise SpecError(
                f"line {number} of '{printable(source)}' must be '{ALGORITHM} BASE64 NAME', a key "
                f"each, got '{printable(line, limit=80)}'; copy the .pub file that "
                "`arclight keys signing` wrote."
            )
        keys.append(key)
    return TrustedKeys(tuple(keys), source)


def _parse_line(line: str) -> PublicKey | None:
    words = line.split()
    if len(words) != 3 or words[0] != ALGORITHM or not NAME.match(words[2]):
        return None
    try:
        raw = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return None
    return PublicKey(words[2], raw) if len(raw) == KEY_BYTES else None
