"""The same training in one Ray worker that holds every core of one machine.

Two ways to the same worker function, the same files and the same bytes: a Ray Train job of one
worker, and a plain Ray task, which starts no controller, no placement group and no watchers.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import ray
import ray.train
from ray.exceptions import RayError, RayTaskError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from arclight.errors import ArclightError, EngineError, printable
from ray_apps.fit import PROGRESS, FitProgress, run_fit, write_progress

if TYPE_CHECKING:
    from arclight.progress import Tick

STORAGE = "ray"
POLL_S = 0.25


def fit_worker(config: dict[str, str]) -> None:
    """Run a fit in a worker of Ray.

    It reports nothing: a report waits for the controller's next poll and holds up the training;
    progress and result are files.
    """
    folder = Path(config["folder"])
    run_fit(folder, write_progress(folder))


def fit_in_train(folder: Path, tick: Tick, *, threads: int) -> None:
    """Run a fit as a Ray Train job of one worker; Ray is connected (`cluster.ray_session`).

    Args:
        folder: holds the request; the worker sees it under the same path.
        tick: told about the progress.
        threads: cores of the worker.

    Raises:
        ArclightError: what the worker raised.
        EngineError: Ray lost the worker or failed.
    """
    trainer = DataParallelTrainer(
        fit_worker,
        train_loop_config={"folder": str(folder)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=1, resources_per_worker={"CPU": float(threads)}
        ),
        run_config=ray.train.RunConfig(
            name="fit",
            storage_path=str(folder / STORAGE),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    job = _Job(trainer)
    try:
        job.start()
        while job.is_alive():
            job.join(POLL_S)
            hand_on(folder, tick)
        hand_on(folder, tick)
    finally:
        shutil.rmtree(folder / STORAGE, ignore_errors=True)
    if isinstance(job.error, WorkerGroupError):
        raise _cause(list(job.error.worker_failures.values()), job.error) from job.error
    if job.error is not None:
        raise EngineError(
            f"Ray Train failed: {printable(job.error)}; see the run's log."
        ) from job.error


def fit_in_task(folder: Path, tick: Tick, *, threads: int) -> None:
    """Run a fit as a plain Ray task, in a process that ends with it.

    Args and errors are those of `fit_in_train`.
    """
    task = ray.remote(num_cpus=threads, max_retries=0, max_calls=1)(fit_worker)
    running = task.remote({"folder": str(folder)})
    try:
        while not ray.wait([running], timeout=POLL_S)[0]:
            hand_on(folder, tick)
        # a short fit ends before the first poll, and still says how far it came
        hand_on(folder, tick)
        ray.get(running)
    except RayTaskError as error:
        raise _cause([error], error) from error
    except RayError as error:
        raise EngineError(
            f"Ray lost the training worker ({printable(error)}): out of memory or killed; see "
            "the run's log."
        ) from error
    except BaseException:
        ray.cancel(running, force=True)
        raise


def hand_on(folder: Path, tick: Tick) -> None:
    """Tell a tick what a worker's progress file says, if it says something."""
    with contextlib.suppress(FileNotFoundError, ArclightError):
        found = FitProgress.from_json((folder / PROGRESS).read_bytes(), source=PROGRESS)
        tick(found.done, found.total, found.note)


class _Job(threading.Thread):
    """Runs a Ray Train job beside the main thread, where it would take over Ctrl-C for good."""

    def __init__(self, trainer: DataParallelTrainer) -> None:
        super().__init__(name="ray-train", daemon=True)
        self._trainer = trainer
        self.error: TrainingFailedError | RayError | None = None

    def run(self) -> None:
        try:
            self._trainer.fit()
        except (TrainingFailedError, RayError) as error:
            self.error = error


def _cause(failures: list[Exception], whole: Exception) -> ArclightError:
    """Return the first worker's error if it is one of ours, else an EngineError that names it."""
    for failure in failures:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, ArclightError):
                return cause
            inner = getattr(cause, "cause", None) or cause.__cause__
            cause = inner if isinstance(inner, BaseException) else None
    first = failures[0] if failures else whole
    return EngineError(f"the training worker failed: {printable(first)}; see the run's log.")
