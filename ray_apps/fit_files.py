"""What a training's folder holds: its request, how far it is, and its outcome.

Nothing but paths travels through an engine: whoever trains reads the request in a folder and
leaves progress, model and outcome beside it.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from arclight.bundle import CrossValidation, GoldenRows, Resumed, Transfer
from arclight.contract import Contract
from arclight.errors import EngineError
from arclight.folds import FoldRule
from arclight.train_section import Train
from ray_apps.memory import held_bytes
from ray_apps.trainers import TrainJob

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from arclight.progress import Tick
    from ray_apps.trainers import InitModel

Request = TypeVar("Request", bound=Contract)
REQUEST, OUTCOME, PROGRESS, MODEL = "request.json", "outcome.json", "progress.json", "model"
BINS = "bins"
_PROGRESS_EVERY_S = 0.2


class FitRequest(Contract):
    """What to train, on what, with how many threads."""

    kind: ClassVar[str] = "fit-request"

    store: str
    name: str
    key: str
    """Of the model: where its checkpoints lie."""
    dataset: str
    dataset_digest: str
    task: Literal["binary", "multiclass", "regression"]
    metric: str
    train: Train
    workers: int
    threads: int
    """Of each worker."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What each worker computes on."""
    bins: Literal["memory", "disk"] = "memory"
    """Where each worker has its bins."""
    folds: FoldRule | None = None
    """Of a cross-validation beside the model."""
    init: str = ""
    """NAME@N of the model it starts from; nothing: from scratch."""
    init_digest: str = ""
    """Of that model."""
    versions: dict[str, str] = {}
    """That the command runs of what decides a model: a worker that trains it must run them too."""
    keeps: bool = True
    """Whether it leaves in the store where it would go on."""


class FitOutcome(Contract):
    """What a training gave; the model lies beside it."""

    kind: ClassVar[str] = "fit-outcome"

    model_file: str
    rounds: int
    threshold: float | None
    train_metrics: dict[str, float]
    importance: tuple[float, ...]
    params: dict[str, str | int | float | bool]
    golden: GoldenRows
    resumed: tuple[Resumed, ...] = ()
    cross_validation: CrossValidation | None = None
    transfer: Transfer | None = None
    processor: str
    """Of the first worker."""
    trouble: str = ""
    """Why the last checkpoint could not be written; nothing when it could."""
    diverged: int = 0
    """The round after which the metric was no finite number, and the training over; 0: of none."""
    seconds: dict[str, float]


class FitProgress(Contract):
    """How far a training is; written by the worker, read by the driver."""

    kind: ClassVar[str] = "fit-progress"

    done: int
    total: int
    note: str
    held_bytes: int = 0
    """Memory of the worker."""


def job_of(
    request: FitRequest, manifest: DatasetManifest, init: InitModel | None = None
) -> TrainJob:
    """Return the trainer's view of a request.

    Args:
        request: what is trained.
        manifest: the dataset, with the plan of the model to start from if there is one.
        init: that model.
    """
    return TrainJob(
        task=request.task,
        categorical=manifest.plan.categorical,
        codes=manifest.plan.codes,
        features=len(manifest.plan.features),
        classes=len(manifest.plan.classes),
        rounds=request.train.rounds,
        early_stopping=request.train.early_stopping,
        metric=request.metric,
        params=dict(request.train.params),
        params_after=dict(request.train.params_after),
        imbalance=request.train.imbalance,
        seed=request.train.seed,
        threads=request.threads,
        device=request.device,
        workers=request.workers,
        init=init,
    )


def read_request(kind: type[Request], path: Path, who: str) -> Request:
    """Return the request in a file that the command wrote.

    Raises:
        EngineError: whoever works on it does not see the file.
    """
    try:
        return kind.from_json(path.read_bytes(), source=str(path))
    except FileNotFoundError as error:
        raise EngineError(
            f"{who} must see '{path}' under the same path as the command does; put the store on "
            "a folder that every node mounts."
        ) from error


def read_outcome(folder: Path) -> FitOutcome:
    """Return what a training left in a folder."""
    return FitOutcome.from_json((folder / OUTCOME).read_bytes(), source=str(folder / OUTCOME))


def write_progress(folder: Path, rank: int = 0) -> Tick:
    """Return a tick that leaves a worker's progress in a folder, a few times a second."""
    last, name = 0.0, progress_of(rank)

    def tick(done: int, total: int | None, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PROGRESS_EVERY_S and done != total:
            return
        last = now
        said = FitProgress(done=done, total=total or 0, note=note, held_bytes=held_bytes())
        temporary = folder / f".{name}"
        with contextlib.suppress(OSError):  # a full disk must not end what needs none of it
            temporary.write_text(said.to_json())
            temporary.replace(folder / name)

    return tick


def progress_of(rank: int) -> str:
    """Return the name of a worker's progress file."""
    return f"progress-{rank}.json" if rank else PROGRESS
