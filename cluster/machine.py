"""What this process may really use: cores and memory under affinity and cgroups, disk, shm."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- the kernel's, asked for its size only
DEVICES = Path("/dev")
DRIVER_S = 60
"""How long a driver may take to answer; the first time after a start takes seconds."""
_GPU = re.compile(r"nvidia\d+")
_PROBE = "import ctypes, sys; sys.exit(ctypes.CDLL('libcuda.so.1').cuInit(0) != 0)"


@dataclass(frozen=True, slots=True)
class Machine:
    """What one process may use; plain numbers, so that a test can make one up."""

    cores: int
    memory_bytes: int
    shm_bytes: int
    disk_free_bytes: int
    gpus: int = 0


def look_at_machine(folder: Path | None = None) -> Machine:
    """Measure this machine as this process may use it.

    Args:
        folder: where scratch files will lie; None is the system's temporary folder.
    """
    scratch = folder if folder is not None else Path(tempfile.gettempdir())
    while not scratch.exists():
        scratch = scratch.parent
    return Machine(
        cores=usable_cores(),
        memory_bytes=usable_memory_bytes(),
        shm_bytes=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0,
        disk_free_bytes=shutil.disk_usage(scratch).free,
        gpus=found if (found := usable_gpus()) and driver_answers() else 0,
    )


def usable_cores(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUPS) -> int:
    """Return the cores that affinity and the cgroup CPU quota leave, at least 1."""
    affinity = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quotas = [quota for folder in _folders(root, own, "cpu") if (quota := _quota(folder))]
    return max(1, min([affinity, *(math.ceil(quota) for quota in quotas)]))


def usable_memory_bytes(root: Path = CGROUP_ROOT, own: Path = OWN_CGROUPS) -> int:
    """Return the smaller of the machine's memory and every cgroup limit above this process."""
    limits = [limit for folder in _folders(root, own, "memory") if (limit := _limit(folder))]
    return min([psutil.virtual_memory().total, *limits])


def usable_gpus(devices: Path = DEVICES, variables: Mapping[str, str] = os.environ) -> int:
    """Return how many NVIDIA GPUs this process may use: those that are there and not hidden."""
    there = sum(bool(_GPU.fullmatch(one.name)) for one in devices.glob("nvidia*"))
    shown = variables.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return there
    # what stands behind one that is not there is not seen either
    named = itertools.takewhile(lambda name: name not in ("", "-1"), shown.split(","))
    return min(there, sum(1 for _ in named))


@functools.cache
def driver_answers() -> bool:
    """Say whether the driver of the GPUs that are there works; where it does not, none is usable.

    In a process of its own, since one that has asked sees no other choice of GPUs afterwards.
    """
    try:
        asked = [sys.executable, "-I", "-c", _PROBE]
        found = subprocess.run(asked, capture_output=True, timeout=DRIVER_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def _folders(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the cgroup folders (v1 and v2) of this process and their parents.

    The path in /proc may be the host's while only the container's own tree is mounted, so the
    mount point itself is always among them.
    """
    lines = own.read_text(encoding="utf-8").splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / controller if controllers else root
        relative = Path(path.lstrip("/"))
        yield from (mount / part for part in (relative, *relative.parents))


def _quota(folder: Path) -> float | None:
    """Return the cores a cgroup allows, or None when it sets no limit."""
    unified = _words(folder / "cpu.max")
    if len(unified) == 2:
        quota, period = unified
    else:
        quota = "".join(_words(folder / "cpu.cfs_quota_us"))
        period = "".join(_words(folder / "cpu.cfs_period_us"))
    if not (quota.isdigit() and period.isdigit()) or int(period) == 0:
        return None
    return int(quota) / int(period)


def _limit(folder: Path) -> int | None:
    """Return the bytes a cgroup allows, or None when it sets no limit."""
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    return int(words[0]) if words and words[0].isdigit() and int(words[0]) > 0 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []
