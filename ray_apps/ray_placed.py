"""Processes of Ray with cores of their own, spread over its nodes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from arclight.errors import EngineError
from ray_apps.ray_nodes import check_room, cores_of_nodes, shared_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.actor import ActorHandle
    from ray.util.placement_group import PlacementGroup

    from cluster.sizing import Crew

PLACED_S = 60.0
"""How long Ray may take to give every worker its cores."""
NODES_POLL_S = 1.0
NODE = "ray.io/node-id"
"""Ray's label of a node by which a place is bound to it."""
GONE = (RayActorError, OutOfMemoryError)
"""What a call fails with whose process is gone; the second one where Ray itself has ended it, when
its node was short of memory."""


@contextlib.contextmanager
def placed(kind: type, crew: Crew) -> Iterator[list[ActorHandle]]:
    """Start actors on as many nodes as there are; their places end with the block.

    Args:
        kind: the class of each, made without arguments.
        crew: how many, and what each of them has.

    Raises:
        LostWorkerError: nodes went away meanwhile, so that one will never have its place.
        EngineError: others hold the cores for too long.
    """
    fit, nodes = sum(cores >= crew.threads for cores in cores_of_nodes()), shared_nodes(crew)
    # one a node, where there are as many; those with GPUs may be fewer
    strategy = "STRICT_SPREAD" if fit >= crew.workers and not crew.gpus else "SPREAD"
    has = {"CPU": crew.threads, **({"GPU": crew.gpus} if crew.gpus else {})}
    group = placement_group(
        [has] * crew.workers,
        strategy=strategy,
        bundle_label_selector=[{NODE: node} for node in nodes] or None,
    )
    try:
        _wait_for(group, crew, nodes)
        yield [_start(kind, group, rank, crew) for rank in range(crew.workers)]
    finally:
        remove_placement_group(group)  # which ends what still runs in it


def failure_of(one: Any) -> RayError | None:
    """Return why a call failed, None while it runs or when it came to its end."""
    try:
        ray.get(one, timeout=0)
    except GetTimeoutError:
        return None
    except RayError as error:
        return error
    return None


# --------------------------------------------------------------------------------- inside


def _wait_for(group: PlacementGroup, crew: Crew, nodes: Sequence[str]) -> None:
    ready, deadline = group.ready(), time.monotonic() + PLACED_S
    while not ray.wait([ready], timeout=NODES_POLL_S)[0]:
        check_room(crew, nodes)
        if time.monotonic() > deadline:
            raise EngineError(
                f"{crew.workers} workers with {crew.threads} cores each must be placed within "
                f"{PLACED_S:.0f} s, but the cluster is busy; run again when it has room."
            )
    ray.get(ready)


def _start(kind: type, group: PlacementGroup, rank: int, crew: Crew) -> ActorHandle:
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
    has: Any = {"num_cpus": crew.threads, "num_gpus": crew.gpus}
    made: Any = ray.remote(**has, scheduling_strategy=place)(kind)
    return made.remote()
