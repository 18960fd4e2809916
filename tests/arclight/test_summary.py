from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight import summary
from arclight.summary import (
    CategoryBuilder,
    ColumnSummary,
    Level,
    Moments,
    NumberBuilder,
    make_builder,
    merge_summaries,
)

RNG = np.random.default_rng(5)
Rows = list[tuple[object, float]]


def summarize(kind: str, rows: Rows, batch: int = 1000) -> ColumnSummary:
    builder = make_builder("c", kind)  # type: ignore[arg-type]
    arrow = pa.float32() if kind == "number" else pa.string()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        label = np.array([y for _, y in part], dtype=np.float64)
        builder.add(pa.array([x for x, _ in part], arrow), label)
    return builder.freeze()


def same(one: ColumnSummary, other: ColumnSummary) -> None:
    """Check that two summaries are one: counts exactly, moments to 1e-9."""
    fuzzy = {"moments", "sketch", "levels"}
    assert one.model_dump(exclude=fuzzy) == other.model_dump(exclude=fuzzy)
    assert [(lv.value, lv.count) for lv in one.levels] == [
        (lv.value, lv.count) for lv in other.levels
    ]
    for left, right in zip(one.levels, other.levels, strict=True):
        assert left.label_sum == pytest.approx(right.label_sum, rel=1e-9, abs=1e-9)
    assert one.sketch == other.sketch
    a, b = one.moments, other.moments
    assert a.count == b.count
    for name in ("mean", "label_mean"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9, abs=1e-9)
    scale = 1e-9 * (1 + a.m2 + a.label_m2)
    for name in ("m2", "label_m2", "co_m2"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9, abs=scale)


NUMBERS = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))
LEVELS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "🚀", "x" * 257, "c\0"]))


@pytest.mark.parametrize(("kind", "values"), [("number", NUMBERS), ("category", LEVELS)])
@settings(max_examples=50)
@given(data=st.data())
def test_merging_any_partition_is_one_pass(kind: str, values: object, data: st.DataObject):
    rows = data.draw(st.lists(st.tuples(values, st.floats(-100, 100, width=32)), max_size=60))  # type: ignore[call-overload]
    cuts = sorted(data.draw(st.lists(st.integers(0, 60), max_size=4)))
    bounds = [0, *(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [summarize(kind, rows[a:b], 7) for a, b in itertools.pairwise(bounds)]
    whole = summarize(kind, rows)
    same(merge_summaries(parts), whole)
    if len(parts) > 1:
        same(merge_summaries([parts[0], merge_summaries(parts[1:])]), whole)
    assert merge_summaries(parts).rows == len(rows)


@settings(max_examples=50)
@given(st.lists(st.tuples(LEVELS, st.floats(-100, 100, width=32)), max_size=60))
def test_a_category_s_counts_add_up(rows: Rows):
    found = summarize("category", rows, 13)
    expected = Counter(x for x, _ in rows if x is not None and len(str(x)) < 257)
    assert {lv.value: lv.count for lv in found.levels} == expected
    assert found.rows == len(rows)
    assert found.nulls == sum(x is None for x, _ in rows)
    assert found.other_rows == sum(x is not None and len(str(x)) > 256 for x, _ in rows)
    assert found.rows == found.nulls + found.other_rows + sum(lv.count for lv in found.levels)
    assert found.distinct == len({x for x, _ in rows if x is not None})
    assert [(-lv.count, lv.value) for lv in found.levels] == sorted(
        (-lv.count, lv.value) for lv in found.levels
    )


@settings(max_examples=50)
@given(st.lists(st.tuples(NUMBERS, st.floats(-100, 100, width=32)), max_size=60))
def test_a_number_s_summary_is_numpy_s(rows: Rows):
    found = summarize("number", rows, 13)
    pairs = np.array([(x, y) for x, y in rows if x is not None], dtype=np.float64).reshape(-1, 2)
    x, y = pairs.T
    assert (found.rows, found.nulls) == (len(rows), len(rows) - len(x))
    assert found.zeros == int((x == 0).sum())
    assert (found.low, found.high) == ((x.min(), x.max()) if len(x) else (None, None))
    assert found.moments.count == len(x)
    if len(x):
        assert found.moments.mean == pytest.approx(x.mean(), rel=1e-9, abs=1e-9)
        assert found.moments.std == pytest.approx(x.std(), rel=1e-6, abs=1e-6)
        assert found.moments.label_mean == pytest.approx(y.mean(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["number", "category"])
@pytest.mark.parametrize("rows", [[], [(None, 1.0)], [(None, 0.0)] * 2000])
def test_e4_empty_and_all_null_columns(kind: str, rows: Rows):
    found = summarize(kind, rows, 300)
    assert (found.rows, found.nulls) == (len(rows), len(rows))
    assert (found.low, found.high, found.association) == (None, None, None)
    assert (found.distinct, found.is_constant, found.moments.std) == (0, True, 0.0)
    assert found.sketch.quantiles((0.5,)) == (None,)
    assert merge_summaries([found]) == found == found.trim()
    assert ColumnSummary.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("value", [0.1, 1e-30, 3.4e38, -7.3, 0.0])
def test_a_constant_number_has_no_spread_and_no_relation(value: float):
    rows: Rows = [(value, float(y)) for y in RNG.integers(0, 2, 5000)]
    found = summarize("number", rows, 777)
    assert found.is_constant
    assert found.moments.std == 0.0
    assert found.moments.mean == np.float32(value)
    assert found.association is None


def test_a_constant_category_and_a_constant_label():
    constant = summarize("category", [("a", float(y)) for y in RNG.integers(0, 2, 500)], 77)
    assert constant.is_constant
    assert constant.association == pytest.approx(0.0, abs=1e-7)
    one_label = summarize("category", [(str(i % 3), 0.1) for i in range(500)], 77)
    assert not one_label.is_constant
    assert one_label.association is None
    assert summarize("number", [(float(i), 0.1) for i in range(500)], 77).association is None


@pytest.mark.parametrize("slope", [1.0, -0.3, 0.0])
def test_the_correlation_is_numpy_s(slope: float):
    x = RNG.normal(1e4, 3, 20_000).astype(np.float32).astype(np.float64)
    y = slope * x + RNG.normal(size=len(x))
    rows: Rows = list(zip(x.tolist(), y.tolist(), strict=True))
    found = summarize("number", rows, 1234)
    expected = np.corrcoef(x, y)[0, 1]
    assert found.moments.correlation == pytest.approx(expected, abs=1e-9)
    assert found.association == pytest.approx(abs(expected), abs=1e-9)


def test_the_correlation_ratio_is_the_root_of_the_variance_that_levels_explain():
    codes = RNG.integers(0, 8, 5000)
    y = RNG.normal(size=5000) + (codes == 2) * 2 - (codes > 5)
    rows: Rows = [(f"level {c}", v) for c, v in zip(codes.tolist(), y.tolist(), strict=True)]
    found = summarize("category", rows, 999)
    one_hot = np.eye(8)[codes]
    fitted = one_hot @ np.linalg.lstsq(one_hot, y, rcond=None)[0]
    assert found.association == pytest.approx(np.sqrt(fitted.var() / y.var()), abs=1e-9)


def test_moments_of_a_label_alone():
    y = RNG.normal(size=1000)
    zeros = Moments.of(np.zeros(1000), y)
    assert Moments.of_label(y) == zeros
    assert Moments.of_label(y[:0]) == Moments()
    assert zeros.merge(Moments()) == Moments().merge(zeros) == zeros


def test_nan_is_counted_where_it_was():
    builder = NumberBuilder("c")
    builder.add(pa.array([1.0, None, None], pa.float32()), np.zeros(3), nans=1)
    builder.add(pa.array([None], pa.float32()), np.zeros(1), nans=1)
    assert (builder.freeze().nulls, builder.freeze().nans) == (3, 2)


def test_float32_s_ends_fit():
    top = float(np.finfo(np.float32).max)
    found = summarize("number", [(top, 0.0), (-top, 1.0), (top, 1.0)] * 100)
    assert (found.low, found.high) == (-top, top)
    assert np.isfinite(found.moments.m2)
    assert ColumnSummary.model_validate_json(found.model_dump_json()) == found


CODED = {
    "plain": pa.array(["b", "a", None, "b"]),
    "dictionary": pa.array(["b", "a", None, "b"]).dictionary_encode(),
    "unused levels": pa.DictionaryArray.from_arrays(
        pa.array([1, 2, None, 1]), pa.array(["z", "b", "a", "y"])
    ),
    "null level": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2, 0]), pa.array(["b", "a", None])
    ),
    "level twice": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 2]), pa.array(["b", "a", "b"])
    ),
    "slice": pa.array(["q", "b", "a", None, "b", "q"]).slice(1, 4),
    "dictionary slice": pa.array(["q", "b", "a", None, "b"]).dictionary_encode().slice(1),
    "large strings": pa.array(["b", "a", None, "b"], pa.large_string()),
}


@pytest.mark.parametrize("case", CODED)
def test_dictionary_and_plain_give_one_summary(case: str):
    builder = CategoryBuilder("c")
    builder.add(CODED[case], np.array([1.0, 2.0, 4.0, 8.0]))
    found = builder.freeze()
    assert found.levels == (
        Level(value="b", count=2, label_sum=9.0),
        Level(value="a", count=1, label_sum=2.0),
    )
    assert (found.rows, found.nulls, found.other_rows, found.distinct) == (4, 1, 0, 2)
    assert found.moments == Moments.of_label(np.array([1.0, 2.0, 8.0]))


@pytest.mark.parametrize("size", [1023, 1024, 5000, 60_000])
def test_distinct_is_exact_below_1024_and_within_a_tenth_above(size: int):
    builder = CategoryBuilder("c")
    for start in range(0, size, 7000):
        values = pa.array(np.arange(start, min(size, start + 7000))).cast(pa.string())
        builder.add(values, np.zeros(len(values)))
        builder.add(values, np.zeros(len(values)))
    found = builder.freeze().distinct
    assert found == size if size < 1024 else abs(found - size) < 0.1 * size


def test_e14_a_category_of_a_million_levels_stays_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(summary, "MAX_LEVELS", 2_000)
    builder = CategoryBuilder("c")
    batch, batches = 10_000, 20
    for i in range(batches):
        fresh = np.arange(i * batch, (i + 1) * batch).astype(str).astype(object)
        fresh[: batch // 2] = "common"
        fresh[0] = "x" * 300
        builder.add(pa.array(fresh, pa.string()), np.ones(batch))
        assert len(builder._counts) <= 2 * 2_000
    found = builder.freeze()
    assert len(found.levels) <= 2_000
    assert found.levels[0] == Level(
        value="common", count=batches * (batch // 2 - 1), label_sum=batches * (batch // 2 - 1)
    )
    assert found.other_rows + sum(lv.count for lv in found.levels) == found.rows == batches * batch
    other = summarize("category", [(f"other {i}", 0.0) for i in range(1500)])
    both = merge_summaries([found, other])
    assert len(both.levels) == 2_000
    assert both.other_rows + sum(lv.count for lv in both.levels) == found.rows + 1500
    merged = merge_summaries([found, found])
    assert len(merged.levels) <= 2_000
    assert merged.other_rows + sum(lv.count for lv in merged.levels) == 2 * found.rows
    assert abs(merged.distinct - batches * batch // 2) < 0.1 * batches * batch // 2


def test_trimming_keeps_the_totals():
    rows: Rows = [(f"level {i % 700}" if i % 11 else None, float(i % 2)) for i in range(7000)]
    whole = summarize("category", rows, 999)
    small = whole.trim(levels=50)
    assert small.levels == whole.levels[:50]
    for found in (whole, small, small.trim(levels=10), merge_summaries([small])):
        listed = sum(level.count for level in found.levels)
        assert listed + found.other_rows + found.nulls == found.rows == 7000
    assert small.distinct == whole.distinct
    assert small.association is not None
    assert whole.association is not None
    assert small.association <= whole.association
    numbers = summarize("number", [(float(i), 0.0) for i in range(7000)])
    assert numbers.trim(points=100).sketch.count == 7000
    assert len(numbers.trim(points=100).sketch.points()) == 100
    assert numbers.trim().trim() == numbers.trim()


def test_the_same_batches_give_the_same_bytes():
    rows: Rows = [
        (f"l{i}", y)
        for i, y in zip(RNG.integers(0, 3000, 9000), RNG.normal(size=9000), strict=True)
    ]
    assert (
        summarize("category", rows, 500).model_dump_json()
        == summarize("category", rows, 500).model_dump_json()
    )
    numbers: Rows = list(
        zip(RNG.normal(size=9000).tolist(), RNG.normal(size=9000).tolist(), strict=True)
    )
    assert summarize("number", numbers, 500).digest == summarize("number", numbers, 500).digest
