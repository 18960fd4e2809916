"""A folder of results that appears once, whole: made under a private name beside its own.

What a killed command leaves there, `arclight sweep FOLDER` finds by that name.
"""

from __future__ import annotations

import contextlib
import errno
import re
import uuid
from typing import TYPE_CHECKING

from arclight.disk import making
from arclight.errors import ConflictError, printable
from arclight.store import discard, flush_folder, flush_tree, held, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_TAKEN = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY})


def private_beside(output: Path) -> Path:
    """Return a new private name beside an output; of a long one it has the beginning."""
    return output.with_name(f".{output.name[:40]}.{uuid.uuid4().hex}.tmp")


@contextlib.contextmanager
def made_beside(output: Path) -> Iterator[Path]:
    """Give a private folder to make an output in, which `sweep` leaves alone; gone in the end.

    Raises:
        SpecError: it cannot be made where the output shall lie.
    """
    work = private_beside(output)
    with making(output):
        make_folder(work)
    try:
        with held(work):
            yield work
    finally:
        discard(work)


def take_name(work: Path, output: Path) -> None:
    """Give a finished folder its name; one that is not empty is never replaced.

    Raises:
        ConflictError: somebody else has made one meanwhile.
        SpecError: the system does not let it have that name.
    """
    flush_tree(work)
    with making(output):
        try:
            work.rename(output)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise ConflictError(
                f"output '{printable(output)}' must be new or empty when it is whole, but "
                f"{error.strerror}: somebody else wrote it; give another."
            ) from error
        flush_folder(output.parent)
