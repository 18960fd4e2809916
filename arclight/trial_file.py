"""The lines of a study's trials in a file of the store."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.errors import ArclightError
from arclight.store import flush_folder, held_file, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"


@dataclass(frozen=True)
class TrialFile:
    """A file of lines that only grows."""

    path: Path

    def __str__(self) -> str:
        return f"'{self.path}'"

    def after(self, place: int) -> tuple[list[bytes], int]:
        """Return the lines behind a place, and the place behind them; a cut last line is none.

        Args:
            place: a number of bytes; 0: the beginning.
        """
        if not self.path.is_file():
            return [], place
        with self.path.open("rb") as stream:
            stream.seek(place)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        return whole.splitlines(), place + len(whole)

    def append(self, line: bytes, *, is_lasting: bool) -> None:
        """Append a line, on the disk before this returns if it is to last.

        Raises:
            ArclightError: it cannot be written.
        """
        try:
            make_folder(self.path.parent)
            is_new = not self.path.exists()
            stream = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(stream).st_size
                if size and os.pread(stream, 1, size - 1) != b"\n":  # the rest of a cut line
                    whole = os.pread(stream, size, 0)
                    os.ftruncate(stream, whole.rfind(b"\n") + 1)
                rest = memoryview(line + b"\n")
                while rest:
                    rest = rest[os.write(stream, rest) :]
                if is_lasting:
                    os.fsync(stream)
            finally:
                os.close(stream)
            if is_new:
                flush_folder(self.path.parent)
        except OSError as error:
            raise ArclightError(
                f"'{self.path}' must be written, but {error.strerror}; free space in the store or "
                "mend its rights; the same command goes on."
            ) from error

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the file for the length of a block; yields whether nobody else holds it.

        Raises:
            RefusedError: the store's file system has no locks.
        """
        make_folder(self.path.parent)
        with held_file(self.path.with_name(LOCK)) as is_mine:
            yield is_mine
