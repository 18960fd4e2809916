"""One file per library behind one small Protocol, and the dict that loads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from arclight.errors import SpecError
from ray_apps.lean import lean_imports
from ray_apps.trainers.boosting import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Shard
    from ray_apps.trainers.boosting import Snapshot, Watch

Param = str | int | float | bool


@dataclass(frozen=True)
class InitModel:
    """A model that a training starts from.

    Attributes:
        path: its file, checked.
        freeze: layers of a network that stay as they are.
        has_new_head: whether a network's last layer is drawn anew.
        head_rate: that layer's learning rate; None is that of the others.
    """

    path: Path
    freeze: int = 0
    has_new_head: bool = False
    head_rate: float | None = None


@dataclass
class Spent:
    """What a training has taken so far, in seconds, beside the rounds themselves."""

    judge_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What to fit, by our names; each trainer turns it into its library's parameters.

    Attributes:
        task: what is predicted.
        categorical: places of category features.
        codes: how many codes each of them may have, that of unknown levels included; empty where
            nobody knows.
        features: how many there are; 0 where nobody knows.
        classes: how many, for a multiclass task.
        metric: a name of `arclight.metrics`; it stops training and chooses the round.
        params: the library's own parameters, as the user gave them.
        params_after: rounds -> parameters of a network that are others once these are done.
        threads: of the library, said explicitly on every call.
        device: what the library computes on; scores are always computed on cores.
        workers: that train together.
        shift: added to the raw score of class 1 of a binary task, by every metric and in the
            model file, since the rows to train on were evened out (`ray_apps.trainers.imbalance`).
        init: what the training starts from; None: from scratch.
        is_kept: somebody keeps the model; of another, a trial's or a fold's, nobody asks for
            more than its figure.
        is_trial: others train beside it on the same rows.
        bins_folder: where bins are put, of which memory holds a few parts; None: in memory.
        judged: rounds whose metric somebody asks for, by now; the others have that of the one
            before in the history. None: every round, as early stopping and networks need it.
        spent: counts the time, which is no part of what is fitted.
    """

    task: Literal["binary", "multiclass", "regression"]
    categorical: tuple[int, ...]
    metric: str
    codes: tuple[int, ...] = ()
    features: int = 0
    classes: int = 0
    rounds: int = 300
    early_stopping: int | None = 20
    params: dict[str, Param] = field(default_factory=dict)
    params_after: dict[int, dict[str, Param]] = field(default_factory=dict)
    imbalance: Literal["none", "weight", "downsample", "upsample"] = "none"
    seed: int = 0
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    workers: int = 1
    shift: float = 0.0
    init: InitModel | None = None
    is_kept: bool = True
    is_trial: bool = False
    bins_folder: Path | None = None
    judged: set[int] | None = None
    spent: Spent = field(default_factory=Spent, compare=False)


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes:
        model: the bytes of the model file, the kept rounds only.
        rounds: rounds in that file, those of the model it started from included.
        valid: the metric on the valid rows at the kept round.
        params: everything that was passed to the library.
        kept: rounds of this training up to the kept one; LightGBM's file has none for those in
            which nothing was split.
        scores: of this worker's valid rows, as the kept round was judged by them; None where
            nobody held them.
    """

    model: bytes
    rounds: int
    valid: float
    params: dict[str, Param]
    kept: int
    scores: npt.NDArray[np.float64] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Values:
    """How many values a row has on the average.

    Attributes:
        all: whatever they are.
        known: those that are not null.
        told: those that are neither null nor zero, of features that are not constant.
    """

    all: float
    known: float
    told: float


class Model(Protocol):
    """A loaded model."""

    @property
    def features(self) -> int:
        """Features it was trained on."""

    @property
    def rounds(self) -> int:
        """Boosting rounds in the file."""

    def gains(self) -> npt.NDArray[np.float64]:
        """Return the loss that the splits on each feature took away on train: [features]."""

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """Return probabilities or numbers: [rows], or [rows, classes] for a multiclass task.

        Args:
            matrix: C-ordered float32 [rows, features] in the plan's order, NaN for unknown.
        """


class Trainer(Protocol):
    """A library that trains, alone or as one of a gang whose members make the same calls."""

    suffix: str
    """Of its model files."""
    bins_on_disk: bool
    """Whether it trains on bins that memory has no room for."""

    def check_params(self, job: TrainJob) -> None:
        """Refuse parameters the library would not use, before anything is started.

        Raises:
            SpecError: unknown, reserved, out of range, or not those of the model it starts from.
        """

    def why_no_gpu(self) -> str | None:
        """Return why this library, as it is installed, trains on no GPU; None where it does."""

    def from_scratch(self, job: TrainJob) -> TrainJob:
        """Return a job without the model it starts from, of the same size and as many rounds."""

    def least_row_bytes(self, values: Values, *, on_disk: bool = False) -> float:
        """Return what a row of train takes in memory at the very least, while training.

        Args:
            values: how many a row has.
            on_disk: whether the bins are there.
        """

    def bin_key(self, job: TrainJob) -> tuple[Param | None, ...]:
        """Return what of a job's parameters decides what `prepare` gives for the same rows."""

    def goes_on_exactly(self, job: TrainJob) -> bool:
        """Say whether one worker that goes on ends with the bytes of an undisturbed one."""

    def prepare(
        self, train: Shard, valid: Shard, job: TrainJob, gang: Gang, start: Snapshot = BEGINNING
    ) -> Any:
        """Return the library's own binned data; the shards may be let go afterwards.

        The bins are the same on every worker.

        Args:
            train: this worker's rows.
            valid: this worker's valid rows.
            job: what to fit.
            gang: the workers that train together.
            start: what the training goes on from, the same on every worker.
        """

    def fit(self, data: Any, job: TrainJob, gang: Gang, watch: Watch) -> Fitted:
        """Train on prepared data; the same data, job and threads give the same bytes.

        Every worker ends with the same model, chosen by the metric over the rows of all.

        Args:
            data: what `prepare` returned, for the same features, labels and bin parameters.
            job: what to fit.
            gang: the workers that train together.
            watch: called after each round; False ends the training there.

        Raises:
            EngineError: the library failed, or another worker is gone.
        """

    def load(self, path: Path, *, threads: int) -> Model:
        """Load a model file whose bytes were checked.

        Raises:
            IntegrityError: the library cannot read it.
        """


def _xgboost() -> Trainer:
    try:
        with lean_imports():
            from ray_apps.trainers.xgb import XgbTrainer
    except ImportError as error:
        raise _missing("xgboost") from error
    return XgbTrainer()


def _lightgbm() -> Trainer:
    try:
        with lean_imports():
            from ray_apps.trainers.lgbm import LgbmTrainer
    except ImportError as error:
        raise _missing("lightgbm") from error
    return LgbmTrainer()


def _torch() -> Trainer:
    try:
        with lean_imports():
            from ray_apps.trainers.torch_tables import TorchTrainer
    except ImportError as error:
        raise _missing("torch") from error
    return TorchTrainer()


def _missing(name: str) -> SpecError:
    return SpecError(f"trainer '{name}' must be installed; run `pip install 'arclight[{name}]'`.")


TRAINERS: dict[str, Callable[[], Trainer]] = {
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "torch": _torch,
}


def load_trainer(name: str) -> Trainer:
    """Return a trainer by its name in a spec.

    Raises:
        SpecError: its library is not installed.
    """
    return TRAINERS[name]()
