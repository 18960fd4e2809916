"""XGBoost: quantile bins from Arrow, alone or with others, model files in UBJSON."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xgboost as xgb

from arclight.errors import EngineError, IntegrityError, SpecError, nearest, printable
from ray_apps.gang.totals import highest
from ray_apps.trainers import Fitted, TrainJob
from ray_apps.trainers.judge import ValidMetric, is_over, kept_rounds
from ray_apps.trainers.labels import row_weights
from ray_apps.trainers.xgb_network import first_line, network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Param

# Our metric -> theirs, and how theirs becomes ours; only where both compute the same number.
NATIVE: dict[tuple[str, str], tuple[str, Callable[[float], float]]] = {
    ("binary", "auc"): ("auc", float),
    ("binary", "log_loss"): ("logloss", float),
    ("multiclass", "log_loss"): ("mlogloss", float),
    ("multiclass", "accuracy"): ("merror", lambda error: 1.0 - error),
    ("regression", "rmse"): ("rmse", float),
    ("regression", "mae"): ("mae", float),
}
# Of these the library makes one number of all workers' rows; its AUC would be a mean of theirs.
SUMMED = ("logloss", "mlogloss", "merror", "rmse", "mae")
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "binary": ("binary:logistic",),
    "multiclass": ("multi:softprob",),
    "regression": (
        "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror",
        "reg:gamma", "reg:tweedie", "count:poisson",
    ),
}  # fmt: skip
# Set by Arclight, or of no meaning here; the reason stands behind each.
RESERVED = {
    "nthread": "the profile sets the cores",
    "n_jobs": "the profile sets the cores",
    "seed": "use train.seed",
    "random_state": "use train.seed",
    "device": "this release trains on CPU",
    "eval_metric": "use train.metric",
    "metric": "use train.metric",
    "num_class": "it comes from the classes of the data",
    "verbosity": "progress is Arclight's",
    "booster": "only gbtree is stored and served",
    "tree_method": "it is always hist",
    "updater": "it is always the one of hist",
    "process_type": "a model is always trained from the start",
    "enable_categorical": "it is always on",
    "validate_parameters": "it is always on",
    "disable_default_eval_metric": "use train.metric",
    "early_stopping_rounds": "use train.early_stopping",
    "num_boost_round": "use train.rounds",
    "n_estimators": "use train.rounds",
    "multi_strategy": "one tree per class is stored and served",
}
KNOWN = (
    "eta", "learning_rate", "gamma", "min_split_loss", "max_depth", "min_child_weight",
    "max_delta_step", "subsample", "sampling_method", "colsample_bytree", "colsample_bylevel",
    "colsample_bynode", "lambda", "reg_lambda", "alpha", "reg_alpha", "scale_pos_weight",
    "grow_policy", "max_leaves", "max_bin", "num_parallel_tree", "monotone_constraints",
    "interaction_constraints", "max_cat_to_onehot", "max_cat_threshold", "base_score",
    "objective", "huber_slope", "tweedie_variance_power", "max_cached_hist_node",
    "seed_per_iteration",
)  # fmt: skip
_UNUSED = re.compile(r'"([^"]*)"')
_PARAM_NAME = re.compile(r"^[A-Za-z0-9_]+$")


@dataclass(frozen=True)
class XgbData:
    """Binned train rows and valid rows, with the labels of valid."""

    train: xgb.QuantileDMatrix
    valid: xgb.DMatrix
    valid_label: Doubles


class XgbTrainer:
    """Trains and loads XGBoost models."""

    suffix = ".ubj"

    def check_params(self, job: TrainJob) -> None:
        """Refuse parameters by name, then let the library itself judge them on four rows."""
        _check_names(job)
        unused = _probe(_params(job), job)
        if unused:
            raise SpecError(
                f"train.params: XGBoost does not use '{printable(unused[0])}' with these "
                f"parameters.{nearest(unused[0], KNOWN)} Remove it or correct its name."
            )

    def prepare(self, train: Shard, valid: Shard, job: TrainJob, gang: Gang) -> XgbData:
        """Bin train, and valid by the same cuts."""
        bins = {k: v for k, v in job.params.items() if k == "max_bin"}
        weights = row_weights(train.label, job, gang)
        has_new = _has_new_codes(train, valid, job, gang)
        with xgb.config_context(verbosity=0), network(gang):
            binned = xgb.QuantileDMatrix(
                _Parts(train, job, weights),
                enable_categorical=True,
                nthread=job.threads,
                **bins,
            )
            other = _unbinned(valid, job) if has_new else _binned_as(valid, binned, job)
            return XgbData(binned, other, valid.label)

    def fit(
        self, data: XgbData, job: TrainJob, gang: Gang, watch: Callable[[int, float], bool]
    ) -> Fitted:
        """Train and keep the best round by the metric on valid (all rounds without stopping)."""
        native, ours = NATIVE.get((job.task, job.metric), (job.metric, float))
        is_theirs = (job.task, job.metric) in NATIVE and (gang.world == 1 or native in SUMMED)
        metric = None if is_theirs else ValidMetric(gang, data.valid_label, job)
        params = _params(job)
        params |= {"disable_default_eval_metric": True} if metric else {"eval_metric": native}
        watcher = _Watcher(job, watch, lambda log: ours(float(log["valid"][native][-1])))
        if metric is not None:
            # the library hands a metric of ours on with six digits
            watcher = _Watcher(job, watch, lambda _: metric.last)
        try:
            with xgb.config_context(verbosity=0), network(gang):
                booster = xgb.train(
                    params,
                    data.train,
                    job.rounds,
                    evals=[(data.valid, "valid")],
                    custom_metric=None if metric is None else _custom(job, metric),
                    callbacks=[watcher],
                    verbose_eval=False,
                )
        except xgb.core.XGBoostError as error:
            raise EngineError(
                f"XGBoost failed: {first_line(error)}; see the run's log."
            ) from error
        return _fitted(booster, job, params, watcher)

    def load(self, path: Path, *, threads: int) -> XgbModel:
        """Load a UBJSON model."""
        booster = xgb.Booster(params={"nthread": threads})
        try:
            booster.load_model(path)
        except xgb.core.XGBoostError as error:
            raise IntegrityError(
                f"'{path}' is not a model XGBoost can read ({first_line(error)}); restore it "
                "from a backup or train again."
            ) from error
        booster.set_param({"nthread": threads})
        return XgbModel(booster)


class XgbModel:
    """A loaded XGBoost model."""

    def __init__(self, booster: xgb.Booster) -> None:
        self._booster = booster

    @property
    def features(self) -> int:
        """Features it was trained on."""
        return int(self._booster.num_features())

    @property
    def rounds(self) -> int:
        """Boosting rounds in the file."""
        return int(self._booster.num_boosted_rounds())

    def gains(self) -> npt.NDArray[np.float64]:
        """Return the total gain of each feature; one that no tree splits on has 0."""
        found = self._booster.get_score(importance_type="total_gain")
        names = self._booster.feature_names or [f"f{i}" for i in range(self.features)]
        return np.array([found.get(name, 0.0) for name in names], dtype=np.float64)

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """Return probabilities or numbers; safe to call from several threads."""
        found = self._booster.inplace_predict(matrix, missing=np.nan, validate_features=True)
        return found.astype(np.float64)  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------- inside


class _Parts(xgb.DataIter):
    """Gives one encoded row group at a time, so that no column is copied as a whole."""

    def __init__(
        self, shard: Shard, job: TrainJob, weights: npt.NDArray[np.float32] | None = None
    ) -> None:
        self._shard, self._weights = shard, weights
        self._types = _types(shard, job)
        self._place = self._row = 0
        super().__init__(release_data=True)

    def reset(self) -> None:
        self._place = self._row = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        if self._place == len(self._shard.tables):
            return False
        label = self._shard.labels[self._place]
        rows = slice(self._row, self._row + len(label))
        weight = {} if self._weights is None else {"weight": self._weights[rows]}
        table = self._shard.tables[self._place]
        input_data(data=table, label=label, feature_types=self._types, **weight)
        self._place, self._row = self._place + 1, rows.stop
        return True


def _types(shard: Shard, job: TrainJob) -> list[str]:
    columns = shard.tables[0].num_columns
    return ["c" if i in job.categorical else "q" for i in range(columns)]


def _has_new_codes(train: Shard, valid: Shard, job: TrainJob, gang: Gang) -> bool:
    """Say whether valid has a category code that train never had, on any worker.

    Bound to train's cuts, XGBoost takes such a code for the nearest known one, so the metric
    would be that of other rows than the model will score: such rows stay unbinned.
    """
    codes = [[_top_code(shard, i) for i in job.categorical] for shard in (train, valid)]
    known, found = highest(gang, np.array(codes, dtype=np.int64).ravel()).reshape(2, -1)
    return bool((found > known).any())


def _unbinned(valid: Shard, job: TrainJob) -> xgb.DMatrix:
    tables = [t for t in valid.tables if t.num_rows]
    return xgb.DMatrix(
        tables[0] if len(tables) == 1 else pa.concat_tables(tables),
        label=valid.label,
        feature_types=_types(valid, job),
        enable_categorical=True,
        nthread=job.threads,
    )


def _binned_as(valid: Shard, binned: xgb.QuantileDMatrix, job: TrainJob) -> xgb.DMatrix:
    return xgb.QuantileDMatrix(
        _Parts(valid, job), ref=binned, enable_categorical=True, nthread=job.threads
    )


def _top_code(shard: Shard, place: int) -> int:
    found = [pc.max(table.column(place)).as_py() for table in shard.tables]
    return max((code for code in found if code is not None), default=-1)


class _Watcher(xgb.callback.TrainingCallback):
    """Hands each round's metric on, remembers it, and ends the training when it gets no better."""

    def __init__(
        self,
        job: TrainJob,
        watch: Callable[[int, float], bool],
        value: Callable[[Any], float],
    ) -> None:
        super().__init__()
        self._job, self._watch, self._value = job, watch, value
        self.history: list[float] = []

    def after_iteration(self, _model: Any, epoch: int, evals_log: Any) -> bool:
        self.history.append(self._value(evals_log))
        goes_on = self._watch(epoch + 1, self.history[-1])
        return not goes_on or is_over(self.history, self._job)


def _fitted(
    booster: xgb.Booster, job: TrainJob, params: dict[str, Any], watcher: _Watcher
) -> Fitted:
    rounds = kept_rounds(watcher.history, job)
    kept = booster if rounds == booster.num_boosted_rounds() else booster[:rounds]
    kept.set_attr(best_iteration=None, best_score=None)
    return Fitted(
        model=bytes(kept.save_raw("ubj")),
        rounds=rounds,
        valid=watcher.history[rounds - 1],
        params={name: _plain(value) for name, value in params.items()},
    )


def _plain(value: Any) -> Param:
    return value if isinstance(value, str | bool | int | float) else str(value)


def _custom(job: TrainJob, metric: ValidMetric) -> Callable[..., tuple[str, float]]:
    """Return our own formula as the metric the library calls each round."""

    def evaluate(predictions: npt.NDArray[np.float32], _: xgb.DMatrix) -> tuple[str, float]:
        return job.metric, metric(predictions.astype(np.float64))

    return evaluate


def _params(job: TrainJob) -> dict[str, Any]:
    """Return the library's parameters: the user's, then ours."""
    params: dict[str, Any] = {"objective": OBJECTIVES[job.task][0], **job.params}
    params |= {
        "tree_method": "hist",
        "device": "cpu",
        "nthread": job.threads,
        "seed": job.seed,
        "validate_parameters": True,
    }
    if job.task == "multiclass":
        params["num_class"] = job.classes
    return params


def _check_names(job: TrainJob) -> None:
    for name in job.params:
        if name in RESERVED:
            raise SpecError(f"train.params: '{name}' must not be set: {RESERVED[name]}.")
        if not _PARAM_NAME.match(name):
            raise SpecError(
                f"train.params: '{printable(name)}' must be letters, digits and '_' only."
                f"{nearest(name, KNOWN)}"
            )
    objective = job.params.get("objective", OBJECTIVES[job.task][0])
    if objective not in OBJECTIVES[job.task]:
        raise SpecError(
            f"train.params: objective '{printable(objective)}' must be one of "
            f"{', '.join(OBJECTIVES[job.task])} for a {job.task} task."
            f"{nearest(str(objective), OBJECTIVES[job.task])}"
        )


def _probe(params: dict[str, Any], job: TrainJob) -> list[str]:
    """Train one round on four rows and return the parameters XGBoost says it did not use.

    Raises:
        SpecError: XGBoost refuses a value.
    """
    classes = max(job.classes, 2)
    features = np.arange(4 * classes, dtype=np.float32).reshape(-1, 1)
    labels = np.arange(4 * classes) % classes if job.task != "regression" else features[:, 0] + 1
    params = {**params, "nthread": 1, "verbosity": 1}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with xgb.config_context(verbosity=1):
                matrix = xgb.QuantileDMatrix(
                    features, label=labels, nthread=1, max_bin=job.params.get("max_bin", 256)
                )
                xgb.train(params, matrix, 1)
        except (xgb.core.XGBoostError, TypeError, ValueError) as error:
            raise SpecError(f"train.params: XGBoost refuses them: {first_line(error)}") from error
    texts = [str(w.message) for w in caught if "are not used" in str(w.message)]
    return [name for text in texts for name in _UNUSED.findall(text)]
