"""The same training on several workers: Ray places their processes, and sees when one dies.

Ray starts and ends the processes; what the workers say to each other goes over connections of
their own (`ray_apps.gang`), so that a round waits for no controller.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from arclight.errors import (
    ArclightError,
    EngineError,
    LostWorkerError,
    NoMemoryError,
    printable,
)
from ray_apps.fit import run_fit
from ray_apps.fit_files import write_progress
from ray_apps.gang.mesh import KEY_BYTES, Door, meet
from ray_apps.gang.wire import LostError
from ray_apps.lean import lean_imports
from ray_apps.ray_placed import GONE, PLACED_S, failure_of, placed
from ray_apps.ray_task import END_S, POLL_S, cause_of, hand_on, lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.actor import ActorHandle

    from arclight.progress import Tick
    from cluster.sizing import Crew

SILENCE_S = 300.0
"""How long a worker may say nothing to another that waits for it."""
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


def fit_in_gang(folder: Path, tick: Tick, crew: Crew) -> None:
    """Run a fit on several Ray workers; Ray is connected (`cluster.ray_session`).

    Args:
        folder: holds the request; every worker sees it under the same path.
        tick: told about the progress.
        crew: how many processes, and what each of them has.

    Raises:
        ArclightError: what a worker raised first.
        LostWorkerError: a worker is gone or silent, or nodes that it needs are.
        EngineError: Ray failed.
    """
    try:
        with placed(GangWorker, crew) as actors:
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
                ray.wait(running, num_returns=crew.workers, timeout=END_S)
    except RayError as error:
        raise EngineError(
            f"Ray could not run {crew.workers} training workers ({printable(error)}); see the "
            "run's log."
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
    except (*GONE, GetTimeoutError) as error:
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
        if any(failure_of(one) is not None for one in done):
            raise _first_cause(running, folder)


def _first_cause(running: list[Any], folder: Path) -> ArclightError:
    """Return the error that made the others fail.

    A worker that lost another says less, and so does one whose library failed: it may have lost
    another without a word.
    """
    ray.wait(running, num_returns=len(running), timeout=REASONS_S)
    failures = [failure_of(one) for one in running]
    reasons = [
        lost(f"training worker {rank + 1} of {len(running)}", failure, folder, rank)
        if isinstance(failure, GONE)
        else cause_of(failure)
        for rank, failure in enumerate(failures)
        if failure is not None
    ]
    failed = [rank for rank, failure in enumerate(failures) if failure is not None]

    def tells_less(reason: ArclightError) -> tuple[bool, ...]:
        # one that lost somebody who lost somebody says least, who had no memory says most
        is_echo, is_lost = getattr(reason, "peer", None) in failed, isinstance(reason, LostError)
        says_most = isinstance(reason, NoMemoryError)
        return is_lost, is_echo, type(reason) is EngineError, not says_most

    return min(reasons, key=tells_less)
