"""Files of signing keys: a private key of mode 0600 for who trains, public lines for who loads."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from arclight.contract import NAME
from arclight.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    RefusedError,
    SpecError,
    printable,
)
from arclight.signing import Signer, parse_trusted
from cluster.tokens import check_secret_file, create_secret

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.signing import PublicKey, TrustedKeys

MAX_BYTES = 64 << 10


def make_signing_key(file: Path, name: str) -> PublicKey:
    """Write a new private key, and its public line beside it as FILE.pub.

    Raises:
        SpecError: the name is not one, or the folder does not exist.
        ConflictError: one of the two files is there; nothing is overwritten.
    """
    if not NAME.match(name):
        raise SpecError(
            f"key '{printable(name)}' must be named by lower-case letters, digits and '-'."
        )
    signer = Signer(Ed25519PrivateKey.generate(), name)
    pem = signer.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = _public_file(file)
    if public.exists():
        raise _taken(public)
    try:
        create_secret(file, pem.decode())
        create_secret(public, f"{signer.public.line}\n")
    except FileExistsError as error:
        raise _taken(file) from error
    except OSError as error:
        raise SpecError(
            f"key file '{printable(file)}' must be in a folder that can be written, but "
            f"{error.strerror}; give another."
        ) from error
    return signer.public


def load_signer(file: Path) -> Signer:
    """Read a private Ed25519 key in PEM (PKCS 8, no password) from a file of mode 0600.

    Its name is the file's; a name decides nothing.

    Raises:
        MissingError: there is no such file.
        RefusedError: others can read it.
        IntegrityError: it holds no such key.
    """
    check_secret_file(file)
    try:
        key = load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(file) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(file)
    return Signer(key, file.name)


def load_trusted(file: Path) -> TrustedKeys:
    """Read the public keys whose models may be loaded; a file without any trusts nobody.

    Raises:
        MissingError: there is no such file.
        RefusedError: another user could have written it.
        SpecError: a line is not a key.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise MissingError(
            f"file of trusted keys '{printable(file)}' cannot be read ({error.strerror}); make it "
            "from the .pub files that `arclight keys signing` wrote."
        ) from error
    is_ours = stat.S_ISREG(found.st_mode) and found.st_uid in {os.getuid(), 0}
    if not is_ours or found.st_mode & 0o022:
        raise RefusedError(
            f"file of trusted keys '{printable(file)}' must be a regular file that only its owner "
            f"can write, got mode {stat.S_IMODE(found.st_mode):04o}; run `chmod 644` on it."
        )
    return parse_trusted(_read(file).decode("ascii", errors="replace"), source=str(file))


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise SpecError(
            f"key file '{printable(file)}' must have at most {MAX_BYTES:,} bytes; name another."
        )
    return content


def _public_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.pub")


def _taken(file: Path) -> ConflictError:
    return ConflictError(
        f"'{printable(file)}' exists, and a key is never overwritten; give another name."
    )


def _no_key(file: Path) -> IntegrityError:
    return IntegrityError(
        f"key file '{printable(file)}' must hold an Ed25519 private key in PEM without a "
        "password; make one with `arclight keys signing`."
    )
