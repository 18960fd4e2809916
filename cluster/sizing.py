"""How big each piece is: arithmetic from a profile and a machine, nothing measured here.

One heavy engine works at a time (Spark stops before training starts), so Spark's heap and the
training processes may each plan with most of the memory. Boosting data lives in the trainers'
own processes, never in Ray's object store, which therefore stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.errors import RefusedError

if TYPE_CHECKING:
    from cluster.machine import Machine
    from cluster.profiles import Profile

MIB = 1 << 20
GIB = 1 << 30

MIN_MEMORY_BYTES = 2 * GIB
SPARK_SHARE = 0.4  # the rest is for Python workers, Arrow buffers and the page cache
MIN_SPARK_MIB = 768  # Spark refuses to start under about 450 MiB
MAX_SPARK_MIB = 31 * 1024  # above 32 GiB object pointers double in size
STORE_SHARE = 0.02
MIN_STORE_BYTES = 96 * MIB  # Ray refuses less than 75 MiB
MAX_STORE_BYTES = 1 * GIB
SHM_SHARE = 0.5
MAX_SHUFFLE_PARTITIONS = 2_000
ARROW_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one run on one machine."""

    cores: int
    memory_bytes: int
    spark_driver_memory_mib: int
    spark_shuffle_partitions: int
    arrow_batch_rows: int
    ray_object_store_bytes: int
    ray_workers: int
    worker_threads: int


def plan_sizes(profile: Profile, machine: Machine, *, workers: int | None = None) -> Sizes:
    """Divide a machine among the engines of a profile.

    Args:
        profile: where to run.
        machine: what there is.
        workers: training processes that share the machine; None takes the profile's.

    Raises:
        RefusedError: the memory is less than any run needs.
    """
    cores = profile.cores or machine.cores
    memory = _memory_bytes(profile, machine)
    workers = max(1, profile.ray.workers if workers is None else workers)
    return Sizes(
        cores=cores,
        memory_bytes=memory,
        spark_driver_memory_mib=_spark_mib(memory),
        spark_shuffle_partitions=_shuffle_partitions(profile, cores),
        arrow_batch_rows=ARROW_BATCH_ROWS,
        ray_object_store_bytes=_store_bytes(memory, machine.shm_bytes),
        ray_workers=workers,
        worker_threads=profile.ray.cores_per_worker or max(1, cores // workers),
    )


def check_workers(profile: Profile, machine: Machine, workers: int) -> None:
    """Refuse more training processes than an own cluster has cores for.

    Raises:
        RefusedError: they do not fit; an attached cluster answers for itself later.
    """
    cores, each = profile.cores or machine.cores, profile.ray.cores_per_worker or 1
    if profile.ray.address is None and workers > 1 and workers * each > cores:
        raise RefusedError(
            f"train.workers: {workers:,} workers with {each:,} cores each must fit into the "
            f"{cores:,} cores of profile '{profile.name}'; use fewer workers, or a profile of a "
            "cluster."
        )


def _memory_bytes(profile: Profile, machine: Machine) -> int:
    wanted = machine.memory_bytes if profile.memory_gib is None else profile.memory_gib * GIB
    memory = int(min(wanted, machine.memory_bytes))
    if memory < MIN_MEMORY_BYTES:
        raise RefusedError(
            f"memory must be at least {MIN_MEMORY_BYTES / GIB:.0f} GiB, got {memory / GIB:.2f} "
            f"GiB for profile '{profile.name}'; raise memory_gib or the container's limit."
        )
    return memory


def _spark_mib(memory_bytes: int) -> int:
    return int(min(MAX_SPARK_MIB, max(MIN_SPARK_MIB, memory_bytes * SPARK_SHARE / MIB)))


def _shuffle_partitions(profile: Profile, cores: int) -> int:
    """Two tasks a core: adaptive execution joins small ones, and spilling handles large ones."""
    executors = profile.spark.executor_cores or cores
    return min(MAX_SHUFFLE_PARTITIONS, max(2, 2 * executors))


def _store_bytes(memory_bytes: int, shm_bytes: int) -> int:
    """Small, and never more than half of shared memory, or Ray falls back to disk."""
    store = min(MAX_STORE_BYTES, max(MIN_STORE_BYTES, int(memory_bytes * STORE_SHARE)))
    fits = int(shm_bytes * SHM_SHARE)
    return min(store, max(fits, MIN_STORE_BYTES))
