"""How big each piece is: arithmetic from a profile and a machine, nothing measured here.

One heavy engine works at a time (Spark stops before training starts), so Spark's heap and the
training processes may each plan with most of the memory. Boosting data lives in the trainers'
own processes, never in Ray's object store, which therefore stays small.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from arclight.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arclight.workers import Bounds
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
MIN_OWN_SHARE = 0.5
"""Of the cores that workers on shared nodes would have: with fewer each has no node of its own."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one run on one machine."""

    cores: int
    memory_bytes: int
    spark_driver_memory_mib: int
    spark_shuffle_partitions: int
    arrow_batch_rows: int
    ray_object_store_bytes: int


def plan_sizes(profile: Profile, machine: Machine) -> Sizes:
    """Divide a machine among the engines of a profile.

    Args:
        profile: where to run.
        machine: what there is.

    Raises:
        RefusedError: the memory is less than any run needs.
    """
    cores = profile.cores or machine.cores
    memory = _memory_bytes(profile, machine)
    return Sizes(
        cores=cores,
        memory_bytes=memory,
        spark_driver_memory_mib=_spark_mib(memory),
        spark_shuffle_partitions=_shuffle_partitions(profile, cores),
        arrow_batch_rows=ARROW_BATCH_ROWS,
        ray_object_store_bytes=_store_bytes(memory, machine.shm_bytes),
    )


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes that train one model."""

    workers: int
    threads: int
    """Of each of them."""
    gpus: int = 0
    """Of each of them: 0 or 1."""
    bins: Literal["memory", "disk"] = "memory"
    """Where each of them has its bins."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """What each of them computes on."""
        return "cuda" if self.gpus else "cpu"

    @property
    def cores(self) -> int:
        """Cores of all of them."""
        return self.workers * self.threads


def plan_crew(nodes: Sequence[int], bounds: Bounds, *, cores_per_worker: int | None) -> Crew:
    """Choose how many alike workers train on a cluster, and with how many cores each.

    One worker a node with all its cores, since workers on one node would share nothing but
    copies; of unlike nodes those that have most cores together when each gives as many. Where
    enough nodes are there, workers share one only if that gives more than twice the cores.

    Args:
        nodes: the cores of each node.
        bounds: the fewest and the most workers.
        cores_per_worker: what the profile says; None: as many as there are.

    Raises:
        RefusedError: the fewest do not fit, with the figures.
    """
    least = bounds.least
    alone = (c for c in _alone(nodes, bounds, cores_per_worker) if c.workers >= least)
    own = max(alone, key=_worth, default=Crew(0, 1))
    # more than one on some node
    fit = [n for n in range(1, max(nodes, default=0) + 1) if room(nodes, n) >= least]
    shared = Crew(least, cores_per_worker or max(fit, default=1))
    if own.cores >= MIN_OWN_SHARE * shared.cores:
        return own
    each = shared.threads
    if room(nodes, each) < least:
        have = ", ".join(map(str, sorted(nodes))) or "no"
        raise RefusedError(
            f"train.workers: {least:,} workers with {each:,} cores each must fit into nodes of "
            f"{have} cores, which take {room(nodes, each):,}; use fewer workers, or a profile of "
            "a larger cluster."
        )
    return shared


def spread_over(nodes: Mapping[str, int], crew: Crew) -> list[str]:
    """Return the node of each worker, as evenly as the cores of the nodes allow.

    Args:
        nodes: node -> its cores.
        crew: how many workers, and the cores of each.

    Returns:
        Fewer than the workers where there is no room for all of them.
    """
    left, taken = dict(nodes), Counter[str]()
    found: list[str] = []
    for _ in range(crew.workers):
        able = [node for node, cores in left.items() if cores >= crew.threads]
        if not able:
            return found
        node = min(able, key=lambda one: (taken[one], -left[one], one))
        left[node] -= crew.threads
        taken[node] += 1
        found.append(node)
    return found


def plan_gpu_crew(places: Sequence[int], bounds: Bounds, *, cores_per_worker: int | None) -> Crew:
    """Choose how many alike workers train on a cluster with a GPU each, as `plan_crew`.

    Args:
        places: the cores that stand beside each GPU.
        bounds: the fewest and the most workers.
        cores_per_worker: what the profile says; None: as many as there are.

    Raises:
        RefusedError: there are fewer GPUs than the fewest workers, or too few cores beside them.
    """
    fit = [c for c in _alone(places, bounds, cores_per_worker) if c.workers >= bounds.least]
    if not fit:
        have = ", ".join(map(str, sorted(places))) or "no"
        raise RefusedError(
            f"train.workers: {bounds.least:,} workers must have a GPU and "
            f"{cores_per_worker or 1:,} cores each, but beside the {len(places):,} GPUs there are "
            f"{have} cores; use fewer workers, `device: cpu`, or a profile of a larger cluster."
        )
    most = max(fit, key=lambda crew: (crew.workers, crew.threads))  # no GPU is left idle
    return replace(most, gpus=1)


def places_of(cores: int, gpus: int) -> list[int]:
    """Return the cores that stand beside each GPU of a node."""
    used = min(cores, gpus)
    return [cores // used] * used if used else []


def check_memory(rows: int, row_bytes: int, crew: Crew, have_bytes: float) -> None:
    """Refuse a training that cannot fit, before it reads anything.

    Args:
        rows: of train.
        row_bytes: what a worker holds of each at the very least; whatever fits more tightly than
            that is tried.
        crew: who trains.
        have_bytes: the memory of the least node that may take a worker, or of the profile.

    Raises:
        RefusedError: it needs more, with the figures.
    """
    need = need_bytes(rows, row_bytes, crew)
    if need > have_bytes:
        raise RefusedError(
            f"{rows:,} rows of train must fit into memory, {row_bytes:,} bytes each: each of "
            f"{crew.workers:,} workers needs {need / GIB:.1f} GiB at least, and has "
            f"{have_bytes / GIB:.1f} GiB; use more nodes, more memory or fewer features."
        )


def need_bytes(rows: int, row_bytes: int, crew: Crew) -> int:
    """Return what a worker of a crew needs for its part of rows."""
    return -(-rows // crew.workers) * row_bytes


def room(nodes: Sequence[int], each: int) -> int:
    """Return how many workers of so many cores the nodes take."""
    return sum(cores // each for cores in nodes)


def _alone(places: Sequence[int], bounds: Bounds, each: int | None) -> Iterator[Crew]:
    """Yield the crews of alike workers with a place each, by the cores of a worker."""
    for threads in sorted(set(places)) if each is None else [each]:
        alike = sum(cores >= threads for cores in places)
        yield Crew(alike if bounds.most is None else min(alike, bounds.most), threads)


def _worth(crew: Crew) -> tuple[int, int]:
    """Return what makes one crew better: more cores; of equals fewer workers, who say less."""
    return crew.cores, crew.threads


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
