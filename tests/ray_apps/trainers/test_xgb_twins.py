"""Features shown twice: the model is the one that the library makes of rows with nulls."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xgboost as xgb

from ray_apps.gang import Alone
from ray_apps.shards import Shard, dense
from ray_apps.trainers import load_trainer, xgb_edges
from ray_apps.trainers.boosting import Snapshot
from ray_apps.trainers.xgb_edges import edges_of
from ray_apps.trainers.xgb_trees import as_json, as_ubj, booster_of
from ray_apps.trainers.xgb_twins import may_have_twins
from tests.ray_apps.gang.test_mesh import gang_of
from tests.ray_apps.trainers.test_trainers import _value, go_on, load, make_job, make_shard

ROWS = 6000


def make_rows(seed, *, levels=8, code_nulls=0.0, new_level=False):
    """Numbers of few values with some nulls that matter, a number without any, a category."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (ROWS, 3)).astype(np.float32)
    is_null = rng.random((ROWS, 3)) < (0.04, 0.06, 0)
    code = rng.integers(0, levels, ROWS)
    no_code = rng.random(ROWS) < code_nulls
    z = x[:, 0] / 20 + is_null[:, 0] * 1.5 - is_null[:, 1] * 2 + np.isin(code, (1, 2, 5)) - 1.5
    z += no_code * 2.0
    label = (z + rng.standard_normal(ROWS) > 0).astype(np.float64)
    if new_level:
        code[::50] = levels  # the code that nulls have as one
        no_code[1::50] = True
    columns = [pa.array(x[:, i], mask=is_null[:, i]) for i in range(3)]
    columns.append(pa.array(code, pa.int32(), mask=no_code))
    table = pa.table(columns, names=["f0", "f1", "f2", "f3"])
    pairs = list(itertools.pairwise(np.linspace(0, ROWS, 4).astype(int)))
    return Shard(
        tuple(table.slice(a, b - a) for a, b in pairs), tuple(label[a:b] for a, b in pairs)
    )


def trained(job, train, valid, start=Snapshot()):  # noqa: B008 -- a frozen value
    trainer = load_trainer("xgboost")
    data = trainer.prepare(train, valid, job, Alone(), start)
    return data.twins is not None, trainer.fit(data, job, Alone(), go_on)


def trees(model):
    body = as_json(booster_of(model))
    found = body["learner"]["gradient_booster"]["model"]["trees"]
    names = ("split_indices", "left_children", "categories", "categories_nodes")
    return [{name: tree[name] for name in names} for tree in found]


def splits_of(model, feature):
    """Return (edge, whether nulls go to the left) of each split by a feature."""
    body = as_json(booster_of(model))
    return {
        (round(tree["split_conditions"][node], 4), tree["default_left"][node])
        for tree in body["learner"]["gradient_booster"]["model"]["trees"]
        for node, child in enumerate(tree["left_children"])
        if child >= 0 and tree["split_indices"][node] == feature
    }


@pytest.mark.parametrize("params", [{}, {"max_leaves": 9, "grow_policy": "lossguide"}])
def test_the_trees_are_those_of_rows_with_nulls(params, monkeypatch):
    train, valid = make_rows(0), make_rows(1)
    job = make_job(rounds=12, early_stopping=None, params={"max_depth": 4, **params})
    has_twins, ours = trained(job, train, valid)
    assert has_twins
    monkeypatch.setattr(xgb_edges, "MOST_NULLS", 0.0)
    has_twins, theirs = trained(job, train, valid)
    assert not has_twins
    assert trees(ours.model) == trees(theirs.model)
    for feature in (0, 1):  # nulls of both go to either side
        found = splits_of(ours.model, feature)
        assert found == splits_of(theirs.model, feature)
        assert {to_left for _, to_left in found} == {0, 1}
    assert ours.valid == pytest.approx(theirs.valid, abs=1e-6)
    matrix = dense(pa.concat_tables(valid.tables))
    scores = [
        xgb.Booster(model_file=bytearray(one.model)).inplace_predict(matrix, missing=np.nan)
        for one in (ours, theirs)
    ]
    assert np.abs(scores[0] - scores[1]).max() < 1e-5


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
@pytest.mark.parametrize("place", ["memory", "large", "disk"])
def test_null_categories_and_new_levels_are_judged_as_they_will_be_scored(
    place, metric, tmp_path, monkeypatch
):
    if place == "large":
        monkeypatch.setattr("ray_apps.trainers.xgb_bins.JUDGED_BYTES", 0)
    folder = tmp_path / "bins" if place == "disk" else None
    job = replace(make_job(metric=metric, rounds=12, early_stopping=None), bins_folder=folder)
    for has_new in (False, True):
        train, valid = make_rows(0, code_nulls=0.05), make_rows(1, new_level=has_new)
        has_twins, fitted = trained(job, train, valid)
        assert has_twins
        scores = load("xgboost", fitted, tmp_path).predict(dense(pa.concat_tables(valid.tables)))
        assert fitted.valid == pytest.approx(_value(job, valid, scores), abs=1e-6)


@pytest.mark.parametrize("max_bin", [16, 256])
@pytest.mark.parametrize("has_twins", [True, False])
@pytest.mark.parametrize("place", ["memory", "large", "disk"])
def test_values_far_behind_those_of_train_are_judged_as_they_will_be_scored(
    place, has_twins, max_bin, tmp_path, monkeypatch
):
    """The library scores a value of twice train's greatest and more as it scores nulls."""
    if place == "large":
        monkeypatch.setattr("ray_apps.trainers.xgb_bins.JUDGED_BYTES", 0)
    if not has_twins:
        monkeypatch.setattr(xgb_edges, "MOST_NULLS", 0.0)
    train, valid = make_rows(0, code_nulls=0.05), make_rows(1, code_nulls=0.05)
    label = np.where(pa.concat_tables(train.tables)["f0"].is_null(), 1.0, train.label)
    train = Shard(train.tables, tuple(np.split(label, 3)))

    def far(table):
        numbers = pc.if_else(pc.greater(table["f0"], 1.0), 100.0, table["f0"])
        return table.set_column(0, "f0", pc.cast(numbers, pa.float32()))

    valid = Shard(tuple(map(far, valid.tables)), valid.labels)
    folder = tmp_path / "bins" if place == "disk" else None
    job = make_job(metric="log_loss", rounds=12, early_stopping=None, params={"max_bin": max_bin})
    found, fitted = trained(replace(job, bins_folder=folder), train, valid)
    assert found == has_twins
    scores = load("xgboost", fitted, tmp_path).predict(dense(pa.concat_tables(valid.tables)))
    assert fitted.valid == pytest.approx(_value(job, valid, scores), abs=1e-6)


def test_where_only_null_categories_go_to_the_right_a_code_that_no_level_has_stands(tmp_path):
    train = make_rows(0, code_nulls=0.06, levels=2)
    is_null = pa.concat_tables(train.tables)["f3"].is_null().to_numpy()
    labels = tuple(np.split(is_null.astype(np.float64), 3))
    train = Shard(train.tables, labels)
    job = make_job(rounds=3, early_stopping=None, params={"max_depth": 2}, codes=(3,))
    has_twins, fitted = trained(job, train, train)
    assert has_twins
    assert any(tree["categories"] == [3] for tree in trees(fitted.model))
    scores = load("xgboost", fitted, tmp_path).predict(dense(pa.concat_tables(train.tables)))
    assert scores[is_null].min() > scores[~is_null].max()
    assert fitted.valid == 1.0


def test_a_folded_model_comes_back_as_it_was():
    train = make_rows(0, code_nulls=0.05)
    job = make_job(rounds=6, early_stopping=None)
    _, fitted = trained(job, train, train)
    twins = edges_of(train, job, Alone()).twins
    columns = twins.unfolded(fitted.model)
    assert twins.folded(columns) == fitted.model
    rows, more = pa.concat_tables(train.tables), booster_of(columns)
    assert more.num_features() == 6
    shown = twins.table(rows)
    assert not any(column.null_count for column in shown.columns)
    types = ["c" if name == "f3" else "q" for name in shown.column_names]
    ours = more.predict(xgb.DMatrix(shown, feature_types=types, enable_categorical=True))
    plain = booster_of(fitted.model).inplace_predict(dense(rows), missing=np.nan)
    assert np.array_equal(ours, plain)
    names = json.loads(booster_of(fitted.model).save_raw("json"))["learner"]["feature_names"]
    assert names == ["f0", "f1", "f2", "f3"]


def test_a_training_goes_on_to_the_same_bytes():
    train, valid = make_rows(0, code_nulls=0.05), make_rows(1)
    job = make_job(rounds=10, early_stopping=None, params={"subsample": 0.7})
    trainer, snapshots = load_trainer("xgboost"), []

    def keep(history, model):
        snapshots.append(Snapshot(model(), tuple(history)))
        return True

    data = trainer.prepare(train, valid, job, Alone())
    whole = trainer.fit(data, job, Alone(), keep)
    assert data.twins is not None
    for snapshot in (snapshots[0], snapshots[6]):
        assert trained(job, train, valid, snapshot)[1] == whole


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"params": {"subsample": 0.5, "colsample_bytree": 1.0}}, True),
        ({"params": {"colsample_bytree": 0.9}}, False),
        ({"params": {"colsample_bynode": 0.9}}, False),
        ({"params": {"monotone_constraints": "(1,0,0,0)"}}, False),
        ({"params": {"interaction_constraints": "[[0,1]]"}}, False),
        ({"params": {"max_cat_to_onehot": 4}}, False),
        ({"params": {"max_bin": 15}}, False),
        ({"params": {"max_bin": 16}}, True),
        ({"device": "cuda"}, False),
        ({"categorical": ()}, False),
    ],
)
def test_only_where_parameters_speak_of_no_feature(changes, allowed):
    assert may_have_twins(make_job(**changes)) is allowed


def test_rows_of_many_nulls_or_none_or_without_an_end_are_shown_as_they_are():
    job, rows = make_job(categorical=(1,)), 1000
    code = pa.array(np.arange(rows) % 5, pa.int32())

    def has_twins(values, mask):
        column = pa.array(np.asarray(values, np.float32), mask=mask)
        table = pa.table({"f0": column, "f1": code, "f2": column})
        return edges_of(Shard((table,), (np.zeros(rows),)), job, Alone()).twins is not None

    few, values = np.arange(rows) < 440, np.arange(rows)
    assert has_twins(values, few)
    assert not has_twins(values, np.arange(rows) < 460)
    assert not has_twins(values, np.zeros(rows, bool))
    assert not has_twins(values * 3e35, few)  # nothing is above the greatest


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("bins", [16, 256])
def test_more_values_than_bins_are_judged_as_scored_and_as_good_as_rows_with_nulls(
    task, bins, tmp_path, monkeypatch
):
    train, valid = make_shard(20_000, task=task), make_shard(20_000, seed=1, task=task)
    params = {"max_bin": bins, "num_parallel_tree": 2, "subsample": 0.8}
    job = make_job(task, rounds=15, early_stopping=None, params=params)
    has_twins, ours = trained(job, train, valid)
    assert has_twins
    scores = load("xgboost", ours, tmp_path).predict(dense(pa.concat_tables(valid.tables)))
    assert ours.valid == pytest.approx(_value(job, valid, scores), rel=2e-6)
    monkeypatch.setattr(xgb_edges, "MOST_NULLS", 0.0)
    assert ours.valid == pytest.approx(trained(job, train, valid)[1].valid, rel=5e-3)


def test_both_twins_have_the_same_edges():
    edges = edges_of(make_shard(20_000), make_job(params={"max_bin": 32}), Alone())
    starts, values = edges.matrix(1).get_quantile_cut()
    cuts = {name: values[a:b] for name, a, b in zip(edges.names, starts, starts[1:], strict=False)}
    assert np.array_equal(cuts["f0high"][1:], cuts["f0low"][1:])
    assert len(cuts["f0high"]) == 33
    assert edges.twins.high[0] in cuts["f0high"]


def test_features_that_are_always_null_stay_out_of_the_trees(tmp_path, monkeypatch):
    monkeypatch.setattr(xgb_edges, "MOST_NULLS", 0.5)
    train, valid = make_rows(0), make_rows(1)
    nothing, no_code = pa.nulls(ROWS, pa.float32()), pa.nulls(ROWS, pa.int32())

    def widened(shard, number=nothing, code=no_code):
        table = pa.concat_tables(shard.tables)
        table = table.append_column("f4", number).append_column("f5", code)
        return Shard((table,), (shard.label,))

    job = make_job(rounds=8, early_stopping=None, categorical=(3, 5))
    rest = pa.array(np.arange(ROWS) % 3, pa.int32())
    for other in (widened(valid), widened(valid, pc.cast(rest, pa.float32()), rest)):
        has_twins, fitted = trained(job, widened(train), other)
        assert has_twins
        used = {i for tree in trees(fitted.model) for i in tree["split_indices"]}
        assert used <= {0, 1, 2, 3}
        scores = load("xgboost", fitted, tmp_path).predict(dense(pa.concat_tables(other.tables)))
        assert fitted.valid == pytest.approx(_value(job, other, scores), abs=1e-6)


def test_two_workers_one_of_which_has_nothing_but_nulls_of_a_feature():
    train, valid = make_rows(0), make_rows(1)
    table = pa.concat_tables(train.tables)
    mine = np.arange(ROWS) < ROWS // 4
    table = table.set_column(
        1, "f1", pa.array(table["f1"].to_numpy(), mask=mine | table["f1"].is_null().to_numpy())
    )
    parts = [table.filter(pa.array(mine)), table.filter(pa.array(~mine))]
    labels = [train.label[mine], train.label[~mine]]
    job = make_job(rounds=6, early_stopping=None, metric="log_loss")

    def work(mesh):
        own = Shard((parts[mesh.rank],), (labels[mesh.rank],))
        other = Shard(valid.tables[mesh.rank :: 2], valid.labels[mesh.rank :: 2])
        trainer = load_trainer("xgboost")
        data = trainer.prepare(own, other, job, mesh)
        return data.twins is not None, trainer.fit(data, job, mesh, go_on)

    (has_twins, first), (_, second) = gang_of(2, work)
    assert has_twins
    assert first.model == second.model
    alone = trained(job, Shard(tuple(parts), tuple(labels)), valid)[1]
    assert first.valid == pytest.approx(alone.valid, rel=1e-4)


def test_a_model_that_columns_cannot_have_goes_on_with_rows_as_they_are():
    train, valid = make_rows(0), make_rows(1)
    job = make_job(rounds=4, early_stopping=None)
    _, fitted = trained(job, train, valid)
    body = as_json(booster_of(fitted.model))
    tree = body["learner"]["gradient_booster"]["model"]["trees"][0]
    node = tree["split_indices"].index(0)
    tree["split_conditions"][node], tree["default_left"][node] = -1.0, 1  # nulls alone to the left
    assert not edges_of(train, job, Alone()).twins.can_unfold(as_ubj(body))
    start = Snapshot(as_ubj(body), (0.5,) * 4)
    has_twins, longer = trained(replace(job, rounds=6), train, valid, start)
    assert not has_twins
    assert longer.rounds == 6


def test_a_constant_with_nulls_splits_into_both():
    train = make_rows(0)
    table = pa.concat_tables(train.tables)
    mask = table["f0"].is_null().to_numpy()
    table = table.set_column(0, "f0", pa.array(np.full(ROWS, 3, np.float32), mask=mask))
    train = Shard((table,), (mask.astype(np.float64),))
    job = make_job(rounds=2, early_stopping=None)
    has_twins, fitted = trained(job, train, train)
    assert has_twins
    assert fitted.valid == 1.0
