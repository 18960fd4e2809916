"""The same training in a Ray task that holds every core of one machine.

A plain task, not a Ray Train job: one worker needs no controller, no placement group and no
watchers, which add 10 to 20 s to a training of one. Its process stays for the next training.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError, RayTaskError

from arclight.errors import ArclightError, EngineError, LostWorkerError, printable
from arclight.trial_table import PASSWORD, password_as
from cluster.sizing import GIB
from ray_apps.fit import run_fit
from ray_apps.fit_files import PROGRESS, FitProgress, progress_of, write_progress
from ray_apps.lean import lean_imports
from ray_apps.ray_nodes import check_room
from ray_apps.tuning.worker import run_search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arclight.progress import Tick
    from cluster.sizing import Crew

STARTED, STOP = "started", "stop"
"""Files beside the request: its worker is there, and is to end where it stands."""
POLL_S = 0.25
WAITS_S = 10.0
"""Without a place from then on, what a task waits for is told."""
END_S = 10.0


def fit_worker(folder: str) -> None:
    """Run a fit in a process of Ray; progress and result are files."""
    with contextlib.suppress(OSError):  # a folder that is not seen here is named below
        (Path(folder) / STARTED).touch()
    with lean_imports(), _ended_on_demand(Path(folder)):
        run_fit(Path(folder), write_progress(Path(folder)))


def search_worker(folder: str, password: str | None) -> None:
    """Make a study's trials in a process of Ray; the password is that of `tune.storage`."""
    with contextlib.suppress(OSError):
        (Path(folder) / STARTED).touch()
    with lean_imports(), password_as(password), _ended_on_demand(Path(folder)):
        try:
            run_search(Path(folder), write_progress(Path(folder)))
        except LostWorkerError:
            os._exit(1)  # with the thread that hangs


def fit_in_task(folder: Path, tick: Tick, crew: Crew) -> None:
    """Run a fit as a Ray task; Ray is connected (`cluster.ray_session`).

    Args:
        folder: holds the request; the worker sees it under the same path.
        tick: told about the progress.
        crew: one worker.

    Raises:
        ArclightError: what the worker raised.
        LostWorkerError: Ray lost the worker or failed.
    """
    _in_task(fit_worker, folder, tick, crew)


def search_in_task(folder: Path, tick: Tick, crew: Crew) -> None:
    """Make a study's trials as a Ray task, as `fit_in_task` runs a fit."""
    _in_task(search_worker, folder, tick, crew, os.environ.get(PASSWORD))


def _in_task(
    work: Callable[..., None], folder: Path, tick: Tick, crew: Crew, *args: str | None
) -> None:
    task = ray.remote(num_cpus=crew.threads, num_gpus=crew.gpus, max_retries=0)(work)
    running, begun = task.remote(str(folder), *args), time.monotonic()
    try:
        while not ray.wait([running], timeout=POLL_S)[0]:
            if not (folder / PROGRESS).exists():
                _tell_waiting(folder, tick, crew, begun)
            hand_on(folder, tick)
        # a short fit ends before the first poll, and still says how far it came
        hand_on(folder, tick)
        ray.get(running)
    except RayTaskError as error:
        raise cause_of(error) from error
    except RayError as error:
        raise lost("the training worker", error, folder) from error
    except BaseException:
        # Not Ray's forced cancel: its answer and the task's own may cross, and then Ray takes
        # this whole process down ("Tried to complete task that was not pending").
        with contextlib.suppress(OSError):
            (folder / STOP).touch()
        if STARTED not in _names(folder):
            ray.cancel(running, force=False)  # it waits for its place
        # it must write no more: the caller takes its folder away
        if not ray.wait([running], timeout=END_S)[0]:
            ray.cancel(running, force=True)  # it does not see the file
            ray.wait([running], timeout=END_S)
        raise


def _tell_waiting(folder: Path, tick: Tick, crew: Crew, begun: float) -> None:
    """Say what a task waits for that has no place yet; others may hold the cores for long.

    Raises:
        LostWorkerError: it will never have one.
    """
    check_room(crew)
    if STARTED not in _names(folder) and time.monotonic() > begun + WAITS_S:
        tick(0, None, f"waiting for {crew.threads} free cores of the cluster")


@contextlib.contextmanager
def _ended_on_demand(folder: Path) -> Iterator[None]:
    """End this process as soon as its folder says so or is gone; rounds are not waited for."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            if STOP in _names(folder) and not done.is_set():
                os._exit(1)

    thread = threading.Thread(target=watch, name="ended-on-demand", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=POLL_S)  # a mount that hangs must not keep what is done


def _names(folder: Path) -> set[str]:
    """Return the files of a folder as they are now; one that was taken away is to be left."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        # listed, not asked for by name: a network's file system remembers what was not there
        return {STOP} if error.errno in (errno.ENOENT, errno.ESTALE) else set()


def hand_on(folder: Path, tick: Tick) -> None:
    """Tell a tick what a worker's progress file says, if it says something."""
    found = _last_word(folder)
    if found is not None:
        tick(found.done, found.total, found.note)


def lost(who: str, failure: RayError, folder: Path | None, rank: int = 0) -> LostWorkerError:
    """Return the error of a worker whose process is gone, with the memory it held last.

    Args:
        who: the worker.
        failure: what Ray says.
        folder: where it left its progress; None: it left none.
        rank: of the worker.
    """
    found = None if folder is None else _last_word(folder, rank)
    held = f"; it held {found.held_bytes / GIB:.1f} GiB when last heard of" if found else ""
    said = str(failure).strip().split("\n")[0].split(". ")[0].rstrip(".")  # then come its numbers
    return LostWorkerError(
        f"Ray lost {who} ({printable(said)}): out of memory or killed{held}; see the run's log."
    )


def _last_word(folder: Path, rank: int = 0) -> FitProgress | None:
    with contextlib.suppress(OSError, ArclightError):  # it may be replaced meanwhile
        name = progress_of(rank)
        return FitProgress.from_json((folder / name).read_bytes(), source=name)
    return None


def cause_of(failure: RayError) -> ArclightError:
    """Return the worker's error if it is one of ours, else an EngineError that names it."""
    cause: BaseException | None = failure
    while cause is not None:
        # Ray's copy of it is both a RayError and one of ours
        if isinstance(cause, ArclightError) and not isinstance(cause, RayError):
            return cause
        inner = getattr(cause, "cause", None) or cause.__cause__
        cause = inner if isinstance(inner, BaseException) else None
    last = str(failure).strip().splitlines()[-1:]  # of a traceback, which the log has
    return EngineError(
        f"the training worker failed: {printable(''.join(last))}; see the run's log."
    )
