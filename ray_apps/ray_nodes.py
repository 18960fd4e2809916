"""The nodes of the Ray cluster this process is connected to."""

from __future__ import annotations

import math

import ray

from arclight.errors import LostWorkerError
from cluster.sizing import room


def cores_of_nodes() -> list[int]:
    """Return the cores of each node that is alive and has some."""
    return [int(has["CPU"]) for has in _alive(1)]


def least_memory_bytes(cores: int) -> float:
    """Return the memory that Ray has for tasks on the least of the nodes with so many cores."""
    return min((has["memory"] for has in _alive(cores) if "memory" in has), default=math.inf)


def check_room(workers: int, threads: int) -> None:
    """Say when what waits for its place will never have one.

    Raises:
        LostWorkerError: nodes went away, and those that are left do not take the workers.
    """
    nodes = cores_of_nodes()
    if room(nodes, threads) < workers:
        raise LostWorkerError(
            f"{workers} workers with {threads} cores each do not fit any more into nodes of "
            f"{', '.join(map(str, sorted(nodes))) or 'no'} cores: a node is gone."
        )


def _alive(cores: int) -> list[dict[str, float]]:
    """Return what each living node with so many cores has."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [has for has in alive if has.get("CPU", 0) >= cores]
