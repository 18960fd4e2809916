from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arclight.sketch import CAPACITY, POINTS, QuantileSketch, SketchPoints, merge_points
from arclight.summary import RANK_ERROR, TASK_POINTS, NumberBuilder, merge_summaries

Floats = npt.NDArray[np.float32]
SHARES = np.linspace(0, 1, 41)


def sketch_of(values: Floats, *, capacity: int = 4096, batch: int = 1000) -> QuantileSketch:
    sketch = QuantileSketch(capacity)
    for start in range(0, len(values), batch):
        sketch.add(values[start : start + batch])
    return sketch


def rank_error(points: SketchPoints, values: Floats) -> float:
    """Return how far the worst quantile's rank lies from the one asked for, as a share of rows."""
    ranked = np.sort(values)
    found = np.array(points.quantiles(SHARES.tolist()), dtype=np.float64)
    low = np.searchsorted(ranked, found, side="left") / len(ranked)
    high = np.searchsorted(ranked, found, side="right") / len(ranked)
    return float(np.maximum(low - SHARES, SHARES - high).max())


def stated_error(sketch: QuantileSketch, size: int) -> float:
    compacted = (len(sketch._levels) - 1) / (2 * sketch.capacity)
    return compacted + 1 / (2 * size) + 1 / max(sketch.count, 1)


ORDERS = {
    "random": lambda n: np.random.default_rng(1).normal(size=n),
    "rising": np.arange,
    "falling": lambda n: -np.arange(n),
    "zigzag": lambda n: np.where(np.arange(n) % 2, np.arange(n), -np.arange(n)),
    "heavy tail": lambda n: np.random.default_rng(2).standard_cauchy(n),
    "two values": lambda n: np.arange(n) % 2,
    "one value": lambda n: np.full(n, 7.0),
    "organ pipe": lambda n: np.minimum(np.arange(n), n - np.arange(n)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("capacity", [8, 64, 4096])
def test_the_error_is_within_what_is_stated(order: str, capacity: int):
    values = ORDERS[order](100_000).astype(np.float32)
    sketch = sketch_of(values, capacity=capacity, batch=997)
    points = sketch.freeze(1024)
    assert points.count == 100_000
    assert len(points.points()) == 1024
    assert rank_error(points, values) <= stated_error(sketch, 1024)


def test_the_errors_of_neighbouring_compactions_cancel():
    values = ORDERS["random"](100_000).astype(np.float32)
    sketch = sketch_of(values, capacity=8, batch=997)
    assert rank_error(sketch.freeze(1024), values) < stated_error(sketch, 1024) / 4


@settings(max_examples=60)
@given(
    values=st.lists(st.integers(-50, 50), min_size=1, max_size=3000),
    cuts=st.lists(st.integers(0, 3000), max_size=5),
    capacity=st.integers(2, 20),
)
def test_merging_any_partition_stays_within_the_error(
    values: list[int], cuts: list[int], capacity: int
):
    column = np.array(values, np.float32)
    parts = np.split(column, sorted(cut for cut in cuts if cut < len(values)))
    sketches = [sketch_of(part, capacity=capacity, batch=37) for part in parts if len(part)]
    merged = merge_points([s.freeze(128) for s in sketches], 128)
    assert merged.count == len(values)
    worst = max(stated_error(s, 128) - 1 / s.count for s in sketches)
    assert rank_error(merged, column) <= worst + 1 / 256 + len(sketches) / len(values) + 1e-9


def test_what_is_stated_of_a_record_s_quantiles_holds_for_the_largest_data():
    """A task's sketch is put together with others sixteen by sixteen, then all, then trimmed."""
    levels = math.log2(10**12 / CAPACITY) + 2
    merges = math.log(10**6, 16) + 1
    stored = (1 + merges) / (2 * TASK_POINTS) + 1 / (2 * POINTS)
    assert levels / (2 * CAPACITY) + stored <= RANK_ERROR


@pytest.mark.parametrize("order", ORDERS)
def test_a_record_s_quantiles_are_as_near_as_is_stated(order: str):
    values = ORDERS[order](300_000).astype(np.float32)
    parts = []
    for part in np.split(values, [40_000, 41_000, 160_000]):
        builder = NumberBuilder("x")
        builder.add(pa.array(part), np.zeros(len(part)))
        parts.append(builder.freeze())
    record = merge_summaries([merge_summaries(parts[:3]), parts[3]]).trim()
    assert rank_error(record.sketch, values) <= RANK_ERROR
    assert rank_error(parts[1].trim().sketch, values[40_000:41_000]) <= 1 / 1000


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=4),
)
def test_while_all_values_fit_nothing_is_lost(values: list[float], cuts: list[int]):
    column = np.array(values, np.float32)
    parts = np.split(column, sorted(cut for cut in cuts if cut < len(values)))
    merged = merge_points([sketch_of(part, batch=7).freeze() for part in parts])
    assert merged.count == len(values)
    assert merged.points().tolist() == sorted(column.tolist())
    assert np.array_equal(merged.points(), sketch_of(column).freeze().points())


@pytest.mark.parametrize("share", [0.07, 0.29, 0.57, 0.58, 0.1, 0.5, 0.9, 0.99])
def test_exact_quantiles_are_exact(share: float):
    points = sketch_of(np.arange(1, 101, dtype=np.float32)).freeze()
    assert points.quantiles((share,)) == (round(share * 100),)


@pytest.mark.parametrize(
    ("values", "shares", "expected"),
    [
        ([], (0.0, 0.5), (None, None)),
        ([7], (0.0, 0.5, 1.0), (7, 7, 7)),
        ([1, 2, 3, 4], (0.0, 0.25, 0.26, 0.5, 1.0), (1, 1, 2, 2, 4)),
        ([3.4e38, -3.4e38], (0.5, 1.0), (np.float32(-3.4e38), np.float32(3.4e38))),
    ],
)
def test_quantiles(values: list[float], shares: tuple[float, ...], expected: tuple[float, ...]):
    points = sketch_of(np.array(values, np.float32)).freeze()
    assert points.quantiles(shares) == expected


def test_the_same_batches_give_the_same_bytes():
    values = np.random.default_rng(3).normal(size=200_000).astype(np.float32)
    texts = {
        sketch_of(values, capacity=64, batch=777).freeze().model_dump_json() for _ in range(2)
    }
    assert len(texts) == 1
    again = SketchPoints.model_validate_json(texts.pop())
    assert again == sketch_of(values, capacity=64, batch=777).freeze()


def test_a_sketch_stays_small():
    sketch = sketch_of(np.arange(2_000_000, dtype=np.float32), capacity=64, batch=50_000)
    kept = sum(len(part) for level in sketch._levels for part in level)
    assert kept <= 64 * (8 + len(sketch._levels))
    assert len(sketch.freeze(10_000).model_dump_json()) < 6 * 10_000


def test_nothing_merges_to_nothing():
    empty = QuantileSketch().freeze()
    some = sketch_of(np.array([1, 2], np.float32)).freeze()
    assert merge_points([]) == merge_points([empty, empty]) == SketchPoints() == empty
    assert merge_points([empty, some, empty]) == some


def test_freezing_does_not_end_a_sketch():
    sketch = sketch_of(np.arange(10, dtype=np.float32))
    before = sketch.freeze()
    sketch.add(np.array([100], np.float32))
    assert (before.count, sketch.freeze().count) == (10, 11)
    assert sketch.freeze().quantiles((1.0,)) == (100,)


def test_what_was_taken_in_does_not_change_with_the_caller_s_array():
    values = np.arange(5, dtype=np.float32)
    sketch = QuantileSketch()
    sketch.add(values)
    values[:] = 9
    assert sketch.freeze().points().tolist() == [0, 1, 2, 3, 4]
