"""The nodes of the Ray cluster this process is connected to."""

from __future__ import annotations

import ray

from arclight.errors import LostWorkerError


def cores_of_nodes() -> list[int]:
    """Return the cores of each node that is alive and has some."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [int(has["CPU"]) for has in alive if has.get("CPU", 0) >= 1]


def least_memory_bytes() -> int:
    """Return the memory that Ray gives to tasks on the node that has least of it."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return int(min(has.get("memory", float("inf")) for has in alive if has.get("CPU", 0) >= 1))


def check_room(workers: int, threads: int) -> None:
    """Say when what waits for its place will never have one.

    Raises:
        LostWorkerError: nodes went away, and those that are left do not take the workers.
    """
    nodes = cores_of_nodes()
    if sum(cores // threads for cores in nodes) < workers:
        raise LostWorkerError(
            f"{workers} workers with {threads} cores each do not fit any more into nodes of "
            f"{', '.join(map(str, sorted(nodes))) or 'no'} cores: a node is gone."
        )
