"""Going on from a snapshot: the same bytes as without a stop, whatever is drawn by chance."""

from __future__ import annotations

import re

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from arclight.metrics import measure
from ray_apps.gang import Alone
from ray_apps.shards import Shard
from ray_apps.trainers import load_trainer
from ray_apps.trainers.boosting import BEGINNING, Snapshot
from tests.ray_apps.trainers.test_trainers import make_job, make_shard

ROUNDS = 18
SHARES = {
    "xgboost": {
        "all rows": {},
        "rows": {"subsample": 0.5},
        "rows by gradient": {"subsample": 0.5, "sampling_method": "gradient_based"},
        "columns of a tree": {"colsample_bytree": 0.6},
        "columns of a level": {"colsample_bylevel": 0.6},
        "columns of a node": {"colsample_bynode": 0.6},
        "a forest": {"num_parallel_tree": 3, "subsample": 0.6, "colsample_bynode": 0.6},
        "both": {"subsample": 0.7, "colsample_bytree": 0.7, "colsample_bynode": 0.7},
    },
    "torch": {
        "mlp": {"net": "mlp", "width": 16, "depth": 2, "batch_rows": 256},
        "resnet": {"net": "resnet", "width": 16, "depth": 2, "batch_rows": 256},
        "both": {"net": "ft_transformer", "width": 8, "heads": 2, "depth": 1, "batch_rows": 512},
    },
    "lightgbm": {
        "all rows": {},
        "rows": {"bagging_fraction": 0.5, "bagging_freq": 1},
        "rows, another name": {"subsample": 0.37, "subsample_freq": 3, "bagging_seed": 5},
        "rows of a class": {
            "pos_bagging_fraction": 0.5, "neg_bagging_fraction": 0.8, "bagging_freq": 1,
        },
        "columns of a tree": {"feature_fraction": 0.6},
        "columns of a node": {"feature_fraction_bynode": 0.6},
        "thresholds": {"extra_trees": True},
        "linear leaves": {"linear_tree": True},
        "both": {
            "bagging_fraction": 0.6, "bagging_freq": 2, "feature_fraction": 0.6,
            "extra_trees": True,
        },
    },
}  # fmt: skip
CASES = [(name, how) for name, hows in SHARES.items() for how in hows]


def grow(name, job, train, valid, *, start=BEGINNING, leave=0):
    """Train from a snapshot, and return the model with what was there after `leave` rounds."""
    trainer = load_trainer(name)
    trainer.check_params(job)
    left: list[Snapshot] = []

    def watch(history, model) -> bool:
        if len(history) >= leave > 0 and model is not None:
            left.append(Snapshot(model(), tuple(history)))
            return False
        return True

    data = trainer.prepare(train, valid, job, Alone(), start)
    return trainer.fit(data, job, Alone(), watch), left


@pytest.mark.parametrize(("name", "how"), CASES)
def test_T7_a_training_that_went_on_gives_the_bytes_of_one_that_never_stopped(name, how):
    job = make_job(rounds=ROUNDS, early_stopping=None, params=SHARES[name][how], threads=2)
    assert load_trainer(name).goes_on_exactly(job)
    train, valid = make_shard(3000), make_shard(500, seed=1)
    whole, _ = grow(name, job, train, valid)
    assert whole.rounds == ROUNDS
    start = BEGINNING
    for leave in (1, 7, 13):  # three stops in one training
        _, (start,) = grow(name, job, train, valid, start=start, leave=leave)
    again, _ = grow(name, job, train, valid, start=start)
    assert again.model == whole.model
    assert again == whole


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("name", SHARES)
def test_T7_of_the_other_tasks(name, task):
    job = make_job(task, rounds=ROUNDS, early_stopping=None, params=SHARES[name]["both"])
    train, valid = make_shard(2000, task=task), make_shard(500, seed=1, task=task)
    whole, _ = grow(name, job, train, valid)
    _, (start,) = grow(name, job, train, valid, leave=6)
    assert grow(name, job, train, valid, start=start)[0] == whole


def test_T7_of_a_score_to_start_at_that_the_spec_names():
    params = {"base_score": 0.3, "colsample_bynode": 0.5}
    job = make_job("multiclass", rounds=6, early_stopping=None, params=params)
    train, valid = make_shard(600, task="multiclass"), make_shard(200, seed=1, task="multiclass")
    whole, _ = grow("xgboost", job, train, valid)
    _, (start,) = grow("xgboost", job, train, valid, leave=3)
    assert grow("xgboost", job, train, valid, start=start)[0] == whole


@pytest.mark.parametrize("name", SHARES)
def test_rows_are_drawn_by_chance_and_by_the_seed(name):
    """Else the same bytes above would show nothing."""
    params = SHARES[name]["both"]
    train, valid = make_shard(2000), make_shard(500, seed=1)

    def model(**changes) -> bytes:
        job = make_job(rounds=6, early_stopping=None, **{"params": params, **changes})
        return grow(name, job, train, valid)[0].model

    assert model() == model()
    assert len({model(), model(seed=4), model(params={})}) == 3


@pytest.mark.parametrize(
    ("name", "how"), [(n, h) for n in SHARES for h in ("all rows", "both") if h in SHARES[n]]
)
def test_a_training_that_was_over_when_it_stopped_adds_no_round(name, how):
    train, valid = make_shard(400), make_shard(300, seed=1)
    params = {**SHARES[name][how], "learning_rate": 0.1 if name == "torch" else 0.6}
    if "bagging_freq" in params:
        params["bagging_freq"] = 1  # so that it may go on from every round
    job = make_job(rounds=60, metric="log_loss", params=params)
    whole, _ = grow(name, job, train, valid)
    seen: list[Snapshot] = []

    def last(history, model) -> bool:
        seen[:] = [Snapshot(model(), tuple(history))]
        return True

    trainer = load_trainer(name)
    trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), last)
    (start,) = seen
    assert whole.rounds < len(start.history) < 60

    def never(*_) -> bool:
        raise AssertionError

    data = trainer.prepare(train, valid, job, Alone(), start)
    assert trainer.fit(data, job, Alone(), never) == whole


def test_what_cannot_go_on_exactly_says_so():
    trainer = load_trainer("lightgbm")
    for params in (
        {"data_sample_strategy": "GOSS"},
        {"use_quantized_grad": True},
        {"enable_bundle": True},
    ):
        job = make_job(rounds=12, early_stopping=None, params=params)
        assert not trainer.goes_on_exactly(job)
        train, valid = make_shard(3000), make_shard(500, seed=1)
        whole, _ = grow("lightgbm", job, train, valid)
        _, (start,) = grow("lightgbm", job, train, valid, leave=6)
        again, _ = grow("lightgbm", job, train, valid, start=start)
        assert again.rounds == whole.rounds
        assert again.valid == pytest.approx(whole.valid, abs=0.02)


def test_nothing_is_set_twice_between_rounds_of_goss(monkeypatch):
    """The library frees the rows that it drew when it is set, and reads them when it is again."""
    job = make_job(rounds=12, early_stopping=None, params={"data_sample_strategy": "goss"})
    calls = []
    for name in ("reset_parameter", "update"):
        own = getattr(lgb.Booster, name)
        monkeypatch.setattr(
            lgb.Booster, name, lambda *a, own=own, name=name: [calls.append(name), own(*a)][1]
        )

    def saved(_, model) -> bool:
        return bool(model())

    trainer = load_trainer("lightgbm")
    data = trainer.prepare(make_shard(3000), make_shard(500, seed=1), job, Alone())
    trainer.fit(data, job, Alone(), saved)
    assert calls == ["reset_parameter", "update"] * 12


def test_a_bag_that_is_kept_for_rounds_is_not_left_in_between():
    """LightGBM counts rounds from 0 again, and with them the ones that draw a bag."""
    job = make_job(rounds=9, early_stopping=None, params=SHARES["lightgbm"]["rows, another name"])
    seen = []

    def watch(history, model) -> bool:
        seen.append((len(history), model is not None))
        return True

    trainer = load_trainer("lightgbm")
    data = trainer.prepare(make_shard(900), make_shard(200, seed=1), job, Alone())
    trainer.fit(data, job, Alone(), watch)
    assert [done for done, is_there in seen if is_there] == [3, 6, 9]


@pytest.mark.parametrize("by_class", [{"pos_bagging_fraction": 1.0}, {"neg_bagging_fraction": 1}])
def test_a_share_of_1_of_a_class_leaves_bags_as_they_are(by_class):
    """They had all rows: the library once drew by class, and went on to."""
    params = {"bagging_fraction": 0.5, "bagging_freq": 1}
    train, valid = make_shard(2000), make_shard(300, seed=1)
    plain, named = (
        grow("lightgbm", make_job(rounds=4, early_stopping=None, params=p), train, valid)[0]
        for p in (params, params | by_class)
    )
    counts = re.findall(r"internal_count=(\d+)", named.model.decode())
    assert [int(count) for count in counts] == pytest.approx([1000] * 4, rel=0.1)
    assert named.model == plain.model


def test_T7_of_sparse_numbers_and_of_trees_without_a_split():
    """LightGBM lays sparse features together, and writes a tree of one leaf in two ways."""
    rng = np.random.default_rng(0)
    sparse = np.zeros((20_000, 6), np.float32)
    place = rng.integers(0, 9, 20_000)
    for column in range(6):
        sparse[place == column, column] = rng.standard_normal((place == column).sum())
    sparse[:4, :2] = 1.0  # rows in which two of them are set at once
    label = (sparse.sum(1) + 0.1 * rng.standard_normal(20_000) > 0.2).astype(np.float64)
    rare = np.where(np.arange(20_000) % 5000 == 0, 2.0, label)
    table = pa.table({f"f{i}": sparse[:, i] for i in range(6)})
    for task, y, params in (
        ("binary", label, {}),
        (
            "multiclass",
            rare,
            {"min_gain_to_split": 1.0, "bagging_fraction": 0.9, "bagging_freq": 1},
        ),
    ):
        train, valid = Shard((table,), (y,)), Shard((table[:3000],), (y[:3000],))
        job = make_job(task, categorical=(), rounds=30, early_stopping=None, params=params)
        whole, _ = grow("lightgbm", job, train, valid)
        _, (start,) = grow("lightgbm", job, train, valid, leave=15)
        assert grow("lightgbm", job, train, valid, start=start)[0] == whole


RARE = {"feature_fraction": 0.17, "min_data_in_leaf": 100, "learning_rate": 0.05}


def rare_flags(rows, *, seed=0):
    """Return rows in which most features are flags too rare to be split by."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, rows)).astype(np.float32)
    flags = (rng.random((9, rows)) < 0.002).astype(np.float32)
    label = (x.sum(0) + 2 * rng.standard_normal(rows) > 0).astype(np.float64)
    columns = {f"f{i}": column for i, column in enumerate([*x, *flags])}
    return Shard((pa.table(columns),), (label,))


def test_the_best_round_is_kept_where_some_have_no_split():
    """LightGBM leaves those out of the model, so that its rounds are fewer than ours."""
    train, valid = rare_flags(4000), rare_flags(2000, seed=1)
    params = {**RARE, "learning_rate": 0.3}
    job = make_job(categorical=(), metric="log_loss", rounds=150, early_stopping=15, params=params)
    history = []

    def watch(found, _):
        history[:] = found
        return True

    trainer = load_trainer("lightgbm")
    fitted = trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), watch)
    kept = history.index(fitted.valid) + 1
    assert len(set(history[:kept])) < kept - 2  # there were some
    assert len(set(history)) > len(set(history[:kept])) + 2  # and trees after the best one
    assert fitted.rounds < kept
    booster = lgb.Booster(model_str=fitted.model.decode())
    scores = booster.predict(valid.tables[0])
    assert measure("binary", "log_loss", valid.label, scores) == pytest.approx(fitted.valid)


def test_T7_a_training_with_rounds_without_a_split_goes_on_from_any():
    train, valid = rare_flags(4000), rare_flags(2000, seed=1)
    job = make_job(categorical=(), rounds=40, early_stopping=None, params=RARE)
    whole, _ = grow("lightgbm", job, train, valid)
    assert whole.rounds < 30
    start = BEGINNING
    for leave in range(3, 40, 4):
        _, (start,) = grow("lightgbm", job, train, valid, start=start, leave=leave)
        assert len(start.history) == leave
    assert grow("lightgbm", job, train, valid, start=start)[0] == whole


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_bins_of_another_number(name):
    job = make_job(rounds=8, early_stopping=None, params={"max_bin": 32})
    train, valid = make_shard(2000), make_shard(500, seed=1)
    whole, _ = grow(name, job, train, valid)
    _, (start,) = grow(name, job, train, valid, leave=4)
    assert grow(name, job, train, valid, start=start)[0] == whole
