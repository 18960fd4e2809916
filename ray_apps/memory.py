"""Memory that a training ran out of: which worker, how much it held, and for how many rows."""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

import psutil

from arclight.errors import EngineError
from cluster.machine import usable_memory_bytes
from cluster.sizing import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.manifest import DatasetManifest
    from ray_apps.gang import Gang

SAID = ("bad_alloc", "bad allocation", "allocate memory", "out of memory")
"""What libraries say whose own error is all that Python gets to see."""


def held_bytes() -> int:
    """Return the memory this process holds now."""
    return int(psutil.Process().memory_info().rss)


@contextlib.contextmanager
def memory_named(gang: Gang, manifest: DatasetManifest) -> Iterator[None]:
    """Say who ran out of memory, and with what, in place of what a library says.

    Raises:
        EngineError: no memory was left in the block.
    """
    try:
        yield
    except Exception as error:
        if not _is_no_memory(error):
            raise
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rows = manifest.rows["train"]
        raise EngineError(
            f"training worker {gang.rank + 1} of {gang.world} ran out of memory: it held "
            f"{peak / GIB:.1f} GiB of {_limit_bytes() / GIB:.1f} GiB, for its part of "
            f"{rows:,} rows of {len(manifest.plan.features):,} features; use more nodes, more "
            "memory or fewer features."
        ) from error


def _is_no_memory(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or any(word in str(seen) for word in SAID):
            return True
        seen = seen.__cause__
    return False


def _limit_bytes() -> int:
    """Return the least of what the process, its container and the machine may hold."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    mine = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    return min([usable_memory_bytes(), *mine])
