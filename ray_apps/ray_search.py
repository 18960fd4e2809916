"""A search on several nodes: a host on each, with its own binned rows, and one that decides."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from arclight.errors import ArclightError, LostWorkerError
from arclight.trial_table import PASSWORD, password_as
from ray_apps.lean import lean_imports
from ray_apps.ray_placed import GONE, failure_of, placed
from ray_apps.ray_task import END_S, POLL_S, cause_of, lost
from ray_apps.tuning.worker import deciding, request_of, run_host

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from arclight.population import Leg
    from arclight.progress import Tell, Tick
    from arclight.search_space import Param
    from arclight.trials import Trial
    from cluster.sizing import Crew
    from ray_apps.tuning.controller import Said


class ControllerProcess:
    """The one that decides, as Ray starts it; the study is its own for as long as it lives."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()  # ends with the process

    def open(self, folder: str, password: str | None) -> None:
        """Take the study of a folder's request; what is wrong with it is told as it is.

        Args:
            folder: holds the request.
            password: of `tune.storage`, for as long as the process lives.
        """
        self._held.enter_context(password_as(password))
        with lean_imports():
            self._controller = self._held.enter_context(deciding(Path(folder)))

    def ask(self, what: str, *args: Any) -> Any:
        """Call the controller."""
        return getattr(self._controller, what)(*args)


class RemoteController:
    """The controller as a host sees it."""

    def __init__(self, process: ActorHandle) -> None:
        self._process = process

    def next(self, host: int) -> tuple[int, dict[str, Param]] | None:
        """Return a trial that begins; None: there is none."""
        return self._ask("next", host)  # type: ignore[no-any-return]

    def passes(self, number: int, rounds: int, best: float) -> bool:
        """Say whether a trial that comes to a rung goes on."""
        return bool(self._ask("passes", number, rounds, best))

    def leg(self, number: int) -> Leg | None:
        """Return what a running trial of a population trains; None where there is none."""
        return self._ask("leg", number)  # type: ignore[no-any-return]

    def end(self, trial: Trial) -> None:
        """Take in how a trial ended."""
        self._ask("end", trial)

    def leave(self, number: int, host: int) -> None:
        """Take in that a trial was interrupted."""
        self._ask("leave", number, host)

    def lost(self, host: int, why: str) -> int:
        """Give the trials of a host that is gone to the others; return how many they are."""
        return int(self._ask("lost", host, why))

    def stop(self) -> None:
        """Begin no trial any more, and leave those that run."""
        self._ask("stop")

    def is_done(self) -> bool:
        """Say whether no trial is left to make."""
        return bool(self._ask("is_done"))

    def said(self) -> Said:
        """Return how far the search is."""
        return self._ask("said")  # type: ignore[no-any-return]

    def open(self, folder: Path) -> None:
        """Let it take the study; the first thing it is asked."""
        self._wait_for(self._process.open.remote(str(folder), os.environ.get(PASSWORD)))

    def _ask(self, what: str, *args: Any) -> Any:
        return self._wait_for(self._process.ask.remote(what, *args))

    def _wait_for(self, answer: Any) -> Any:
        """Wait for an answer of the process.

        Raises:
            ArclightError: what the controller raised.
            LostWorkerError: its process is gone.
        """
        try:
            return ray.get(answer)
        except GONE as error:
            raise LostWorkerError(
                f"Ray lost the process that decides for the search ({error}); see the run's log."
            ) from error
        except RayError as error:
            raise cause_of(error) from error


class HostProcess:
    """One node's host, as Ray starts it."""

    def search(self, folder: str, rank: int, process: ActorHandle) -> None:
        """Make trials until there is no other."""
        with lean_imports():
            try:
                run_host(Path(folder), RemoteController(process), rank=rank)
            except LostWorkerError:
                os._exit(1)  # with the thread that hangs


def search_on_nodes(folder: Path, tick: Tick, tell: Tell, crew: Crew) -> None:
    """Make a study's trials on several nodes; Ray is connected (`cluster.ray_session`).

    What a host that is lost was at is given to the others.

    Args:
        folder: holds the request; every node sees it under the same path.
        tick: told about the progress.
        tell: told about each host that is lost.
        crew: how many processes, one a node where there are as many, and what each of them has.

    Raises:
        ArclightError: what a host raised first.
        LostWorkerError: hosts are gone before all was done, or the process that decides is.
    """
    hosts = crew.workers
    with placed(HostProcess, crew) as actors:
        process = _start_controller(folder, hosts)
        controller, running = RemoteController(process), {}
        try:
            controller.open(folder)
            for rank, actor in enumerate(actors):
                running[actor.search.remote(str(folder), rank, process)] = rank
            tick(*controller.said()[:2], f"reading on {hosts} nodes")
            gone = _watch(dict(running), controller, tick, tell)
            if gone and not controller.is_done():
                raise LostWorkerError(f"Ray lost {gone} of {hosts} hosts of the search.")
        except BaseException:
            with contextlib.suppress(ArclightError):
                controller.stop()
            raise
        finally:
            for actor in actors:
                ray.kill(actor)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=END_S)
            ray.kill(process)


# --------------------------------------------------------------------------------- inside


def _start_controller(folder: Path, hosts: int) -> ActorHandle:
    """Start the process that decides on this node, which the search ends with anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    asking = hosts * request_of(folder).room.at_once + 2  # each waits for it; and the command
    made: Any = ray.remote(num_cpus=0, max_concurrency=asking, scheduling_strategy=here)(
        ControllerProcess
    )
    return made.remote()


def _watch(running: dict[Any, int], controller: RemoteController, tick: Tick, tell: Tell) -> int:
    """Hand the progress on until every host has come to its end; return how many were lost.

    Raises:
        ArclightError: why the first one failed.
    """
    hosts, gone = len(running), 0
    while running:
        done, _ = ray.wait(list(running), timeout=POLL_S)
        tick(*controller.said())
        for one in done:
            rank, failure = running.pop(one), failure_of(one)
            if isinstance(failure, GONE):
                gone += 1
                who = f"host {rank + 1} of {hosts} of the search"
                why = lost(who, failure, None).message
                trials = controller.lost(rank, why)
                tell(f"{why} Its {trials:,} trials go to the others.")
            elif failure is not None:
                raise cause_of(failure) from failure
    return gone
