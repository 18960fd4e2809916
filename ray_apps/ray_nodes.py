"""The nodes of the Ray cluster this process is connected to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import ray

from arclight.errors import LostWorkerError
from cluster.sizing import places_of, room

if TYPE_CHECKING:
    from cluster.sizing import Crew


def cores_of_nodes() -> list[int]:
    """Return the cores of each node that is alive and has some."""
    return [int(has["CPU"]) for has in _alive(1)]


def cores_of_gpus() -> list[int]:
    """Return the cores that stand beside each GPU of the nodes that are alive."""
    each = (places_of(int(has["CPU"]), int(has.get("GPU", 0))) for has in _alive(1))
    return [cores for places in each for cores in places]


def least_memory_bytes(crew: Crew) -> float:
    """Return the memory that Ray has for a worker on the least of the nodes that take one."""
    found, nodes = [], _alive(crew.threads)
    # each node takes one before any takes another; of GPUs a node may have none
    most = crew.workers if crew.gpus else max(1, crew.workers - len(nodes) + 1)
    for has in nodes:
        cores = int(has["CPU"])
        beside_gpus = len(places_of(cores, int(has.get("GPU", 0))))
        places = beside_gpus if crew.gpus else cores // crew.threads
        if places and "memory" in has:
            found.append(has["memory"] / min(most, places))
    return min(found, default=math.inf)


def check_room(crew: Crew) -> None:
    """Say when what waits for its place will never have one.

    Raises:
        LostWorkerError: nodes went away, and those that are left do not take the workers.
    """
    places = cores_of_gpus() if crew.gpus else cores_of_nodes()
    alone = sum(cores >= crew.threads for cores in places)  # one a GPU, whatever its cores
    if (alone if crew.gpus else room(places, crew.threads)) < crew.workers:
        what = "GPUs beside" if crew.gpus else "nodes of"
        raise LostWorkerError(
            f"{crew.workers} workers with {crew.threads} cores each do not fit any more into "
            f"{what} {', '.join(map(str, sorted(places))) or 'no'} cores: a node is gone."
        )


def _alive(cores: int) -> list[dict[str, float]]:
    """Return what each living node with so many cores has."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [has for has in alive if has.get("CPU", 0) >= cores]
