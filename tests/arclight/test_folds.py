"""Folds keep what the split keeps: groups together, time in order, every row judged once."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from arclight.bundle import CrossValidation, FoldFigure
from arclight.errors import SpecError
from arclight.folds import FoldRule, fold_of, fold_rule, fold_starts, row_places
from arclight.manifest import SplitProof
from arclight.schema import TIMESTAMP, Column
from arclight.spec import Etl, HashSplit, Source, Spec, TimeSplit
from arclight.train_section import Train
from tests.arclight.made_records import make_manifest

ROWS = 6000
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def table(seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    hours = rng.integers(0, 5000, ROWS)
    return pa.record_batch(
        {
            "id": pa.array(np.arange(ROWS)),
            "shop": pa.array(rng.integers(0, 300, ROWS), mask=rng.random(ROWS) < 0.1),
            "at": pa.array([START + dt.timedelta(hours=int(h)) for h in hours], TIMESTAMP),
        }
    )


def spec_of(split, folds=4) -> Spec:
    return Spec(
        name="demo",
        task="binary",
        sources={"t": Source(path="data")},
        etl=Etl(key=("id",), time="at", label="label", split=split),
        train=Train(folds=folds, seed=7),
    )


def manifest_of(split):
    """Return a record of a dataset that was split so."""
    by_time, group = isinstance(split, TimeSplit), getattr(split, "group", ())
    proof = SplitProof(
        keys=ROWS,
        repeated_keys=0,
        bounds={"train": ("2024", "2025")} if by_time else {},
        groups={"train": 300} if group else {},
        group_columns=("shop",) if group else (),
    )
    there = tuple(Column(name=name, type="int64") for name in ("id", "shop", "at"))
    update = {"key_columns": ("id",), "time_column": "at", "proof": proof, "columns": there}
    return make_manifest().model_copy(update=update)


def folds_of(rule: FoldRule, rows: pa.RecordBatch):
    places = row_places(rule, rows)
    starts = fold_starts(rule, places)
    return [fold_of(rule, places, starts, number) for number in range(rule.count)]


def rule_of(split, folds=4) -> FoldRule:
    rule = fold_rule(spec_of(split, folds), manifest_of(split))
    assert rule is not None
    return rule


@pytest.mark.parametrize("group", [(), ("shop",)])
def test_by_hash_every_row_is_judged_once_and_never_by_what_learned_from_it(group):
    rule = rule_of(HashSplit(by="hash", group=group))
    assert rule.by == ("group" if group else "key")
    found = folds_of(rule, table())
    assert (sum(fold.judge.astype(int) for fold in found) == 1).all()
    for fold in found:
        assert (fold.learn == ~fold.judge).all()
        assert 0.18 < fold.judge.mean() < 0.32


def test_rows_of_a_group_stay_together_and_rows_of_none_do_not():
    rows = table()
    found = folds_of(rule_of(HashSplit(by="hash", group=("shop",))), rows)
    shops = rows.column("shop").to_numpy(zero_copy_only=False)
    for fold in found:
        judged, learned = set(shops[fold.judge]), set(shops[fold.learn])
        assert {s for s in judged & learned if not np.isnan(s)} == set()
    alone = np.isnan(shops)
    assert all(0.15 < fold.judge[alone].mean() < 0.35 for fold in found)


def test_folds_do_not_depend_on_the_order_of_rows_but_on_the_seed():
    rows, rule = table(), rule_of(HashSplit(by="hash"))
    order = np.random.default_rng(1).permutation(ROWS)
    places = row_places(rule, rows)
    assert (row_places(rule, rows.take(pa.array(order))) == places[order]).all()
    other = rule.model_copy(update={"seed": 8})
    assert (row_places(other, rows) != places).mean() > 0.5


def test_folds_do_not_follow_the_hash_that_chose_train():
    """Else, with a split's seed, folds would be slices of train's own hash."""
    from arclight.split import split_by_hash

    rows = table()
    split = HashSplit(by="hash", train=0.5, valid=0.25, test=0.25, seed=7)
    codes = split_by_hash(split, [rows.column("id")])
    places = row_places(rule_of(split), rows)
    shares = [
        np.bincount(places[codes == code], minlength=4) / sum(codes == code) for code in (0, 1)
    ]
    assert np.abs(np.array(shares) - 0.25).max() < 0.05


@pytest.mark.parametrize("gap", ["0s", "30d"])
def test_by_time_a_fold_learns_from_what_came_before(gap):
    split = TimeSplit(by="time", valid_from="2025-01-01", test_from="2025-06-01", gap=gap)
    rows = table()
    found = folds_of(rule_of(split), rows)
    at = rows.column("at").cast(pa.int64()).to_numpy()
    days = 30 if gap == "30d" else 0
    judged = np.zeros(ROWS, dtype=int)
    for fold in found:
        judged += fold.judge
        assert at[fold.learn].max() < at[fold.judge].min() - days * 86_400 * 10**6
        assert 0.15 < fold.judge.mean() < 0.25
    assert judged.max() == 1
    assert judged.sum() == pytest.approx(ROWS * 4 / 5, rel=0.01)
    assert [int(fold.learn.sum()) for fold in found] == sorted(int(f.learn.sum()) for f in found)


def test_without_folds_there_is_no_rule():
    split = HashSplit(by="hash")
    assert fold_rule(spec_of(split, None), manifest_of(split)) is None


def test_another_group_than_the_datasets_is_refused():
    split = HashSplit(by="hash", group=("customer",))
    with pytest.raises(SpecError, match=r"by group \(shop\), .* by group \(customer\); run"):
        fold_rule(spec_of(split), manifest_of(split))


def test_a_cross_validation_is_said_in_a_few_words():
    folds = tuple(FoldFigure(learned=3, judged=1, value=v) for v in (0.5, 0.6, 0.7))
    rule = rule_of(HashSplit(by="hash"))
    found = CrossValidation(rule=rule, folds=folds)
    assert str(found) == "0.6000 ± 0.1000 over 3 folds by key (0.5000 to 0.7000)"
    none = FoldFigure(learned=3, judged=1, value=None, reason="metric 'r2' is undefined.")
    found = CrossValidation(rule=rule, folds=(*folds, none))
    assert str(found) == "0.6000 ± 0.1000 over 3 of 4 folds by key (0.5000 to 0.7000)"
    assert str(CrossValidation(rule=rule, folds=(none,))) == "a figure of 0 of 1 folds by key"
