"""What to say when a disk is full, whoever was writing."""

from __future__ import annotations

import errno
import os

from arclight.errors import ArclightError, printable

# no space, no quota, no larger file: to a program they are the same
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def disk_full(error: BaseException) -> ArclightError | None:
    """Return the sentence for an error that a full disk caused, None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    place = f" for '{printable(error.filename)}'" if error.filename else ""
    return ArclightError(
        f"the disk has no room{place} ({os.strerror(error.errno)}); nothing was published: free "
        "space, and run the same command again."
    )
