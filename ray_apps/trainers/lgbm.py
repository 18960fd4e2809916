"""LightGBM: bins from Arrow after a check of every type, alone or with others, text models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
from lightgbm.basic import _ConfigAliases

from arclight.errors import (
    DataError,
    EngineError,
    IntegrityError,
    SpecError,
    nearest,
    printable,
)
from arclight.metrics import metric_for
from ray_apps.gang import Alone
from ray_apps.trainers import Fitted, TrainJob
from ray_apps.trainers.judge import ValidMetric, kept_rounds
from ray_apps.trainers.labels import row_weights
from ray_apps.trainers.lgbm_network import network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard

# Anything else makes LightGBM end the process from C++, where nothing can catch it.
SAFE_TYPES = frozenset({pa.float32(), pa.float64(), pa.int8(), pa.int16(), pa.int32(), pa.int64()})
NATIVE: dict[tuple[str, str], tuple[str, Callable[[float], float]]] = {
    ("binary", "auc"): ("auc", float),
    ("binary", "log_loss"): ("binary_logloss", float),
    ("binary", "average_precision"): ("average_precision", float),
    ("multiclass", "log_loss"): ("multi_logloss", float),
    ("multiclass", "accuracy"): ("multi_error", lambda error: 1.0 - error),
    ("regression", "rmse"): ("rmse", float),
    ("regression", "mae"): ("l1", float),
}
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "binary": ("binary",),
    "multiclass": ("multiclass",),
    "regression": (
        "regression", "regression_l1", "huber", "fair", "poisson", "mape", "gamma", "tweedie",
        "quantile",
    ),
}  # fmt: skip
BOOSTINGS = ("gbdt",)
ALONE_ONLY = {"linear_tree": False, "monotone_constraints_method": "basic"}
"""What its data-parallel learner has not, by the value that it has."""
SAMPLE_ROWS = 200_000
"""Rows the library makes its bins from, when `bin_construct_sample_cnt` says nothing else."""
# What a spec may set, by the library's main names: nothing that names a file, a host or a
# column, and nothing that Arclight sets. Everything else in the library's own list is reserved.
ALLOWED = frozenset(
    {
        "objective", "boosting", "data_sample_strategy", "learning_rate", "num_leaves",
        "max_depth", "min_data_in_leaf", "min_sum_hessian_in_leaf", "bagging_fraction",
        "pos_bagging_fraction", "neg_bagging_fraction", "bagging_freq", "bagging_seed",
        "feature_fraction", "feature_fraction_bynode", "feature_fraction_seed", "extra_trees",
        "extra_seed", "max_delta_step", "lambda_l1", "lambda_l2", "linear_lambda",
        "min_gain_to_split", "top_rate", "other_rate", "min_data_per_group",
        "max_cat_threshold", "cat_l2", "cat_smooth", "max_cat_to_onehot",
        "monotone_constraints", "monotone_constraints_method", "monotone_penalty",
        "path_smooth", "interaction_constraints", "linear_tree", "max_bin", "min_data_in_bin",
        "bin_construct_sample_cnt", "data_random_seed", "enable_bundle", "use_missing",
        "zero_as_missing", "is_unbalance", "scale_pos_weight", "sigmoid", "boost_from_average",
        "reg_sqrt", "alpha", "fair_c", "poisson_max_delta_step", "tweedie_variance_power",
        "use_quantized_grad", "num_grad_quant_bins", "quant_train_renew_leaf",
        "stochastic_rounding", "histogram_pool_size", "feature_contri",
        "cegb_tradeoff", "cegb_penalty_split",
    }
)  # fmt: skip


@dataclass(frozen=True)
class LgbmData:
    """Binned train rows and valid rows by the same bins, with the labels of valid."""

    train: lgb.Dataset
    valid: lgb.Dataset
    valid_label: Doubles


class LgbmTrainer:
    """Trains and loads LightGBM models."""

    suffix = ".txt"

    def check_params(self, job: TrainJob) -> None:
        """Refuse parameters by the library's own list, then let it judge the values."""
        _check_names(job)
        _probe(job)

    def prepare(self, train: Shard, valid: Shard, job: TrainJob, gang: Gang) -> LgbmData:
        """Bin train, and valid by the same bins."""
        tables = [_safe_table(shard) for shard in (train, valid)]
        weights = row_weights(train.label, job, gang)
        common: dict[str, Any] = {
            "categorical_feature": list(job.categorical),
            "params": _params(job, gang),
        }
        bins = None if gang.world == 1 else _common_bins(tables[0], common, job, gang)
        binned = lgb.Dataset(
            tables[0], label=train.label, weight=weights, reference=bins, **common
        ).construct()
        other = lgb.Dataset(tables[1], label=valid.label, reference=binned, **common).construct()
        return LgbmData(binned, other, valid.label)

    def fit(
        self, data: LgbmData, job: TrainJob, gang: Gang, watch: Callable[[int, float], bool]
    ) -> Fitted:
        """Train and keep the best round by the metric on valid (all rounds without stopping)."""
        native, ours = NATIVE.get((job.task, job.metric), (job.metric, float))
        # the library's own metrics are those of one worker's rows
        has_native = (job.task, job.metric) in NATIVE and gang.world == 1
        custom = None if has_native else _custom(job, ValidMetric(gang, data.valid_label, job))
        if custom:
            native, ours = "None", float
        params = {**_params(job, gang), "metric": native}
        watcher = _Watcher(ours, watch)
        callbacks: list[Any] = [watcher]
        if job.early_stopping is not None:
            callbacks.append(lgb.early_stopping(job.early_stopping, verbose=False))
        try:
            with network(gang) as net:
                callbacks.insert(0, net)
                booster = lgb.train(
                    params,
                    data.train,
                    job.rounds,
                    valid_sets=[data.valid],
                    valid_names=["valid"],
                    feval=custom,
                    callbacks=callbacks,
                )
        except lgb.basic.LightGBMError as error:
            raise EngineError(f"LightGBM failed: {_said(error)}; see the run's log.") from error
        rounds = kept_rounds(watcher.history, job)
        return Fitted(
            model=booster.model_to_string(num_iteration=rounds).encode(),
            rounds=rounds,
            valid=watcher.history[rounds - 1],
            params=params,
        )

    def load(self, path: Path, *, threads: int) -> LgbmModel:
        """Load a text model; a damaged one may end the process, so its bytes come checked."""
        try:
            booster = lgb.Booster(model_file=path)
        except lgb.basic.LightGBMError as error:
            raise IntegrityError(
                f"'{path}' is not a model LightGBM can read ({_said(error)}); restore it "
                "from a backup or train again."
            ) from error
        return LgbmModel(booster, threads)


class LgbmModel:
    """A loaded LightGBM model."""

    def __init__(self, booster: lgb.Booster, threads: int) -> None:
        self._booster, self._threads = booster, threads

    @property
    def features(self) -> int:
        """Features it was trained on."""
        return int(self._booster.num_feature())

    @property
    def rounds(self) -> int:
        """Boosting rounds in the file."""
        return int(self._booster.current_iteration())

    def gains(self) -> npt.NDArray[np.float64]:
        """Return the total gain of each feature; one that no tree splits on has 0."""
        found = self._booster.feature_importance(importance_type="gain")
        return np.asarray(found, dtype=np.float64)

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """Return probabilities or numbers; safe to call from several threads."""
        found = self._booster.predict(matrix, num_threads=self._threads)
        return np.asarray(found, dtype=np.float64)


# --------------------------------------------------------------------------------- inside

_CHECK = re.compile(r"Check failed: \((?P<name>\w+)\) (?P<rule>\S+) \((?P<limit>[^)]*)\)")
_PLACE = re.compile(r" at /\S+, line \d+ \.$")


def _said(error: Exception) -> str:
    """Return what the library says without the place in its own source."""
    text = str(error).strip()
    if found := _CHECK.match(text):
        return f"{found['name']} must be {found['rule']} {found['limit']}"
    return printable(_PLACE.sub("", text))


class _Watcher:
    """Hands each round's metric on and remembers it."""

    def __init__(
        self, ours: Callable[[float], float], watch: Callable[[int, float], bool]
    ) -> None:
        self._ours, self._watch = ours, watch
        self.history: list[float] = []

    def __call__(self, env: Any) -> None:
        results = env.evaluation_result_list
        value = self._ours(float(results[0][2]))
        self.history.append(value)
        if not self._watch(env.iteration + 1, value):
            raise lgb.callback.EarlyStopException(env.iteration, results)


def _safe_table(shard: Shard) -> pa.Table:
    """Return the shard as one Arrow table whose every column LightGBM can take.

    Raises:
        DataError: a column of another type, or no rows.
    """
    for field in shard.tables[0].schema:
        if field.type not in SAFE_TYPES:
            raise DataError(
                f"feature column '{field.name}' must be one of "
                f"{', '.join(sorted(map(str, SAFE_TYPES)))} for LightGBM, got {field.type}."
            )
    if not shard.rows:
        raise DataError("a shard must have rows for LightGBM, got none; use fewer workers.")
    return pa.concat_tables(shard.tables)


def _common_bins(mine: pa.Table, common: dict[str, Any], job: TrainJob, gang: Gang) -> lgb.Dataset:
    """Return an empty-handed data set whose bins are those of rows of every worker.

    Every worker bins the same sample. The library's own way gives each worker some features to
    bin by its own rows alone, which are not like those of the others when data are in order.
    """
    wanted = int(_params(job, gang).get("bin_construct_sample_cnt", SAMPLE_ROWS))
    rows = min(mine.num_rows, -(-wanted // gang.world))
    places = np.random.default_rng(job.seed).choice(mine.num_rows, rows, replace=False)
    found = gang.exchange([_as_stream(mine.take(np.sort(places)))] * gang.world)
    sample = pa.concat_tables(pa.ipc.open_stream(part).read_all() for part in found)
    return lgb.Dataset(sample, **common).construct()


def _as_stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _custom(job: TrainJob, metric: ValidMetric) -> Callable[..., tuple[str, float, bool]]:
    is_up = metric_for(job.task, job.metric).higher_is_better

    def evaluate(predictions: Doubles, _: lgb.Dataset) -> tuple[str, float, bool]:
        return job.metric, metric(predictions), is_up

    return evaluate


def _params(job: TrainJob, gang: Gang) -> dict[str, Any]:
    """Return the library's parameters by their main names: the user's, then ours."""
    aliases = _main_names()
    params: dict[str, Any] = {"objective": OBJECTIVES[job.task][0]}
    params |= {aliases[name]: value for name, value in job.params.items()}
    params |= {
        "num_threads": job.threads,
        "seed": job.seed,
        "deterministic": True,
        "force_row_wise": True,
        "feature_pre_filter": False,
        "verbosity": -1,
    }
    if job.task == "multiclass":
        params["num_class"] = job.classes
    if gang.world > 1:
        params |= {"tree_learner": "data", "num_machines": gang.world, "pre_partition": True}
    return params


def _main_names() -> dict[str, str]:
    """Return every parameter name the library knows and the main name it stands for."""
    table = _ConfigAliases._get_all_param_aliases()
    return {alias: name for name, aliases in table.items() for alias in (name, *aliases)}


def _check_names(job: TrainJob) -> None:
    known = _main_names()
    seen: dict[str, str] = {}
    for name, value in job.params.items():
        main = known.get(name)
        if main is None:
            raise SpecError(
                f"train.params: LightGBM has no '{printable(name)}'.{nearest(name, known)}"
            )
        if main not in ALLOWED:
            raise SpecError(
                f"train.params: '{name}' must not be set: Arclight sets it, or it names files, "
                "hosts or columns."
            )
        if main in seen:
            raise SpecError(f"train.params: '{name}' and '{seen[main]}' are the same; keep one.")
        seen[main] = name
        if job.workers > 1 and value != ALONE_ONLY.get(main, value):
            raise SpecError(
                f"train.params: {name} must be {ALONE_ONLY[main]} for several workers, got "
                f"{printable(value)}: LightGBM leaves it out without a word; use train.workers: 1."
            )
        allowed = {"objective": OBJECTIVES[job.task], "boosting": BOOSTINGS}.get(main)
        if allowed is not None and value not in allowed:
            raise SpecError(
                f"train.params: {name} '{printable(value)}' must be one of {', '.join(allowed)} "
                f"for a {job.task} task.{nearest(str(value), allowed)}"
            )


def _probe(job: TrainJob) -> None:
    """Train one round on a few rows, so that LightGBM refuses a bad value now."""
    classes = max(job.classes, 2)
    features = np.arange(40 * classes, dtype=np.float32).reshape(-1, 1)
    labels = np.arange(40 * classes) % classes if job.task != "regression" else features[:, 0] + 1
    params = {**_params(job, Alone()), "num_threads": 1}
    try:
        lgb.train(params, lgb.Dataset(features, label=labels, params=params), 1)
    except (lgb.basic.LightGBMError, TypeError, ValueError) as error:
        raise SpecError(f"train.params: LightGBM refuses them: {_said(error)}") from error
