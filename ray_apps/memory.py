"""Memory that a training ran out of: which worker, how much it held, and for how many rows."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from arclight.errors import NoMemoryError
from cluster.machine import usable_memory_bytes
from cluster.sizing import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.manifest import DatasetManifest

SAID = (
    "bad_alloc", "bad_malloc", "bad allocation", "allocate memory", "out of memory",
    "launch worker thread",
)  # fmt: skip
"""What libraries say whose own error is all that Python gets to see; a thread needs a stack."""


def held_bytes() -> int:
    """Return the memory this process holds now."""
    return int(psutil.Process().memory_info().rss)


def is_no_memory(error: BaseException) -> bool:
    """Say whether memory ran out here: by the first cause, since later ones speak of others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, MemoryError) or any(word in str(error) for word in SAID)


def begin_peak() -> None:
    """Forget how much this process has held: it may have trained before."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """Return the most memory this process has held since `begin_peak`."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(li for li in lines if li.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def memory_named(manifest: DatasetManifest, rank: int = 0, world: int = 1) -> Iterator[None]:
    """Say who ran out of memory, and with what, in place of what a library says.

    Args:
        manifest: what is trained on.
        rank: of this worker.
        world: how many train together.

    Raises:
        NoMemoryError: no memory was left in the block.
    """
    begin_peak()
    try:
        yield
    except Exception as error:
        if not is_no_memory(error):
            raise
        rows = manifest.rows["train"]
        if _is_of_a_gpu(error):
            raise NoMemoryError(
                f"training worker {rank + 1} of {world} ran out of its GPU's memory, for its part "
                f"of {rows:,} rows of {len(manifest.plan.features):,} features; use more GPUs, a "
                "smaller network or batch_rows, or `device: cpu`."
            ) from error
        raise NoMemoryError(
            f"training worker {rank + 1} of {world} ran out of memory: it held "
            f"{peak_bytes() / GIB:.1f} GiB of {_limit_bytes() / GIB:.1f} GiB, for its part of "
            f"{rows:,} rows of {len(manifest.plan.features):,} features; use more nodes, more "
            "memory or fewer features."
        ) from error


def _is_of_a_gpu(error: BaseException) -> bool:
    while error.__cause__ is not None:
        error = error.__cause__
    return "cuda" in str(error).lower()


def _limit_bytes() -> int:
    """Return the least of what the process, its container and the machine may hold."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    mine = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return min([usable_memory_bytes(), *mine])
