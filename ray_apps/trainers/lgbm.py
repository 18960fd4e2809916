"""LightGBM: trains alone or with others, text models."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
from lightgbm.basic import _InnerPredictor

from arclight.errors import DataError, EngineError, IntegrityError
from arclight.train_section import SAMPLED
from ray_apps.gang import Alone
from ray_apps.gang.totals import total
from ray_apps.trainers import Fitted, TrainJob
from ray_apps.trainers.boosting import BEGINNING, boost, least_row_bytes
from ray_apps.trainers.judge import ValidMetric, kept_rounds, mean_of_all
from ray_apps.trainers.labels import Sign, check_sign, row_weights
from ray_apps.trainers.lgbm_bins import bin_rows, check_types, common_bins
from ray_apps.trainers.lgbm_layout import faster_layout, share_from_which_rows_win
from ray_apps.trainers.lgbm_network import network
from ray_apps.trainers.lgbm_params import (
    BAG_SHARES,
    check_init,
    check_names,
    params_of,
    probe,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Param, Values
    from ray_apps.trainers.boosting import Snapshot, Watch
    from ray_apps.trainers.lgbm_network import Network

# Our metric -> theirs, what each worker's own is made to, and how the mean of that over all rows
# becomes ours. The library's area under a curve is of one worker's rows, and takes longer.
NATIVE: dict[tuple[str, str], tuple[str, Callable[[float], float], Callable[[float], float]]] = {
    ("binary", "log_loss"): ("binary_logloss", float, float),
    ("multiclass", "log_loss"): ("multi_logloss", float, float),
    ("multiclass", "accuracy"): ("multi_error", float, lambda error: 1.0 - error),
    ("regression", "rmse"): ("rmse", lambda root: root * root, math.sqrt),
    ("regression", "mae"): ("l1", float, float),
}
SIGNS = dict.fromkeys(("poisson", "gamma", "tweedie"), Sign(on_each=True))
COLUMN_SHARES = ("feature_fraction", "feature_fraction_bynode")
BINNING = (
    "max_bin", "min_data_in_bin", "bin_construct_sample_cnt", "data_random_seed", "use_missing",
    "zero_as_missing", "enable_bundle", "linear_tree",
)  # fmt: skip
"""What a data set is made by; another value needs another one."""
SEEDS = ("bagging_seed", "feature_fraction_seed", "extra_seed")
_EMPTY = b"\nrounds without a split: "
"""Behind the model of a snapshot; the library's own text has no such line."""
_NO_SPLIT = re.compile(r"(?<=\nnum_leaves=1\n)(?P<rest>(?:\w+=.*\n)*?)leaf_count=[1-9]\d*")
_SIZES = re.compile(r"\ntree_sizes=.*")
"""Of the trees in the text; without them the library reads it all the same."""


@dataclass(frozen=True)
class LgbmData:
    """Binned train rows and valid rows by the same bins, with the labels of valid.

    Attributes:
        start: what to go on from; its margins are in both.
        begun: its booster, or that of the model the training starts from, which both refer to.
        before: rounds of that model.
        empty: rounds of `start` in which nothing was split, from 0: its booster has not got them.
        rows_from: the share of features from which a trial counts bins by rows.
    """

    train: lgb.Dataset
    valid: lgb.Dataset
    valid_label: Doubles
    start: Snapshot = BEGINNING
    begun: lgb.Booster | None = None
    before: int = 0
    empty: tuple[int, ...] = ()
    rows_from: float = math.inf


class LgbmTrainer:
    """Trains and loads LightGBM models."""

    suffix = ".txt"
    bins_on_disk = False

    def check_params(self, job: TrainJob) -> None:
        """Refuse parameters by the library's own list, then let it judge the values."""
        check_names(job)
        objective = probe(job)
        if job.init is not None:
            check_init(job, objective)

    def why_no_gpu(self) -> str | None:
        """Its published packages have no kernels for CUDA."""
        return "LightGBM's published packages train on cores; use `auto`, or another trainer"

    def from_scratch(self, job: TrainJob) -> TrainJob:
        """Return the job without the model it starts from."""
        return replace(job, init=None)

    def least_row_bytes(self, values: Values, *, on_disk: bool = False) -> float:  # noqa: ARG002
        """Bins of what is neither null nor zero, twice, and gradients."""
        return least_row_bytes(values.told)

    def bin_key(self, job: TrainJob) -> tuple[Param | None, ...]:
        """What the library keeps in a data set."""
        params = params_of(job, Alone())
        return tuple(params.get(name) for name in BINNING)

    def goes_on_exactly(self, job: TrainJob) -> bool:
        """Not where rounds depend on more than the model, the bins and seeds of their own."""
        params = params_of(job, Alone())
        return not (
            _is_goss(params)  # it draws nothing for some rounds
            or params.get("use_quantized_grad")  # its rounding draws from a state of its own
            or params["enable_bundle"]  # a bundle's bins lose values that the features still have
            # the shift is taken off before trees are added, or after: other last bits
            or (job.init is not None and job.imbalance in SAMPLED)
        )

    def prepare(
        self, train: Shard, valid: Shard, job: TrainJob, gang: Gang, start: Snapshot = BEGINNING
    ) -> LgbmData:
        """Bin train, and valid by the same bins; margins to go on from come from the features."""
        check_types(train)
        objective = params_of(job, gang)["objective"]
        check_sign(train.label, objective, SIGNS.get(objective), gang)
        train = train.held()
        common: dict[str, Any] = {
            "categorical_feature": list(job.categorical),
            "params": params_of(job, gang),
        }
        init = lgb.Booster(model_file=job.init.path) if job.init else None
        # the model of a snapshot has the rounds it started from as well
        text, _, empty = start.model.partition(_EMPTY)
        begun = lgb.Booster(model_str=text.decode()) if text else init
        known = begun and _InnerPredictor.from_booster(begun, {"num_threads": job.threads})
        bins = common_bins(train, common, gang)
        weights = row_weights(train.label, job, gang)
        # evened-out rows have other odds than those the model to start from knows
        offset = _raw_shift(job) if job.init else 0.0
        binned = bin_rows(train, bins, known, common, weight=weights, offset=offset)
        # not by those of `binned`: rows without weights take theirs from there, as zeros
        del train
        other = bin_rows(valid.held(), bins, known, common, offset=offset)
        before = init.current_iteration() if init else 0
        rounds = tuple(int(number) for number in empty.split())
        found = LgbmData(binned, other, valid.label, start, begun, before, rounds)
        if not job.is_trial:
            return found
        return replace(found, rows_from=share_from_which_rows_win(binned, common["params"]))

    def fit(self, data: LgbmData, job: TrainJob, gang: Gang, watch: Watch) -> Fitted:
        """Train and keep the best round by the metric on valid (all rounds without stopping)."""
        native = NATIVE.get((job.task, job.metric), ("",))[0]
        is_theirs = bool(native) and not job.shift
        metric = None if is_theirs else ValidMetric(gang, data.valid_label, job)
        params = faster_layout(params_of(job, gang), data.rows_from)
        params["metric"] = native if is_theirs else "None"
        try:
            with network(gang) as net:
                growing = _Growing(data, job, params, (metric, net, gang))
                history = boost(growing, job, watch, data.start.history)
        except lgb.basic.LightGBMError as error:
            raise EngineError(f"LightGBM failed: {said(error)}; see the run's log.") from error
        kept = kept_rounds(history, job)
        model = growing.finished(kept)
        rounds = int(lgb.Booster(model_str=model.decode()).current_iteration())
        if rounds == data.before:
            raise DataError(
                "LightGBM must find a split to add to the model in train.init, but found none in "
                f"{kept} rounds; give it more rows, or lower min_data_in_leaf and "
                "min_sum_hessian_in_leaf."
            )
        return Fitted(
            model=model if data.before else _shifted(model, _raw_shift(job)),
            rounds=rounds,
            valid=history[kept - 1],
            params=params,
            kept=kept,
            # what a bundle's bins have lost the model's features have not, in a few rows
            scores=metric.scores_of(history[kept - 1])
            if metric and not params["enable_bundle"]
            else None,
        )

    def load(self, path: Path, *, threads: int) -> LgbmModel:
        """Load a text model; a damaged one may end the process, so its bytes come checked."""
        try:
            booster = lgb.Booster(model_file=path)
        except lgb.basic.LightGBMError as error:
            raise IntegrityError(
                f"'{path}' is not a model LightGBM can read ({said(error)}); restore it "
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


class _Growing:
    """A booster that grows on binned rows."""

    def __init__(
        self,
        data: LgbmData,
        job: TrainJob,
        params: dict[str, Any],
        judged: tuple[ValidMetric | None, Network, Gang],
    ) -> None:
        self._job, self._params = job, params
        self._metric, self._net, self._gang = judged
        self._valid_rows = len(data.valid_label)
        mine = np.array([data.train.num_data()])
        self._train_rows = int(total(self._gang, mine)[0])
        self._booster = lgb.Booster(params, data.train)  # which has the rounds to go on from
        self._booster.add_valid(data.valid, "valid")
        # a round in which nothing was split is none to the library, unless it is the first
        self._before, self._empty = data.before, list(data.empty)
        self._shares = _shares_of(params, data.train.get_label())
        has_bags = int(params.get("bagging_freq", 0)) > 0 and bool(self._shares)
        self._every = int(params["bagging_freq"]) if has_bags else 1
        self._draws = (
            has_bags
            or _is_goss(params)
            or bool(params.get("extra_trees"))
            or any(float(params.get(name, 1)) < 1 for name in COLUMN_SHARES)
        )

    def grow(self, number: int) -> None:
        self._draw_anew(number)
        before = self._booster.current_iteration()
        self._booster.update()
        self._net.check()
        if self._booster.current_iteration() == before:
            self._empty.append(number)

    def judge(self) -> float:
        (found,) = self._booster.eval_valid(self._own)
        self._net.check()
        if self._metric is not None:
            return float(found[2])
        # the library's own metrics are those of this worker's rows
        _, there, back = NATIVE[self._job.task, self._job.metric]
        return back(mean_of_all(self._gang, there(float(found[2])), self._valid_rows))

    def can_go_on_from(self, rounds: int) -> bool:
        # it counts rounds from 0 again, those without a split left out: bags are drawn by that
        is_bag_over = rounds % self._every == 0
        return is_bag_over and (self._every == 1 or not self._empty)

    def model(self) -> bytes:
        """Return the model file, and behind it which rounds it has not got."""
        numbers = " ".join(map(str, self._empty)).encode()
        return self._file(-1) + (_EMPTY + numbers if numbers else b"")

    def finished(self, rounds: int) -> bytes:
        """Return the model file of the first rounds."""
        return self._file(self._before + rounds - sum(number < rounds for number in self._empty))

    def _file(self, iterations: int) -> bytes:
        """Return the model file of the library's first iterations, or of all.

        The file names the seeds of the last round and this worker's share of a bag, and writes
        what it has read before otherwise: made the same for a training that went on, and on every
        worker. And a first tree without a split has one worker's rows in it: made those of all.
        """
        text = self._booster.model_to_string(num_iteration=iterations)
        if self._draws:
            # not in the booster: set twice between rounds, GOSS reads rows that it has freed
            share = float(self._params.get("bagging_fraction", 1))
            told = {**_seeds(self._params, 0), "bagging_fraction": f"{share:g}"}
            for name, value in told.items():
                text = re.sub(rf"(?<=\n\[{name}: )[^\]]+(?=\])", str(value), text)
        if self._gang.world > 1 and not self._before:
            text = _SIZES.sub("", text)
            text = _NO_SPLIT.sub(rf"\g<rest>leaf_count={self._train_rows}", text)
        whole: str = lgb.Booster(model_str=text).model_to_string(num_iteration=-1)
        return whole.encode()

    def _own(self, predictions: Doubles, _: lgb.Dataset) -> Any:
        """Return our own formula as the library wants it; nothing where it has its own."""
        if self._metric is None:
            return []
        return self._job.metric, self._metric(predictions), True

    def _draw_anew(self, number: int) -> None:
        """Give every stream of chance the seed of this round, whatever was drawn before it.

        So each round draws what it would draw as the first one after a restart.
        """
        if not self._draws:
            return
        if self._shares and number % self._every == 0:
            # the library takes up a bag's seed only together with another share
            self._booster.reset_parameter({n: v * 0.9 for n, v in self._shares.items()})
        self._booster.reset_parameter({**_seeds(self._params, number), **self._shares})


def _raw_shift(job: TrainJob) -> float:
    """Return a job's shift in the unit of LightGBM's raw scores."""
    return job.shift / float(params_of(job, Alone()).get("sigmoid", 1))


def _shifted(model: bytes, shift: float) -> bytes:
    """Add to the raw score of a binary model: every leaf of its first tree is that much more."""
    if not shift:
        return model
    booster = lgb.Booster(model_str=model.decode())
    leaves = booster.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"]
    for leaf in range(leaves):
        booster.set_leaf_output(0, leaf, booster.get_leaf_output(0, leaf) + shift)
    text: str = booster.model_to_string(num_iteration=-1)
    return text.encode()


def _is_goss(params: dict[str, Any]) -> bool:
    return str(params.get("data_sample_strategy")).lower() == "goss"  # the library takes any case


def _shares_of(params: dict[str, Any], label: Doubles | None) -> dict[str, float]:
    """Return what parts of this worker's rows bags have.

    Where no row is of class 1 the library draws by the share of all rows, whatever those of the
    classes are: made that of class 0, so that every worker's bag has as much of it. Never 1, with
    which it would draw into memory that it has let go.
    """
    # not one of 1: less of a class for a moment, and the library draws by class for good
    shares = {n: float(params[n]) for n in BAG_SHARES if float(params.get(n, 1)) < 1}
    if "neg_bagging_fraction" in shares and label is not None and not label.any():
        shares["bagging_fraction"] = shares["neg_bagging_fraction"]
    return shares


def _seeds(params: dict[str, Any], number: int) -> dict[str, int]:
    """Return a round's seed of each stream, far from those of the rounds beside it."""
    drawn = {
        name: np.random.SeedSequence(
            [abs(int(value)) for value in (params["seed"], params.get(name, 0), place, number)]
        )
        for place, name in enumerate(SEEDS)
    }
    return {name: int(found.generate_state(1)[0] >> 1) for name, found in drawn.items()}
