"""The same training on several workers: Ray places their processes, and sees when one dies.

Ray starts and ends the processes; what the workers say to each other goes over connections of
their own (`ray_apps.gang`), so that a round waits for no controller.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from arclight.errors import (
    ArclightError,
    EngineError,
    LostWorkerError,
    NoMemoryError,
    printable,
)
from ray_apps.fit import run_fit, write_progress
from ray_apps.gang.mesh import KEY_BYTES, Door, meet
from ray_apps.gang.wire import LostError
from ray_apps.lean import lean_imports
from ray_apps.ray_nodes import check_room, cores_of_nodes
from ray_apps.ray_task import END_S, POLL_S, cause_of, hand_on, lost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.actor import ActorHandle
    from ray.util.placement_group import PlacementGroup

    from arclight.progress import Tick

PLACED_S = 60.0
"""How long Ray may take to give every worker its cores."""
SILENCE_S = 300.0
"""How long a worker may say nothing to another that waits for it."""
NODES_POLL_S = 1.0
REASONS_S = 5.0
"""How long the others may take to say why, once one has failed."""


class GangWorker:
    """One worker's process, as Ray starts it."""

    def open(self) -> tuple[str, int]:
        """Listen for the other workers on this node's address; return where."""
        self._door = Door(ray.util.get_node_ip_address())
        return self._door.host, self._door.port

    def fit(self, folder: str, rank: int, doors: Sequence[tuple[str, int]], key: bytes) -> None:
        """Train as one of the gang; the first worker leaves progress and results as files."""
        mesh = meet(self._door, rank, doors, key, deadline_s=SILENCE_S)
        try:
            with lean_imports():
                run_fit(Path(folder), write_progress(Path(folder), rank), mesh)
        finally:
            mesh.close()


def fit_in_gang(folder: Path, tick: Tick, *, workers: int, threads: int) -> None:
    """Run a fit on several Ray workers; Ray is connected (`cluster.ray_session`).

    Args:
        folder: holds the request; every worker sees it under the same path.
        tick: told about the progress.
        workers: how many processes.
        threads: cores of each of them.

    Raises:
        ArclightError: what a worker raised first.
        LostWorkerError: a worker is gone or silent, or nodes that it needs are.
        EngineError: Ray failed.
    """
    try:
        with _placed(workers, threads) as actors:
            doors = _open(actors)
            key = secrets.token_bytes(KEY_BYTES)
            running = [
                actor.fit.remote(str(folder), rank, doors, key)
                for rank, actor in enumerate(actors)
            ]
            try:
                _watch(running, folder, tick)
            finally:
                for actor in actors:
                    ray.kill(actor)
                # they must write no more: the caller takes their folder away
                ray.wait(running, num_returns=workers, timeout=END_S)
    except RayError as error:
        raise EngineError(
            f"Ray could not run {workers} training workers ({printable(error)}); see the run's "
            "log."
        ) from error


# --------------------------------------------------------------------------------- inside


def _open(actors: list[ActorHandle]) -> list[tuple[str, int]]:
    """Return where each worker listens, once its process is there.

    Raises:
        LostWorkerError: one never came.
    """
    try:
        doors: list[tuple[str, int]] = ray.get(
            [actor.open.remote() for actor in actors], timeout=PLACED_S
        )
    except (RayActorError, GetTimeoutError) as error:
        raise LostWorkerError(
            f"{len(actors)} training workers must start within {PLACED_S:.0f} s, but one did not "
            f"({printable(error)}); see the run's log."
        ) from error
    return doors


def _watch(running: list[Any], folder: Path, tick: Tick) -> None:
    """Hand the progress on until every worker has come to its end.

    Raises:
        ArclightError: why the first one failed.
    """
    left = running
    while left:
        done, left = ray.wait(left, timeout=POLL_S)
        hand_on(folder, tick)
        if any(_failure(one) is not None for one in done):
            raise _first_cause(running, folder)


@contextlib.contextmanager
def _placed(workers: int, threads: int) -> Iterator[list[ActorHandle]]:
    """Start the workers, on as many nodes as there are; their places end with the block."""
    alone = sum(cores >= threads for cores in cores_of_nodes()) >= workers
    strategy = "STRICT_SPREAD" if alone else "SPREAD"  # one a node, where there are as many
    group = placement_group([{"CPU": threads}] * workers, strategy=strategy)
    try:
        _wait_for(group, workers, threads)
        yield [_start(group, rank, threads) for rank in range(workers)]
    finally:
        remove_placement_group(group)  # which ends what still runs in it


def _wait_for(group: PlacementGroup, workers: int, threads: int) -> None:
    """Wait until every worker has its place.

    Raises:
        LostWorkerError: nodes went away meanwhile, so that it will never have one.
        EngineError: others hold the cores for too long.
    """
    ready, deadline = group.ready(), time.monotonic() + PLACED_S
    while not ray.wait([ready], timeout=NODES_POLL_S)[0]:
        check_room(workers, threads)
        if time.monotonic() > deadline:
            raise EngineError(
                f"{workers} workers with {threads} cores each must be placed within "
                f"{PLACED_S:.0f} s, but the cluster is busy; run again when it has room."
            )
    ray.get(ready)


def _start(group: PlacementGroup, rank: int, threads: int) -> ActorHandle:
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
    made: Any = ray.remote(num_cpus=threads, scheduling_strategy=place)(GangWorker)
    return made.remote()


def _first_cause(running: list[Any], folder: Path) -> ArclightError:
    """Return the error that made the others fail: a worker that lost another says less."""
    ray.wait(running, num_returns=len(running), timeout=REASONS_S)
    failures = [_failure(one) for one in running]
    reasons = [
        lost(f"training worker {rank + 1} of {len(running)}", failure, folder, rank)
        if isinstance(failure, RayActorError)
        else cause_of(failure)
        for rank, failure in enumerate(failures)
        if failure is not None
    ]
    failed = [rank for rank, failure in enumerate(failures) if failure is not None]

    def tells_less(reason: ArclightError) -> tuple[bool, bool, bool]:
        # one that lost somebody who lost somebody says least, who had no memory says most
        is_echo = getattr(reason, "peer", None) in failed
        return isinstance(reason, LostError), is_echo, not isinstance(reason, NoMemoryError)

    return min(reasons, key=tells_less)


def _failure(one: Any) -> RayError | None:
    """Return why a worker failed, None while it runs or when it came to the end."""
    try:
        ray.get(one, timeout=0)
    except GetTimeoutError:
        return None
    except RayError as error:
        return error
    return None
