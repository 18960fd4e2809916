"""The nodes of the Ray cluster this process is connected to."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import ray

from arclight.errors import LostWorkerError
from cluster.sizing import places_of, room, spread_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.sizing import Crew


def cores_of_nodes() -> list[int]:
    """Return the cores of each node that is alive and has some."""
    return [int(has["CPU"]) for has in _alive(1).values()]


def cores_of_gpus() -> list[int]:
    """Return the cores that stand beside each GPU of the nodes that are alive."""
    each = (places_of(int(has["CPU"]), int(has.get("GPU", 0))) for has in _alive(1).values())
    return [cores for places in each for cores in places]


def shared_nodes(crew: Crew) -> list[str]:
    """Return the node of each worker where some take several; of others Ray decides.

    Ray's own way would put one on each node, and all the rest on the largest.
    """
    nodes = {node: int(has["CPU"]) for node, has in _alive(crew.threads).items()}
    if crew.gpus or len(nodes) >= crew.workers:
        return []
    found = spread_over(nodes, crew)
    return found if len(found) == crew.workers else []


def least_memory_bytes(crew: Crew) -> float:
    """Return the memory that Ray has for a worker on the least of the nodes that take one."""
    found, count = [], Counter(shared_nodes(crew))
    for node, has in _alive(crew.threads).items():
        beside_gpus = len(places_of(int(has["CPU"]), int(has.get("GPU", 0))))
        places = min(crew.workers, beside_gpus) if crew.gpus else count.get(node, not count)
        if places and "memory" in has:
            found.append(has["memory"] / places)
    return min(found, default=math.inf)


def check_room(crew: Crew, nodes: Sequence[str] = ()) -> None:
    """Say when what waits for its place will never have one.

    Args:
        crew: what waits.
        nodes: which nodes it waits for, if not for any.

    Raises:
        LostWorkerError: nodes went away, and those that are left do not take the workers.
    """
    if not set(nodes) <= _alive(1).keys():
        raise LostWorkerError("A node is gone that workers were to be put on.")
    places = cores_of_gpus() if crew.gpus else cores_of_nodes()
    alone = sum(cores >= crew.threads for cores in places)  # one a GPU, whatever its cores
    if (alone if crew.gpus else room(places, crew.threads)) < crew.workers:
        what = "GPUs beside" if crew.gpus else "nodes of"
        raise LostWorkerError(
            f"{crew.workers} workers with {crew.threads} cores each do not fit any more into "
            f"{what} {', '.join(map(str, sorted(places))) or 'no'} cores: a node is gone."
        )


def _alive(cores: int) -> dict[str, dict[str, float]]:
    """Return node -> what it has, of those that live and have so many cores."""
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return {node: has for node, has in alive.items() if has.get("CPU", 0) >= cores}
