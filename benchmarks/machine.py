"""What a figure must be read with: cores, memory bandwidth, load, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

CORES = 2
"""Every contender is pinned to so many cores and uses as many threads."""
QUIET_LOAD = 0.5
LIBRARIES = (
    "pyspark", "ray", "xgboost-cpu", "xgboost", "lightgbm", "pyarrow", "polars", "numpy", "pandas",
)  # fmt: skip
_COPY_BYTES = 1 << 30


def cores_to_use() -> tuple[int, ...]:
    """Return the cores that both sides of every race are pinned to."""
    return tuple(sorted(os.sched_getaffinity(0))[:CORES])


def hardware() -> dict[str, Any]:
    """Return the machine as a results page names it."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of every library that races."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def copy_bandwidth() -> float:
    """Return GiB per second of a 1 GiB copy on two threads, the best of three."""
    half = _COPY_BYTES // 2
    sources = [np.ones(half, dtype=np.uint8) for _ in range(CORES)]
    targets = [np.zeros(half, dtype=np.uint8) for _ in range(CORES)]
    best = float("inf")
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(3):
            start = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            best = min(best, time.perf_counter() - start)
    return CORES * half / 2**30 / best


def load_1m() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def wait_until_quiet(limit_s: float) -> float:
    """Wait until the load is low enough to measure, or the limit is over; return the load."""
    end = time.monotonic() + limit_s
    while load_1m() > QUIET_LOAD and time.monotonic() < end:
        time.sleep(5)
    return load_1m()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
