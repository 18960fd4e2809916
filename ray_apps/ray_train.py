"""The same training in one Ray Train worker that holds every core of one machine."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from arclight.errors import ArclightError, EngineError, printable
from ray_apps.fit import PROGRESS, FitProgress, run_fit, write_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.progress import Tick

STORAGE = "ray"
POLL_S = 0.25


def fit_worker(config: dict[str, str]) -> None:
    """Run a fit in a Ray Train worker.

    It reports nothing: a report waits for the controller's next poll and holds up the training;
    progress and result are files.
    """
    folder = Path(config["folder"])
    run_fit(folder, write_progress(folder))


def run_fit_on_ray(folder: Path, tick: Tick, *, threads: int) -> None:
    """Run a fit in one Ray Train worker; Ray is already connected (`cluster.ray_session`).

    Args:
        folder: holds the request; workers see it under the same path.
        tick: told about the progress from a thread of this process.
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
    try:
        with _watching(folder, tick):
            trainer.fit()
    except WorkerGroupError as error:
        raise _cause(error) from error
    except TrainingFailedError as error:
        raise EngineError(f"Ray Train failed: {printable(error)}; see the run's log.") from error
    finally:
        shutil.rmtree(folder / STORAGE, ignore_errors=True)


def _cause(error: WorkerGroupError) -> ArclightError:
    """Return the first worker's error if it is one of ours, else an EngineError that names it."""
    for failure in error.worker_failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, ArclightError):
                return cause
            inner = getattr(cause, "cause", None) or cause.__cause__
            cause = inner if isinstance(inner, BaseException) else None
        return EngineError(f"the training worker failed: {printable(failure)}; see the run's log.")
    return EngineError(f"the training worker failed: {printable(error)}; see the run's log.")


@contextlib.contextmanager
def _watching(folder: Path, tick: Tick) -> Iterator[None]:
    """Hand on the progress file of a worker while a block runs."""
    stop = threading.Event()

    def watch() -> None:
        seen = b""
        while not stop.wait(POLL_S):
            with contextlib.suppress(FileNotFoundError, ArclightError):
                text = (folder / PROGRESS).read_bytes()
                if text != seen:
                    seen = text
                    found = FitProgress.from_json(text, source=PROGRESS)
                    tick(found.done, found.total, found.note)

    thread = threading.Thread(target=watch, name="fit-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
