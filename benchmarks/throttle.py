"""Parts of a core: what stands for nodes of their own on one machine.

Needs root and the CPU controller of cgroup v1. The period is short, so that a worker that has used
its part up holds the others for a few milliseconds and not for a tenth of a second.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROLLER = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 10_000


@contextmanager
def parts_of_a_core(count: int, share: float) -> Iterator[list[Path]]:
    """Make groups whose processes get a share of one core each; `enter` puts a process in.

    Raises:
        OSError: the controller is not there, or may not be written.
    """
    groups = [CONTROLLER / f"arclight-race-{os.getpid()}-{i}" for i in range(count)]
    try:
        for group in groups:
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
        yield groups
    finally:
        for group in groups:
            with suppress(OSError):
                group.rmdir()


def enter(group: Path) -> None:
    """Put this process into a group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
