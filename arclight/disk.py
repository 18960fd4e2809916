"""What to say when a disk is full, closed to this user, or takes no such name."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from arclight.errors import ArclightError, SpecError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# no space, no quota, no larger file: to a program they are the same
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def disk_full(error: BaseException) -> ArclightError | None:
    """Return the sentence for an error that a full disk caused, None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    place = f" for '{printable(error.filename)}'" if error.filename else ""
    return ArclightError(
        f"the disk has no room{place} ({os.strerror(error.errno)}); nothing was published: free "
        "space, and run the same command again."
    )


def closed_file(error: BaseException) -> ArclightError | None:
    """Return the sentence for a file or folder that this user may not use, None for other errors.

    Of what is no file, as a port or a process, the system names none.
    """
    if not isinstance(error, OSError) or error.errno not in _CLOSED or not error.filename:
        return None
    return ArclightError(
        f"'{printable(error.filename)}' must be open to this user, but {error.strerror}; mend its "
        "rights, or run the same command as a user who has them."
    )


def long_name(error: BaseException) -> SpecError | None:
    """Return the sentence for a name that no file can have, None for other errors."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    return SpecError(
        f"'{printable(error.filename)}' must be a name that a file can have, but "
        f"{error.strerror}; give a shorter one."
    )


def odd_name(error: BaseException) -> SpecError | None:
    """Return the sentence for a name whose bytes are not UTF-8, None for other errors."""
    if not isinstance(error, UnicodeEncodeError):
        return None
    text, at = error.object, error.start
    if not "\udc80" <= text[at] <= "\udcff":  # what Python has for a byte that is no text
        return None
    begin = max(text.rfind(sign, 0, at) for sign in '"\n') + 1
    name = text[begin:].split("\n")[0].split('"')[0]
    return SpecError(
        f"'{printable(name)}' must be a name in UTF-8, which alone engines and records take; "
        "rename it, or give another."
    )


@contextlib.contextmanager
def making(output: Path) -> Iterator[None]:
    """Say that the output cannot be made where it shall be; a full disk is told elsewhere.

    Raises:
        SpecError: the system did not let what is inside have its folder or look there.
    """
    try:
        yield
    except OSError as error:
        if disk_full(error) is not None:
            raise
        raise SpecError(
            f"output '{printable(output)}' must be a folder that can be made, but "
            f"{error.strerror}; give another, or mend the rights of where it shall lie."
        ) from error
