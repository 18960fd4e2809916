"""Processes of Ray with cores of their own, spread over its nodes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from arclight.errors import EngineError
from ray_apps.ray_nodes import check_room, cores_of_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.actor import ActorHandle
    from ray.util.placement_group import PlacementGroup

PLACED_S = 60.0
"""How long Ray may take to give every worker its cores."""
NODES_POLL_S = 1.0


@contextlib.contextmanager
def placed(kind: type, workers: int, threads: int) -> Iterator[list[ActorHandle]]:
    """Start actors on as many nodes as there are; their places end with the block.

    Args:
        kind: the class of each, made without arguments.
        workers: how many.
        threads: cores of each of them.

    Raises:
        LostWorkerError: nodes went away meanwhile, so that one will never have its place.
        EngineError: others hold the cores for too long.
    """
    alone = sum(cores >= threads for cores in cores_of_nodes()) >= workers
    strategy = "STRICT_SPREAD" if alone else "SPREAD"  # one a node, where there are as many
    group = placement_group([{"CPU": threads}] * workers, strategy=strategy)
    try:
        _wait_for(group, workers, threads)
        yield [_start(kind, group, rank, threads) for rank in range(workers)]
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


def _wait_for(group: PlacementGroup, workers: int, threads: int) -> None:
    ready, deadline = group.ready(), time.monotonic() + PLACED_S
    while not ray.wait([ready], timeout=NODES_POLL_S)[0]:
        check_room(workers, threads)
        if time.monotonic() > deadline:
            raise EngineError(
                f"{workers} workers with {threads} cores each must be placed within "
                f"{PLACED_S:.0f} s, but the cluster is busy; run again when it has room."
            )
    ray.get(ready)


def _start(kind: type, group: PlacementGroup, rank: int, threads: int) -> ActorHandle:
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
    made: Any = ray.remote(num_cpus=threads, scheduling_strategy=place)(kind)
    return made.remote()
