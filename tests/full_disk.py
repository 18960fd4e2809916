"""A disk that can be full: really, so that whoever writes gets the kernel's own answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A file system in memory, of a size that can change while it is in use."""

    folder: Path

    @property
    def used_bytes(self) -> int:
        """What lies on it."""
        return shutil.disk_usage(self.folder).used

    def resize(self, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def freeze(self) -> None:
        """Have it be read from now on, and no more."""
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def fill(self, *, leave_bytes: int) -> Path:
        """Take what room there is but for some bytes; removing the file gives it back."""
        filler = self.folder / ".filler"
        with filler.open("wb") as stream:
            os.posix_fallocate(
                stream.fileno(), 0, shutil.disk_usage(self.folder).free - leave_bytes
            )
        return filler


@contextmanager
def small_disk(folder: Path, *, size: str) -> Iterator[Disk]:
    """Mount a small disk; where that is not allowed, the test is skipped and says so."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "arclight-test", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        # lazily: an engine may still hold a file of it
        subprocess.run(["umount", "-l", folder], check=True)
