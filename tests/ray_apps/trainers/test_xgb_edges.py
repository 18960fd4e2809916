"""Where bins end: the library's own edges of few values, even quantiles of many."""

from __future__ import annotations

import itertools
from functools import partial
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from ray_apps.gang import Alone
from ray_apps.shards import Shard
from ray_apps.trainers import load_trainer, xgb_edges
from ray_apps.trainers.xgb_edges import FAN_IN, LEAST, edges_of
from tests.ray_apps.gang.test_mesh import gang_of
from tests.ray_apps.trainers.test_trainers import go_on, make_job, make_shard

ROWS = 12_000


def shard_of(columns, parts=1):
    """Return columns of numbers, nulls for NaN, as a shard of some parts."""
    table = pa.table(
        {f"f{i}": pa.array(values, mask=np.isnan(values)) for i, values in enumerate(columns)}
    )
    pairs = itertools.pairwise(np.linspace(0, table.num_rows, parts + 1).astype(int))
    tables = tuple(table.slice(a, b - a) for a, b in pairs)
    return Shard(tables, tuple(np.zeros(len(one)) for one in tables))


def found_edges(columns, *, bins=256, parts=1, categorical=(), weights=None):
    params = {"max_bin": bins, "colsample_bytree": 0.5}  # no feature is shown twice
    job = make_job(categorical=categorical, params=params)
    edges = edges_of(shard_of(columns, parts), job, Alone(), weights)
    return cuts_of(edges.matrix(1))


def cuts_of(matrix):
    starts, values = matrix.get_quantile_cut()
    return [values[a:b] for a, b in itertools.pairwise(starts)]


def library_edges(columns, *, bins=256, categorical=()):
    types = ["c" if i in categorical else "q" for i in range(len(columns))]
    rows = np.stack(columns, axis=1)
    return cuts_of(
        xgb.QuantileDMatrix(
            rows, max_bin=bins, feature_types=types, enable_categorical=True, nthread=1
        )
    )


def shares(values, cuts, weights=None):
    """Return the share of the rows in each bin."""
    counts = np.bincount(np.searchsorted(cuts[1:], values, side="right"), weights=weights)
    return counts / counts.sum()


@pytest.mark.parametrize("bins", [2, 3, 16, 256, 300])
@pytest.mark.parametrize("parts", [1, 40])
def test_a_feature_of_no_more_values_than_bins_has_the_librarys_edges(bins, parts):
    rng = np.random.default_rng(bins)
    rare = np.where(np.arange(ROWS) == 7, 5, 0)
    code = rng.integers(0, 37, ROWS).astype(np.float32)
    columns = [
        rng.integers(0, bins, ROWS) / 7,
        -np.sort(rng.integers(0, min(bins, 9), ROWS)),
        rare,
        np.full(ROWS, 3.5),
        np.full(ROWS, np.nan),
        np.where(np.arange(ROWS) % 3, np.nan, rare),
        code,
        np.where(code > 20, np.nan, code),
        np.sort(code),
    ]
    columns = [values.astype(np.float32) for values in columns]
    found = found_edges(columns, bins=bins, parts=parts, categorical=(6, 7, 8))
    wanted = library_edges(columns, bins=bins, categorical=(6, 7, 8))
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        assert np.array_equal(ours, theirs), place


@pytest.mark.parametrize("bins", [2, 16, 256])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_rows_that_go_further_get_edges_behind_those_of_train(bins, share):
    """Where the last edge was, since the library takes what is behind it for the last bin."""
    rng = np.random.default_rng(bins)
    code = rng.integers(0, 37, ROWS)
    columns = [
        rng.standard_normal(ROWS),
        rng.integers(0, bins, ROWS) / 7,
        rng.integers(0, bins + 1, ROWS) / 7,
        rng.integers(0, bins - 1, ROWS) / 7,
        -1 - rng.random(ROWS),
        np.full(ROWS, 3.5),
        np.full(ROWS, 3e38),
        np.full(ROWS, np.nan),
        code,
    ]
    is_null = rng.random((len(columns) - 2, ROWS)) < share
    columns[:-2] = [np.where(n, np.nan, c) for n, c in zip(is_null, columns, strict=False)]
    columns = [values.astype(np.float32) for values in columns]
    job = make_job(categorical=(8,), params={"max_bin": bins})
    edges = edges_of(shard_of(columns), job, Alone())
    before = cuts_of(edges.matrix(1))
    tops = np.clip([cuts[-1] for cuts in before], None, 3.4e38, dtype=np.float32)
    short = np.nextafter(tops, np.float32(0))
    tops[-1], short[-1] = 44, 36
    assert edges.up_to(short) is edges
    wider = edges.up_to(tops)
    for name, old, new in zip(edges.names, before, cuts_of(wider.matrix(1)), strict=True):
        if name == "f8":
            assert np.array_equal(new, np.arange(45))
        elif name == "f6":  # nothing is greater
            assert np.array_equal(new, old)
        elif name != "f7":  # by which no tree splits
            assert np.array_equal(new[:-1], old), name


@pytest.mark.parametrize("parts", [1, FAN_IN - 1, FAN_IN, FAN_IN**2 + 1])
@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("bins", [4, 64, 256])
def test_bins_of_many_values_hold_the_same_share(bins, is_sorted, parts):
    """Also where rows come in order, so that parts are unlike each other."""
    values = np.random.default_rng(0).lognormal(0, 2, 300_000).astype(np.float32)
    values = np.sort(values) if is_sorted else values
    (cuts,) = found_edges([values], bins=bins, parts=parts)
    found = shares(values, cuts) * bins
    assert len(found) == bins
    assert found.max() < 1.35
    assert found.min() > 0.65


@pytest.mark.parametrize("parts", [1, 5, 40])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_values_of_many_rows_are_bins_and_the_others_share_the_rest(share, parts):
    rng = np.random.default_rng(3)
    values = rng.standard_normal(ROWS * 10).astype(np.float32)
    heavy = (-0.5, 0.25, 2.0)
    for value in heavy:
        values[rng.random(len(values)) < share] = value
    (cuts,) = found_edges([values], bins=100, parts=parts)
    assert 98 <= len(cuts) - 1 <= 101
    bins = np.searchsorted(cuts[1:], values, side="right")
    light = ~np.isin(values, np.float32(heavy))
    for value in heavy:
        beside = bins[light] == bins[values == np.float32(value)][0]
        assert beside.sum() <= 1.1 * light.sum() / 97  # at most a bin's worth
    assert shares(values[light], cuts).max() < 1.5 / 97


def test_a_row_of_weight_three_counts_as_three_rows():
    rng = np.random.default_rng(5)
    values = rng.standard_normal(ROWS).astype(np.float32)
    times = np.where(values > 0.5, 3, 1)
    (weighted,) = found_edges([values], bins=50, weights=times.astype(np.float32))
    (repeated,) = found_edges([np.repeat(values, times)], bins=50)
    assert np.array_equal(weighted, repeated)
    (plain,) = found_edges([values], bins=50)
    assert not np.array_equal(weighted, plain)


@pytest.mark.parametrize("parts", [1, 7, 40])
def test_bins_of_weighted_rows_hold_the_same_weight(parts):
    rng = np.random.default_rng(6)
    values = np.sort(rng.standard_normal(ROWS * 10)).astype(np.float32)
    weights = np.where(values > 1, 20, rng.choice([1, 2], len(values))).astype(np.float32)
    (cuts,) = found_edges([values], bins=64, parts=parts, weights=weights)
    found = shares(values, cuts, weights) * 64
    assert len(found) == 64
    assert abs(found - 1).max() < 0.35


@pytest.mark.parametrize("world", [2, 3])
def test_workers_have_the_same_edges_and_those_of_one(world):
    rng = np.random.default_rng(7)
    columns = [
        np.sort(rng.standard_normal(ROWS)),  # each worker sees other values
        rng.integers(0, 20, ROWS),
        np.sort(rng.integers(0, 30, ROWS)),  # and other codes
        np.where(np.arange(ROWS) < ROWS / world, np.nan, 1.0),  # and some none
    ]
    columns = [values.astype(np.float32) for values in columns]
    job = make_job(categorical=(2,), params={"max_bin": 64, "colsample_bytree": 0.5})
    pieces = [np.array_split(values, world) for values in columns]

    def work(mesh):
        mine = shard_of([piece[mesh.rank] for piece in pieces], parts=4)
        return edges_of(mine, job, mesh)

    first, *others = gang_of(world, work)
    for other in others:
        assert np.array_equal(first.rows, other.rows, equal_nan=True)
    assert np.nanmax(first.rows[:, 2]) == 29
    found = cuts_of(first.matrix(1))
    alone = found_edges(columns, bins=64, categorical=(2,))
    assert all(np.array_equal(found[i], alone[i]) for i in (1, 2, 3))
    assert abs(shares(columns[0], found[0]) * 64 - 1).max() < 0.35


@given(
    parts=st.lists(
        st.lists(st.floats(width=32, allow_infinity=False) | st.none(), max_size=40),
        min_size=1,
        max_size=20,
    ),
    bins=st.integers(2, 20),
    least=st.sampled_from([2, LEAST]),
)
def test_edges_go_from_the_least_to_the_greatest_value(parts, bins, least):
    with mock.patch.multiple(xgb_edges, STEPS=1, LEAST=least):
        check_edges(parts, bins)


def check_edges(parts, bins):
    columns = [pa.table({"f0": pa.array(part, pa.float32())}) for part in parts]
    labels = tuple(np.zeros(len(part)) for part in parts)
    job = make_job(categorical=(), params={"max_bin": bins})
    rows = edges_of(Shard(tuple(columns), labels), job, Alone()).rows[:, 0]
    told = np.float32([v for part in parts for v in part if v is not None])
    told = told[~np.isnan(told)]
    assert len(rows) <= bins + 1
    rows = rows[~np.isnan(rows)]
    assert (np.diff(rows) > 0).all()
    assert set(rows.tolist()) <= set(told.tolist())
    if len(told):
        assert (rows[0], rows[-1]) == (told.min(), told.max())
    if len(set(told.tolist())) <= bins:
        assert set(rows.tolist()) == set(told.tolist())


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_model_is_as_good_as_one_of_the_librarys_own_edges(task, monkeypatch):
    monkeypatch.setattr(xgb_edges, "MOST_NULLS", 0.0)
    train, valid = make_shard(60_000, task=task), make_shard(60_000, seed=1, task=task)
    job = make_job(task, rounds=40, early_stopping=None, params={"max_bin": 32})
    trainer = load_trainer("xgboost")
    ours = trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), go_on).valid
    sketched = partial(xgb.QuantileDMatrix, pa.concat_tables(train.tables), max_bin=32)
    kind = "ray_apps.trainers.xgb_edges.Edges.matrix"
    types = ["q", "q", "q", "c"]
    options = {"feature_types": types, "enable_categorical": True, "nthread": 1}
    monkeypatch.setattr(kind, lambda _self, _threads: sketched(**options))
    theirs = trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), go_on).valid
    assert ours != theirs, "the library's edges were not taken"
    assert ours == pytest.approx(theirs, rel=2e-3)
