"""One suite of behaviours for every trainer, and the traps of each library by their ids."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from arclight.errors import DataError, EngineError, SpecError
from arclight.metrics import measure, measure_scores
from arclight.thresholds import best_f1_threshold
from ray_apps.gang import Alone
from ray_apps.shards import Shard, dense
from ray_apps.trainers import TrainJob, load_trainer
from ray_apps.trainers.boosting import BEGINNING, Snapshot
from ray_apps.trainers.judge import is_over, kept_rounds
from ray_apps.trainers.labels import check_labels, row_weights
from ray_apps.trainers.xgb_bins import Parts
from tests.ray_apps.make_dataset import SMALL_NET

TREES = ("xgboost", "lightgbm")
LIBRARIES = (*TREES, "torch")
TASKS = ("binary", "multiclass", "regression")
METRICS = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}


def go_on(_history, _model) -> bool:
    return True


def make_shard(
    rows: int, *, seed: int = 0, task: str = "binary", parts: int = 4, levels: int = 6
) -> Shard:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 3)).astype(np.float32)
    code = rng.integers(0, levels, rows)
    z = x[:, 0] + np.where(np.isin(code, (1, 3, 5)), 1.0, -1.0)
    z = z + 0.3 * rng.standard_normal(rows)
    labels = {
        "binary": (z > 0).astype(np.float64),
        "multiclass": np.digitize(z, [-0.7, 0.7]).astype(np.float64),
        "regression": z.astype(np.float64),
    }[task]
    table = pa.table(
        {
            "f0": pa.array(x[:, 0], mask=rng.random(rows) < 0.1),
            "f1": pa.array(x[:, 1]),
            "f2": pa.array(x[:, 2]),
            "f3": pa.array(code, pa.int32(), mask=rng.random(rows) < 0.05),
        }
    )
    cuts = np.linspace(0, rows, parts + 1).astype(int)
    pairs = list(itertools.pairwise(cuts))
    return Shard(
        tables=tuple(table.slice(a, b - a) for a, b in pairs),
        labels=tuple(labels[a:b] for a, b in pairs),
    )


def make_job(task: str = "binary", **changes: object) -> TrainJob:
    job = TrainJob(
        task=task,
        categorical=(3,),
        classes=3 if task == "multiclass" else 0,
        rounds=25,
        early_stopping=8,
        metric=METRICS[task],
        seed=3,
        threads=1,
    )
    return replace(job, **changes)


def fit(name: str, job: TrainJob, train: Shard, valid: Shard, watch=go_on):
    if name == "torch":
        job = replace(job, params={**SMALL_NET, **job.params})
    trainer = load_trainer(name)
    trainer.check_params(job)
    return trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), watch)


def load(name: str, fitted, tmp_path):
    trainer = load_trainer(name)
    path = tmp_path / f"model{trainer.suffix}"
    path.write_bytes(fitted.model)
    return trainer.load(path, threads=1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_model_is_fitted_saved_and_read_back(name, task, tmp_path):
    job = make_job(task)
    train, valid = make_shard(3000, task=task), make_shard(500, seed=1, task=task)
    seen: list[tuple[int, float]] = []

    def watch(history, _model) -> bool:
        seen.append((len(history), history[-1]))
        return True

    fitted = fit(name, job, train, valid, watch)
    model = load(name, fitted, tmp_path)
    assert (model.features, model.rounds) == (4, fitted.rounds)
    scores = model.predict(dense(pa.concat_tables(valid.tables)))
    assert scores.dtype == np.float64
    assert scores.shape == ((500, 3) if task == "multiclass" else (500,))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert fitted.valid == seen[fitted.rounds - 1][1]
    assert fitted.valid == pytest.approx(_value(job, valid, scores), abs=2e-5)


@pytest.mark.parametrize("name", LIBRARIES)
def test_gains_stand_by_the_features_that_make_the_label(name, tmp_path):
    """The label is made of f0 and f3; f1 and f2 are noise."""
    fitted = fit(name, make_job(rounds=10), make_shard(3000), make_shard(500, seed=1))
    gains = load(name, fitted, tmp_path).gains()
    assert gains.shape == (4,)
    assert min(gains[0], gains[3]) > 10 * max(gains[1], gains[2])


@pytest.mark.parametrize("name", TREES)
def test_a_model_without_a_split_has_no_gain(name, tmp_path):
    params = {"xgboost": {"gamma": 1e9}, "lightgbm": {"min_gain_to_split": 1e9}}[name]
    job = make_job(rounds=3, early_stopping=None, params=params)
    fitted = fit(name, job, make_shard(3000), make_shard(500, seed=1))
    assert load(name, fitted, tmp_path).gains().tolist() == [0.0] * 4


def _value(job: TrainJob, valid: Shard, scores: np.ndarray) -> float:
    from arclight.metrics import measure

    return measure(job.task, job.metric, valid.label, scores)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_same_rows_job_and_threads_give_the_same_bytes(name):
    train, valid = make_shard(3000), make_shard(500, seed=1)
    sampled = {"subsample": 0.7, "colsample_bytree": 0.8}
    sampled |= {"bagging_freq": 1} if name == "lightgbm" else {}
    job = make_job(params={} if name == "torch" else sampled, threads=1)
    first, again = (fit(name, job, train, valid).model for _ in range(2))
    assert first == again
    assert fit(name, replace(job, seed=4), train, valid).model != first


@pytest.mark.parametrize("name", LIBRARIES)
def test_parts_of_another_size_change_no_score(name, tmp_path):
    valid = make_shard(500, seed=1)
    matrix = dense(pa.concat_tables(valid.tables))
    scores = []
    for parts in (1, 5):
        fitted = fit(name, make_job(), make_shard(3000, parts=parts), valid)
        scores.append(load(name, fitted, tmp_path).predict(matrix))
    assert np.allclose(scores[0], scores[1], atol=1e-6)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_best_round_is_kept(name):
    train = make_shard(300)
    shuffled = tuple(np.random.default_rng(9).permutation(y) for y in train.labels)
    noisy = Shard(train.tables, shuffled)
    history: list[float] = []

    def watch(found, _model) -> bool:
        history.append(found[-1])
        return True

    fitted = fit(
        name, make_job(rounds=60, metric="log_loss"), noisy, make_shard(300, seed=1), watch
    )
    assert len(history) < 60
    assert fitted.rounds == int(np.argmin(history)) + 1 == len(history) - 8
    whole = make_job(rounds=12, early_stopping=None)
    assert fit(name, whole, noisy, make_shard(300, seed=1)).rounds == 12


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_watcher_can_end_the_training(name):
    fitted = fit(
        name, make_job(early_stopping=None), make_shard(800), make_shard(200, seed=1),
        lambda history, _model: len(history) < 5,
    )  # fmt: skip
    assert fitted.rounds == 5


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("binary", "average_precision"),
        ("binary", "brier"),
        ("binary", "f1"),
        ("multiclass", "accuracy"),
        ("multiclass", "macro_auc"),
        ("regression", "mae"),
        ("regression", "r2"),
    ],
)
@pytest.mark.parametrize("name", LIBRARIES)
def test_every_metric_can_stop_a_training(name, task, metric, tmp_path):
    job = make_job(task, metric=metric, rounds=10)
    valid = make_shard(400, seed=1, task=task)
    fitted = fit(name, job, make_shard(1500, task=task), valid)
    scores = load(name, fitted, tmp_path).predict(dense(pa.concat_tables(valid.tables)))
    assert fitted.valid == pytest.approx(
        measure_scores(job.task, job.metric, valid.label, scores), abs=2e-5
    )


@pytest.mark.parametrize("name", LIBRARIES)
def test_precision_is_0_as_long_as_no_score_is_as_high_as_one_half(name):
    """With a rare class that is so for some rounds; they end no training."""
    rows, valid = make_shard(3000), make_shard(600, seed=1)
    rare = [
        Shard(one.tables, tuple(np.where(np.arange(len(y)) % 5 == 0, y, 0.0) for y in one.labels))
        for one in (rows, valid)
    ]
    seen: list[float] = []

    def watch(history, _model):
        seen.append(history[-1])
        return True

    params = {} if name == "torch" else {"learning_rate": 0.02}
    job = make_job(metric="precision", rounds=3, early_stopping=None, params=params)
    fit(name, job, *rare, watch)
    assert seen == [0.0] * 3


@pytest.mark.parametrize("name", LIBRARIES)
def test_weights_give_both_classes_the_same_say(name, tmp_path):
    train, valid = make_shard(4000), make_shard(500, seed=1)
    rare = tuple(np.where(np.arange(len(y)) % 10 == 0, y, 0.0) for y in train.labels)
    train = Shard(train.tables, rare)
    mean = {}
    for imbalance in ("none", "weight"):
        fitted = fit(name, make_job(imbalance=imbalance), train, valid)
        matrix = dense(pa.concat_tables(valid.tables))
        mean[imbalance] = load(name, fitted, tmp_path).predict(matrix).mean()
    assert mean["weight"] > 3 * mean["none"]


@pytest.mark.parametrize("metric", ["auc", "average_precision", "log_loss"])
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_weights_are_of_train_alone(name, metric, place, tmp_path, monkeypatch):
    """Valid rows that weigh other than 1, or nothing, would stop a training by another number."""
    job, valid = make_job(metric=metric, imbalance="weight"), make_shard(500, seed=1)
    monkeypatch.setattr("ray_apps.shards.HELD_BYTES", 0)
    read = from_disk if place == "disk" else as_it_is
    fitted = fit(name, job, read(make_shard(3000)), read(valid))
    scores = load(name, fitted, tmp_path).predict(valid_matrix(valid))
    assert fitted.valid == pytest.approx(_value(job, valid, scores), abs=2e-5)
    assert fitted.rounds > 1


def valid_matrix(valid: Shard):
    return dense(pa.concat_tables(valid.tables))


@pytest.mark.parametrize("call", range(1, 16, 2))
def test_an_interrupt_ends_xgboosts_binning(call, monkeypatch):
    """The library calls back for rows; what is no Exception would be lost there."""
    calls = []

    def interrupted(self, input_data):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return give(self, input_data)

    give = Parts._next
    monkeypatch.setattr(Parts, "_next", interrupted)
    job, train, valid = make_job(), make_shard(800, parts=4), make_shard(300, seed=1)
    trainer = load_trainer("xgboost")
    with pytest.raises(KeyboardInterrupt):
        trainer.prepare(train, valid, job, Alone())
    assert len(calls) == call


@pytest.mark.parametrize(
    ("param", "rule"),
    [({"linear_tree": True}, "linear_tree must be False"),
     ({"monotone_constraints_method": "advanced"}, "must be basic for several workers"),
     ({"interaction_constraints": "[0,1]"}, "interaction_constraints must not be set for sev")],
)  # fmt: skip
def test_what_lightgbm_leaves_out_with_several_workers_is_refused(param, rule):
    trainer = load_trainer("lightgbm")
    trainer.check_params(make_job(params=param))
    with pytest.raises(SpecError, match=rule):
        trainer.check_params(make_job(params=param, workers=2))


@pytest.mark.parametrize(
    ("history", "over"),
    [([], False), ([0.5, 0.6, 0.7], False), ([0.7, 0.6, 0.6], True), ([np.nan] * 3, True),
     ([0.5, 0.7, 0.7], False), ([0.5, 0.7, 0.7, 0.7], True)],
)  # fmt: skip
def test_a_training_is_over_when_no_round_of_the_last_ones_was_better(history, over):
    assert is_over(history, make_job(early_stopping=2)) is over
    assert not is_over(history, make_job(early_stopping=None))


def test_row_weights_add_up_to_the_rows():
    labels = np.array([0.0, 0, 0, 1])
    weights = row_weights(labels, make_job(imbalance="weight"), Alone())
    assert weights.tolist() == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2])
    assert row_weights(labels, make_job(), Alone()) is None


# ------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("xgboost", {"max_depht": 3}, r"does not use 'max_depht'.*Did you mean 'max_depth'"),
        ("xgboost", {"tweedie_variance_power": 1.2}, r"these parameters\. Remove it\.$"),
        ("xgboost", {"max depth": 3}, "letters, digits and '_'"),
        ("xgboost", {"max_depth": -1}, "refuses them: value -1"),
        ("xgboost", {"subsample": 1.5}, "refuses them: value 1.5"),
        ("xgboost", {"learning_rate": "fast"}, "refuses them"),
        ("xgboost", {"grow_policy": "sideways"}, "refuses them"),
        ("xgboost", {"nthread": 4}, "'nthread' must not be set: the profile"),
        ("xgboost", {"device": "cuda"}, "'device' must not be set"),
        ("xgboost", {"booster": "gblinear"}, "'booster' must not be set"),
        ("xgboost", {"objective": "binary:logitraw"}, "must be one of binary:logistic"),
        ("lightgbm", {"num_leafs": 3}, "LightGBM has no 'num_leafs'.*Did you mean 'num_leaf"),
        ("lightgbm", {"num_leaves": 1}, "refuses them: num_leaves must be > 1"),
        ("lightgbm", {"bagging_fraction": 1.5}, "bagging_fraction must be <= 1.0$"),
        ("lightgbm", {"n_jobs": 4}, "'n_jobs' must not be set"),
        ("lightgbm", {"forcedsplits_filename": "/etc/passwd"}, "must not be set"),
        ("lightgbm", {"machines": "a:1"}, "must not be set"),
        ("lightgbm", {"output_model": "x"}, "must not be set"),
        ("lightgbm", {"boosting": "dart"}, "must be gbdt, the one that is stored"),
        ("lightgbm", {"objective": "lambdarank"}, "must be one of binary"),
        ("lightgbm", {"eta": 0.1, "learning_rate": 0.2}, "are the same"),
        ("lightgbm", {"subsample": 0.5}, "bagging_fraction below 1 must have bagging_freq beside"),
        ("lightgbm", {"pos_bagging_fraction": 0.01}, "set bagging_freq: 1, or leave pos_bagging"),
        ("lightgbm", {"bagging_fraction": 0.0, "bagging_freq": 1}, "fraction must be > 0.0$"),
        (
            "lightgbm",
            {"bagging_fraction": 0.5, "neg_bagging_fraction": 0.1, "bagging_freq": 1},
            "bagging_fraction must not be below 1 beside neg_bagging_fraction, .* by their class",
        ),
        (
            "lightgbm",
            {"data_sample_strategy": "GOSS", "pos_bagging_fraction": 0.5, "bagging_freq": 1},
            "pos_bagging_fraction must not be below 1 beside goss, .* by their gradients",
        ),
        ("lightgbm", {"mc_method": "advance"}, "one of basic, .*Did you mean 'advanced'"),
        (
            "lightgbm",
            {"mc_method": "advanced", "feature_fraction_bynode": 0.5},
            "must be basic be",
        ),
        (
            "lightgbm",
            {"linear_tree": "true", "use_quantized_grad": True},
            "linear_tree must not be",
        ),
        (
            "lightgbm",
            {"num_grad_quant_bins": 1, "use_quantized_grad": True},
            "at least 2, got 1: ",
        ),
    ],
)
def test_wrong_parameters_are_refused_before_anything_starts(name, params, message):
    with pytest.raises(SpecError, match=message):
        load_trainer(name).check_params(make_job(params=params))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("xgboost", {"max_depth": 4, "eta": 0.3, "lambda": 2, "max_bin": 64, "gamma": 0.1}),
        ("xgboost", {"max_leaves": 8, "grow_policy": "lossguide", "max_cat_to_onehot": 2}),
        ("lightgbm", {"num_leaves": 8, "eta": 0.3, "subsample": 0.5, "bagging_freq": 1}),
        ("lightgbm", {"use_quantized_grad": True, "min_child_samples": 5, "max_bin": 63}),
        ("lightgbm", {"bagging_fraction": 0.001, "bagging_freq": 1, "scale_pos_weight": 1.0}),
        ("lightgbm", {"linear_tree": True, "num_grad_quant_bins": 1}),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_the_librarys_own_parameters_are_taken(name, params, task):
    load_trainer(name).check_params(make_job(task, params=params))


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize(
    ("name", "params"),
    [("lightgbm", {"unbalance": True}), ("lightgbm", {"scale_pos_weight": 2.0}),
     ("lightgbm", {"neg_bagging_fraction": 0.5, "bagging_freq": 1}),
     ("xgboost", {"scale_pos_weight": 2.0})],
)  # fmt: skip
def test_what_weighs_classes_of_a_binary_task_alone_is_refused_for_another(name, task, params):
    """LightGBM takes it without a word, XGBoost weighs the rows of a regression labelled 1."""
    trainer, told = load_trainer(name), f"{next(iter(params))} must not be set for a {task}"
    trainer.check_params(make_job(params=params))
    with pytest.raises(SpecError, match=told):
        trainer.check_params(make_job(task, params=params))


@pytest.mark.parametrize(
    ("name", "objective"), [("xgboost", "count:poisson"), ("lightgbm", "huber")]
)
def test_a_regression_may_choose_its_objective(name, objective):
    load_trainer(name).check_params(make_job("regression", params={"objective": objective}))


# ------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("binary", [0, 1, np.nan], "0 or 1, but 1 of 3 rows of the train split"),
        ("binary", [0, 1, 2], "0 or 1"),
        ("binary", [0, 1, np.inf], "0 or 1"),
        ("binary", [1, 1, 1], "two classes at least, but all 3 are of class 1"),
        ("multiclass", [0, 1, np.nan], "one of the 3 classes"),
        ("multiclass", [0, 1, 3], "one of the 3 classes"),
        ("multiclass", [2, 2, 2], "two classes at least"),
        ("regression", [0.5, np.nan], "a finite number"),
        ("regression", [0.5, np.inf], "a finite number"),
    ],
)
def test_E6_XG9_LG4_bad_labels_are_refused_with_counts(task, labels, message):
    good = np.array([0.0, 1.0])
    with pytest.raises(DataError, match=message):
        check_labels(np.array(labels, dtype=float), good, make_job(task), Alone())


def test_E6_a_single_class_in_valid_is_refused_only_where_the_metric_needs_two():
    one = np.array([1.0, 1.0])
    two = np.array([0.0, 1.0])
    with pytest.raises(DataError, match="valid split must have rows of two classes"):
        check_labels(two, one, make_job(metric="auc"), Alone())
    check_labels(two, one, make_job(metric="log_loss"), Alone())
    check_labels(np.array([3.0, 3.0]), one, make_job("regression"), Alone())


@pytest.mark.parametrize(
    ("history", "rounds"), [([0.5, 0.7, 0.7, 0.6], 2), ([np.nan, 0.1], 2), ([0.9, np.inf], 1)]
)
def test_T4_a_round_without_a_finite_metric_is_never_the_best(history, rounds):
    assert kept_rounds(history, make_job()) == rounds


def test_T4_a_training_that_only_gives_nan_has_diverged():
    with pytest.raises(EngineError, match="diverged"):
        kept_rounds([np.nan, np.nan], make_job())


# ------------------------------------------------------------------------------- traps

BAD_TYPES = {
    "decimal": pa.array([1, 2, 3], pa.int32()).cast(pa.decimal128(20, 2)),
    "string": pa.array(["a", "b", "c"]),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "timestamp": pa.array([1, 2, 3], pa.timestamp("us")),
    "null": pa.nulls(3),
    "float16": pa.array(np.arange(3, dtype=np.float16)),
}


@pytest.mark.parametrize("kind", BAD_TYPES)
def test_LG1_a_type_that_would_kill_the_process_is_refused(kind):
    shard = Shard((pa.table({"f0": BAD_TYPES[kind]}),), (np.array([0.0, 1.0, 0.0]),))
    with pytest.raises(DataError, match="feature column 'f0' must be one of"):
        load_trainer("lightgbm").prepare(shard, shard, make_job(categorical=()), Alone())


def test_LG1_the_trap_is_still_there():
    """The check above would be needless if LightGBM raised; when this fails, drop both."""
    code = (
        "import pyarrow as pa, lightgbm as lgb\n"
        "lgb.Dataset(pa.table({'a': ['x', 'y']}), label=[0, 1]).construct()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -6


def test_LG6_XG7_no_rows_are_refused():
    empty = Shard((pa.table({"f0": pa.array([], pa.float32())}),), (np.empty(0),))
    with pytest.raises(DataError, match="must have rows"):
        load_trainer("lightgbm").prepare(empty, empty, make_job(categorical=()), Alone())


@pytest.mark.parametrize("place", ["memory", "disk", "bins on disk"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_CAT1_a_code_that_training_never_saw_is_scored_and_judged_alike(
    name, place, tmp_path, monkeypatch
):
    """XGBoost binds a valid matrix to train's cuts and takes an unseen code for a seen one."""
    if place == "bins on disk" and not load_trainer(name).bins_on_disk:
        pytest.skip("its bins are always in memory")
    train = make_shard(3000)
    valid = make_shard(600, seed=1, levels=7)  # code 6 is in no train row
    if place != "memory":
        monkeypatch.setattr("ray_apps.shards.HELD_BYTES", 0)
        monkeypatch.setattr("ray_apps.trainers.xgb_bins.JUDGED_BYTES", 0)
        train, valid = from_disk(train), from_disk(valid)
    seen: list[float] = []

    def watch(history, _model) -> bool:
        seen.append(history[-1])
        return True

    job = make_job(metric="log_loss", early_stopping=None)
    job = replace(job, bins_folder=tmp_path / "bins" if place == "bins on disk" else None)
    model = load(name, fit(name, job, train, valid, watch), tmp_path)
    scores = model.predict(dense(pa.concat_tables(valid.tables)))
    assert seen[-1] == pytest.approx(_value(job, valid, scores), abs=1e-6)


def test_XG1_inplace_predict_on_codes_equals_a_typed_matrix(tmp_path):
    import xgboost as xgb

    valid = make_shard(600, seed=1, levels=8)
    fitted = fit("xgboost", make_job(), make_shard(3000), valid)
    table = pa.concat_tables(valid.tables)
    model = load("xgboost", fitted, tmp_path)
    booster = xgb.Booster(model_file=tmp_path / "model.ubj")
    matrix = xgb.DMatrix(
        table, feature_types=["q", "q", "q", "c"], enable_categorical=True, nthread=1
    )
    assert np.array_equal(model.predict(dense(table)), booster.predict(matrix).astype(float))


@pytest.mark.parametrize("name", LIBRARIES)
def test_XG2_a_matrix_of_another_width_is_refused(name, tmp_path):
    fitted = fit(name, make_job(), make_shard(800), make_shard(200, seed=1))
    model = load(name, fitted, tmp_path)
    with pytest.raises(Exception, match=r"shape mismatch|number of features"):
        model.predict(np.zeros((2, 3), dtype=np.float32))


class FromDisk:
    """Parts that are not all in memory."""

    def __init__(self, tables) -> None:
        self.tables, self.passes = tables, 0

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, place: int) -> pa.Table:
        return self.tables[place]

    def __iter__(self):
        self.passes += 1
        return iter(self.tables)


def from_disk(shard: Shard) -> Shard:
    return replace(shard, tables=FromDisk(shard.tables))


def as_it_is(shard: Shard) -> Shard:
    return shard


def test_few_rows_are_held_and_many_are_not(monkeypatch):
    shard = from_disk(make_shard(3000))
    assert shard.held().is_held
    assert shard.tables.passes == 1
    monkeypatch.setattr("ray_apps.shards.HELD_BYTES", 3000 * 4 * 4)
    assert shard.held().is_held
    monkeypatch.setattr("ray_apps.shards.HELD_BYTES", 3000 * 4 * 4 - 1)
    assert shard.held() is shard


@pytest.mark.parametrize("imbalance", ["none", "weight"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_rows_from_disk_give_the_bytes_of_rows_in_memory(name, task, imbalance, monkeypatch):
    job = make_job(task, imbalance=imbalance, rounds=12, early_stopping=None)
    job = replace(job, params={**SMALL_NET, **job.params}) if name == "torch" else job
    train, valid = make_shard(3000, task=task), make_shard(500, seed=1, task=task)
    trainer, halves, snapshots = load_trainer(name), [], []

    def keep(history, model) -> bool:
        snapshots.append(Snapshot(model(), tuple(history)))
        return len(history) < 5

    trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), keep)
    for start in (BEGINNING, snapshots[-1]):  # from the start, and going on
        for read in (as_it_is, from_disk):
            monkeypatch.setattr("ray_apps.shards.HELD_BYTES", 0)
            data = trainer.prepare(read(train), read(valid), job, Alone(), start)
            halves.append(trainer.fit(data, job, Alone(), go_on))
    assert halves[0] == halves[1]
    assert halves[2] == halves[3]


@pytest.mark.parametrize("imbalance", ["none", "weight"])
@pytest.mark.parametrize("task", TASKS)
def test_bins_on_disk_give_the_model_of_bins_in_memory(task, imbalance, tmp_path):
    """The same edges, and with one thread the same sums."""
    if (task, imbalance) == ("regression", "weight"):
        pytest.skip("a regression has no classes")
    train, valid = make_shard(4000, task=task), make_shard(1000, seed=1, task=task)
    job = make_job(task, imbalance=imbalance, params={"subsample": 0.7, "max_bin": 64})
    memory = fit("xgboost", job, train, valid)
    folder = tmp_path / "bins"
    disk = fit("xgboost", replace(job, bins_folder=folder), train, valid)
    assert disk.model == memory.model
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_bins_are_on_disk_while_they_are_used(tmp_path):
    train, valid = make_shard(4000), make_shard(1000, seed=1)
    job = make_job(bins_folder=tmp_path)
    trainer = load_trainer("xgboost")
    data = trainer.prepare(train, valid, job, Alone())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 4000 * 4
    del data


@pytest.mark.parametrize("sample", [500, 200_000])
@pytest.mark.parametrize("read", [from_disk, as_it_is], ids=["disk", "memory"])
def test_lightgbms_rows_have_the_bins_the_library_gives_all_of_them(sample, read, monkeypatch):
    """Of more rows than a sample the library chooses which; so do we, or models would differ."""
    lgb = pytest.importorskip("lightgbm")
    params = {"bin_construct_sample_cnt": sample, "max_bin": 63}
    job = make_job(early_stopping=None, params=params)
    train, valid = make_shard(3000), make_shard(500, seed=1)
    monkeypatch.setattr("ray_apps.shards.HELD_BYTES", 0)
    ours = fit("lightgbm", job, read(train), read(valid))
    table = pa.concat_tables(train.tables)
    raw = lgb.Booster(
        ours.params,
        lgb.Dataset(table, label=train.label, categorical_feature=[3], params=ours.params),
    )
    for _ in range(job.rounds):
        raw.update()
    trees = [text.partition("end of trees")[0] for text in (ours.model.decode(), _text(raw))]
    assert trees[0] == trees[1]


def _text(booster) -> str:
    lgb = pytest.importorskip("lightgbm")
    return lgb.Booster(model_str=booster.model_to_string()).model_to_string(num_iteration=-1)


def test_xgboost_is_not_left_on_cores_where_a_gpu_was_asked_for():
    """The library turns to them by itself, with a warning that nobody sees."""
    if load_trainer("xgboost").why_no_gpu() is None:
        pytest.skip("this build may find a GPU")
    train, valid = make_shard(400), make_shard(200, seed=1)
    with pytest.raises(EngineError, match=r"must train on a GPU, but found none .* took 'cpu'"):
        fit("xgboost", make_job(device="cuda"), train, valid)
    assert not load_trainer("xgboost").goes_on_exactly(make_job(device="cuda"))
    assert not load_trainer("torch").goes_on_exactly(make_job(device="cuda"))


@pytest.mark.parametrize("name", TREES)
def test_f1_judges_a_round_where_it_is_best(name):
    """Few scores of a rare class come near 0.5, where F1 would be 0 in the first rounds."""

    def rare(rows, seed):
        shard = make_shard(rows, seed=seed)
        rng = np.random.default_rng(seed)
        label = (shard.label == 1) & (rng.random(rows) < 0.04)
        return Shard(shard.tables, tuple(np.array_split(label.astype(np.float64), 4)))

    train, valid = rare(8000, 0), rare(4000, 1)
    job = make_job(metric="f1", rounds=25, early_stopping=None, params={"learning_rate": 0.2})
    seen = []
    trainer = load_trainer(name)
    data = trainer.prepare(train, valid, job, Alone())
    fitted = trainer.fit(data, job, Alone(), lambda history, _: seen.append(history[-1]) or True)
    assert min(seen) > 0.05
    assert len(set(seen)) > 5
    path_scores = np.concatenate([fitted_scores(trainer, fitted, t) for t in valid.tables])
    assert path_scores.mean() < 0.1
    threshold = best_f1_threshold(valid.label, path_scores)
    found = measure("binary", "f1", valid.label, path_scores, threshold=threshold)
    assert found == pytest.approx(fitted.valid, abs=1e-6)


def fitted_scores(trainer, fitted, table):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{trainer.suffix}"
        path.write_bytes(fitted.model)
        return trainer.load(path, threads=1).predict(dense(table))


@pytest.mark.parametrize(("other", "main"), [("l1", "regression_l1"), ("rmse", "regression")])
def test_another_name_of_an_objective_is_that_objective(other, main):
    train, valid = make_shard(500, task="regression"), make_shard(200, seed=1, task="regression")
    jobs = [make_job("regression", rounds=3, params={"objective": name}) for name in (other, main)]
    first, second = (fit("lightgbm", job, train, valid) for job in jobs)
    assert first.model == second.model
    assert first.params["objective"] == main
