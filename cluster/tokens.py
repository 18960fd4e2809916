"""Secret files: created 0600 whatever the umask, read only when nobody else can."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

from arclight.errors import IntegrityError, MissingError, RefusedError, printable

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_BYTES = 32
MIN_TOKEN_CHARS = 16
MAX_TOKEN_BYTES = 4096


def private_folder(folder: Path) -> Path:
    """Create a folder (parents too) that only its owner can enter, and return it.

    Raises:
        RefusedError: it exists and is a link, no folder, or another user's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RefusedError(
            f"'{printable(folder)}' must be a folder of this user and not a link; "
            "remove it or name another one."
        )
    folder.chmod(0o700)
    return folder


def create_secret(path: Path, text: str) -> Path:
    """Write a new file of mode 0600 that holds `text`; an existing file is never touched.

    Raises:
        FileExistsError: there is such a file already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def create_token(path: Path) -> Path:
    """Write a fresh random token to a new 0600 file and return its path."""
    return create_secret(path, secrets.token_hex(TOKEN_BYTES))


def check_secret_file(path: Path) -> None:
    """Refuse a secret that another user could read or has written.

    Raises:
        MissingError: there is no such file.
        RefusedError: it is not a regular file of this user with mode 0600 or less.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise MissingError(
            f"secret file '{printable(path)}' cannot be read ({error.strerror}); "
            "create it with mode 0600."
        ) from error
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in {os.getuid(), 0}:
        raise RefusedError(
            f"secret file '{printable(path)}' must be a regular file of this user; replace it."
        )
    if mode & 0o077:
        raise RefusedError(
            f"secret file '{printable(path)}' must be readable by its owner only, "
            f"got mode {mode:04o}; run `chmod 600` on it."
        )


def read_token(path: Path) -> str:
    """Return the token in a 0600 file.

    Raises:
        MissingError: there is no such file.
        RefusedError: others can read it.
        IntegrityError: it holds no token.
    """
    check_secret_file(path)
    with path.open("rb") as file:
        raw = file.read(MAX_TOKEN_BYTES + 1)
    text = raw.decode("ascii", errors="replace").strip()
    if len(raw) > MAX_TOKEN_BYTES or len(text) < MIN_TOKEN_CHARS or not text.isprintable():
        raise IntegrityError(
            f"secret file '{printable(path)}' must hold one token of {MIN_TOKEN_CHARS} to "
            f"{MAX_TOKEN_BYTES} printable ASCII characters; create a new one."
        )
    return text
