"""XGBoost: quantile bins from Arrow, alone or with others, model files in UBJSON."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost as xgb

from arclight.bundle import WEIGHING
from arclight.errors import EngineError, IntegrityError, SpecError, nearest, printable
from ray_apps.trainers import Fitted, TrainJob
from ray_apps.trainers.boosting import BEGINNING, boost, least_row_bytes
from ray_apps.trainers.by_feature import check_by_feature, features_told
from ray_apps.trainers.imbalance import refuse_weights
from ray_apps.trainers.judge import ValidMetric, kept_rounds
from ray_apps.trainers.labels import Sign, check_sign, row_weights
from ray_apps.trainers.xgb_bins import bin_rows, judged_rows
from ray_apps.trainers.xgb_edges import edges_of
from ray_apps.trainers.xgb_network import first_line, network
from ray_apps.trainers.xgb_trees import InitTrees, shifted
from ray_apps.trainers.xgb_twins import may_have_twins

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Param, Values
    from ray_apps.trainers.boosting import Snapshot, Watch
    from ray_apps.trainers.xgb_bins import Binned
    from ray_apps.trainers.xgb_twins import Twins

# Our metric -> theirs, and how theirs becomes ours; only where both compute the same number, and
# theirs is one number of all workers' rows: its AUC would be a mean of theirs, and takes longer.
NATIVE: dict[tuple[str, str], tuple[str, Callable[[float], float]]] = {
    ("binary", "log_loss"): ("logloss", float),
    ("multiclass", "log_loss"): ("mlogloss", float),
    ("multiclass", "accuracy"): ("merror", lambda error: 1.0 - error),
    ("regression", "rmse"): ("rmse", float),
    ("regression", "mae"): ("mae", float),
}
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "binary": ("binary:logistic",),
    "multiclass": ("multi:softprob",),
    "regression": (
        "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror",
        "reg:gamma", "reg:tweedie", "count:poisson",
    ),
}  # fmt: skip
SIGNS = {
    "reg:gamma": Sign(is_positive=True), "reg:tweedie": Sign(), "count:poisson": Sign(some=False),
}  # fmt: skip
# Set by Arclight, or of no meaning here; the reason stands behind each.
RESERVED = {
    "nthread": "the profile sets the cores",
    "n_jobs": "the profile sets the cores",
    "seed": "use train.seed",
    "random_state": "use train.seed",
    "device": "use train.device",
    "eval_metric": "use train.metric",
    "metric": "use train.metric",
    "num_class": "it comes from the classes of the data",
    "verbosity": "progress is Arclight's",
    "booster": "only gbtree is stored and served",
    "tree_method": "it is always hist",
    "updater": "it is always the one of hist",
    "process_type": "trees are always added",
    "enable_categorical": "it is always on",
    "validate_parameters": "it is always on",
    "disable_default_eval_metric": "use train.metric",
    "early_stopping_rounds": "use train.early_stopping",
    "num_boost_round": "use train.rounds",
    "n_estimators": "use train.rounds",
    "multi_strategy": "one tree per class is stored and served",
    "seed_per_iteration": "it is always on",
}
KNOWN = (
    "eta", "learning_rate", "gamma", "min_split_loss", "max_depth", "min_child_weight",
    "max_delta_step", "subsample", "sampling_method", "colsample_bytree", "colsample_bylevel",
    "colsample_bynode", "lambda", "reg_lambda", "alpha", "reg_alpha", "scale_pos_weight",
    "grow_policy", "max_leaves", "max_bin", "num_parallel_tree", "monotone_constraints",
    "interaction_constraints", "max_cat_to_onehot", "max_cat_threshold", "base_score",
    "objective", "huber_slope", "tweedie_variance_power", "max_cached_hist_node",
)  # fmt: skip
ALIASES = {
    "eta": "learning_rate", "gamma": "min_split_loss", "lambda": "reg_lambda",
    "alpha": "reg_alpha",
}  # fmt: skip
"""Of two names for one parameter the library takes the later one in the alphabet."""
SAMPLING = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")
"""Shares below 1 that make a round depend on chance."""
_UNUSED = re.compile(r'"([^"]*)"')
_PARAM_NAME = re.compile(r"^[A-Za-z0-9_]+$")


@dataclass(frozen=True)
class XgbData:
    """Binned train rows and valid rows, with the labels of valid, and what to go on from."""

    train: Binned
    valid: xgb.DMatrix
    valid_label: Doubles
    start: Snapshot = BEGINNING
    init: InitTrees | None = None
    twins: Twins | None = None


class XgbTrainer:
    """Trains and loads XGBoost models."""

    suffix = ".ubj"
    bins_on_disk = True

    def check_params(self, job: TrainJob) -> None:
        """Refuse parameters by name, then let the library itself judge them on four rows."""
        _check_names(job)
        refuse_weights(job.params, job)
        check_by_feature(job.params, job)
        if job.init is not None:
            _check_init(job)
        unused = _probe(_params(job), job)
        if unused:
            # one that is known belongs to another objective or policy
            meant = "" if unused[0] in KNOWN else nearest(unused[0], KNOWN)
            raise SpecError(
                f"train.params: XGBoost does not use '{printable(unused[0])}' with these "
                f"parameters.{meant} Remove it{' or correct its name' if meant else ''}."
            )

    def why_no_gpu(self) -> str | None:
        """The package `xgboost-cpu` has no kernels for it, `xgboost` has."""
        if xgb.build_info()["USE_CUDA"]:
            return None
        return "the installed XGBoost is built for cores; install `xgboost` for `xgboost-cpu`"

    def from_scratch(self, job: TrainJob) -> TrainJob:
        """Return the job without the model it starts from."""
        return replace(job, init=None)

    def least_row_bytes(self, values: Values, *, on_disk: bool = False) -> float:
        """Bins of what is not null, twice, and gradients; of bins on disk the gradients."""
        return least_row_bytes(0 if on_disk else values.known)

    def bin_key(self, job: TrainJob) -> tuple[Param | None, ...]:
        """The number of bins, and how features are shown; trees take what they want of them."""
        return (job.params.get("max_bin"), may_have_twins(job))

    def goes_on_exactly(self, job: TrainJob) -> bool:
        """Every round begins anew from its own seed, so chance is the same after a restart.

        On a GPU the scores of all trees are summed before they are added, on cores after.
        """
        return job.device == "cpu"

    def prepare(
        self, train: Shard, valid: Shard, job: TrainJob, gang: Gang, start: Snapshot = BEGINNING
    ) -> XgbData:
        """Bin train; valid as `judged_rows` says.

        Margins to go on from the library computes itself; those of a model of other bins come
        from the features.
        """
        objective = _params(job)["objective"]
        check_sign(train.label, objective, SIGNS.get(objective), gang)
        weights = row_weights(train.label, job, gang)
        if job.bins_folder is None:
            train = train.held()
        edges = edges_of(train, job, gang, weights)
        if edges.twins and start.model and not edges.twins.can_unfold(start.model):
            edges = replace(edges, twins=None)
        try:
            with xgb.config_context(verbosity=0), network(gang):
                init = InitTrees(job) if job.init else None
                binned = bin_rows(train, job, edges, weights, init)
                del train
                judged = judged_rows(valid, job, edges, gang, init)
                return XgbData(binned, judged, valid.label, start, init, edges.twins)
        except xgb.core.XGBoostError as error:
            raise EngineError(
                f"XGBoost could not bin the rows: {first_line(error)}; see the run's log."
            ) from error

    def fit(self, data: XgbData, job: TrainJob, gang: Gang, watch: Watch) -> Fitted:
        """Train and keep the best round by the metric on valid (all rounds without stopping)."""
        native, _ = NATIVE.get((job.task, job.metric), ("", float))
        is_theirs = bool(native) and not job.shift
        metric = None if is_theirs else ValidMetric(gang, data.valid_label, job)
        params = _params(job)
        params |= {"eval_metric": native} if is_theirs else {"disable_default_eval_metric": True}
        try:
            with xgb.config_context(verbosity=0), network(gang):
                growing = _Growing(data, job, params, metric)
                history = boost(growing, job, watch, data.start.history)
        except xgb.core.XGBoostError as error:
            raise EngineError(
                f"XGBoost failed: {first_line(error)}; see the run's log."
            ) from error
        rounds = kept_rounds(history, job)
        model, before = growing.model(rounds), 0
        if data.init is None:
            model = shifted(model, job.shift)
        else:  # which was taken off the scores to start at
            model, before = data.init.joined(model), data.init.rounds
        return Fitted(
            model=model,
            rounds=before + rounds,
            valid=history[rounds - 1],
            params={name: _plain(value) for name, value in params.items()},
            kept=rounds,
            scores=metric.scores_of(history[rounds - 1]) if metric else None,
        )

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


class _Growing:
    """A booster that grows on binned rows."""

    def __init__(
        self, data: XgbData, job: TrainJob, params: dict[str, Any], metric: ValidMetric | None
    ) -> None:
        self._data, self._job, self._metric = data, job, metric
        self._draws = any(float(job.params.get(name, 1)) < 1 for name in SAMPLING)
        begun = data.start.model
        if begun:
            # it is in the file, by class; said once more it is written as one number for all
            params = {name: value for name, value in params.items() if name != "base_score"}
        if begun and data.twins:
            begun = data.twins.unfolded(begun)
        self._booster = xgb.Booster(
            params, [data.train, data.valid], model_file=bytearray(begun) if begun else None
        )
        if job.device == "cuda":
            _check_device(self._booster)

    def grow(self, number: int) -> None:
        if self._draws:
            self._begin_anew()
        self._booster.update(self._data.train, number)

    def judge(self) -> float:
        if self._metric is not None:
            # the library hands a metric of ours on with six digits
            is_moved = bool(self._job.shift)  # of a margin no digits are lost
            found = self._booster.predict(self._data.valid, output_margin=is_moved)
            scores = found.astype(np.float64)
            return self._metric(1 / (1 + np.exp(-scores)) if is_moved else scores)
        _, ours = NATIVE[self._job.task, self._job.metric]
        return ours(float(self._booster.eval(self._data.valid).rpartition(":")[2]))

    def can_go_on_from(self, rounds: int) -> bool:  # noqa: ARG002 -- the protocol's
        return True

    def model(self, rounds: int = 0) -> bytes:
        """Return the model file of the first rounds, or of all."""
        is_all = rounds in (0, self._booster.num_boosted_rounds())
        kept = self._booster if is_all else self._booster[:rounds]
        grown = bytes(kept.save_raw("ubj"))
        return self._data.twins.folded(grown) if self._data.twins else grown

    def _begin_anew(self) -> None:
        """Let the library make its updaters again, as a booster read from a file does.

        They draw the seed of their column sampler when they are made, from the stream that
        `seed_per_iteration` begins with each round: so every round draws what it would draw as
        the first one after a restart. Rows' margins stay cached.
        """
        self._booster.set_param({"tree_method": "approx"})
        self._booster.save_config()  # which applies it
        self._booster.set_param({"tree_method": "hist"})


def _check_device(booster: xgb.Booster) -> None:
    """Refuse to go on on cores, to which the library turns where it finds no GPU.

    Raises:
        EngineError: it did.
    """
    found = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not str(found).startswith("cuda"):
        raise EngineError(
            f"XGBoost must train on a GPU, but found none that it can use and took '{found}'; "
            "mend the driver of this node, or use `device: cpu`."
        )


def _plain(value: Any) -> Param:
    return value if isinstance(value, str | bool | int | float) else str(value)


def _params(job: TrainJob) -> dict[str, Any]:
    """Return the library's parameters: the user's, then ours."""
    params: dict[str, Any] = {"objective": OBJECTIVES[job.task][0], **job.params}
    params |= {
        "tree_method": "hist",
        "device": job.device,
        "nthread": job.threads,
        "seed": job.seed,
        "seed_per_iteration": True,
        "validate_parameters": True,
    }
    if job.task == "multiclass":
        params["num_class"] = job.classes
    return params


def _check_names(job: TrainJob) -> None:
    seen: dict[str, str] = {}
    for name in job.params:
        other = seen.setdefault(ALIASES.get(name, name), name)
        if other != name:
            raise SpecError(f"train.params: '{other}' and '{name}' are the same; keep one.")
        if name in RESERVED:
            raise SpecError(f"train.params: '{name}' must not be set: {RESERVED[name]}.")
        if not _PARAM_NAME.match(name):
            raise SpecError(
                f"train.params: '{printable(name)}' must be letters, digits and '_' only."
                f"{nearest(name, KNOWN)}"
            )
        if name in WEIGHING and job.task != "binary" and job.params[name] != WEIGHING[name]:
            raise SpecError(
                f"train.params: {name} must not be set for a {job.task} task: XGBoost weighs the "
                "classes of a binary one alone, and of a regression the rows with a label of 1; "
                "leave it out."
            )
    objective = job.params.get("objective", OBJECTIVES[job.task][0])
    if objective not in OBJECTIVES[job.task]:
        raise SpecError(
            f"train.params: objective '{printable(objective)}' must be one of "
            f"{', '.join(OBJECTIVES[job.task])} for a {job.task} task."
            f"{nearest(str(objective), OBJECTIVES[job.task])}"
        )


def _check_init(job: TrainJob) -> None:
    """Refuse what cannot go on from another model's trees.

    Raises:
        SpecError: another objective, or a score to start at.
    """
    if "base_score" in job.params:
        raise SpecError(
            "train.params: base_score must not be set with train.init, whose model gives the "
            "scores to start at; leave it out."
        )
    mine, theirs = _params(job)["objective"], InitTrees(job).objective
    if mine != theirs:
        raise SpecError(
            f"train.params: objective must be '{theirs}', that of the model in train.init, got "
            f"'{mine}'; set it so."
        )


def _probe(params: dict[str, Any], job: TrainJob) -> list[str]:
    """Train one round on four rows and return the parameters XGBoost says it did not use.

    Raises:
        SpecError: XGBoost refuses a value.
    """
    classes = max(job.classes, 2)
    column = np.arange(4 * classes, dtype=np.float32).reshape(-1, 1)
    labels = np.arange(4 * classes) % classes if job.task != "regression" else column[:, 0] + 1
    features = np.repeat(column, job.features or features_told(params), axis=1)
    params = {**params, "nthread": 1, "device": "cpu", "verbosity": 1}
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
