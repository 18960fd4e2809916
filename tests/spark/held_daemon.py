"""Spark's Python daemon, with workers that pause in the middle of a file while a hold is there.

A task writes its part in milliseconds, too short to be met by looking; here it waits, its file
begun and open, until the test has done what it wants to do to it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pyspark import daemon

from spark import files

HOLD = "ARCLIGHT_TEST_HOLD"
"""The variable that names the folder of the hold: it lasts as long as the folder."""
HELD_S = 120

write = files.PartWriter._write


def write_and_wait(self: files.PartWriter, rows: int) -> None:
    write(self, rows)
    hold = Path(os.environ[HOLD])
    if hold.exists():
        (hold / str(os.getpid())).touch()
    deadline = time.monotonic() + HELD_S
    while hold.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


if __name__ == "__main__":
    files.PartWriter._write = write_and_wait  # type: ignore[method-assign]
    daemon.manager()
