"""What tasks found adds up to what one task would have found, few of them held at a time."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from arclight.spec_file import load_spec
from spark.columns import check_columns
from spark.rowpass import RowPass
from spark.taskresult import FAN_IN, _Fold, add_up
from tests.spark.etl_case import make_case, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spark.taskresult import TaskResult

TASKS, EACH = 3 * FAN_IN + 5, 400


def table(tasks: int) -> pa.Table:
    rng = np.random.default_rng(7)
    x = rng.lognormal(0, 1, tasks * EACH)
    levels = np.array([f"l{n}" for n in rng.integers(0, 300, tasks * EACH)])
    return rows(tasks * EACH, x=pa.array(x), c=pa.array(levels))


@pytest.fixture
def results(tmp_path: Path):
    """Return a function that makes the results of some tasks, one at a time."""
    whole = table(TASKS)
    loaded = load_spec(make_case(tmp_path, checks=[{"name": "n", "expect": "n > 0"}]).spec_file())
    layout = check_columns(whole.schema, loaded)
    row_pass = RowPass(loaded.spec, layout, str(tmp_path / "staged"))

    def make(tasks: int) -> Iterator[TaskResult]:
        size = TASKS * EACH // tasks
        for task in range(tasks):
            (batch,) = whole.slice(task * size, size).combine_chunks().to_batches()
            yield row_pass.run(task, [batch])

    return make


def test_many_tasks_add_up_to_one(results) -> None:
    many, one = add_up(results(TASKS)), add_up(results(1))
    for name in ("rows_in", "broken", "class_rows", "groups", "times"):
        assert getattr(many, name) == getattr(one, name), name
    assert [s.rows_out for s in many.stages] == [s.rows_out for s in one.stages]
    for split, columns in one.summaries.items():
        for mine, theirs in zip(many.summaries[split], columns, strict=True):
            for name in ("rows", "nulls", "zeros", "low", "high", "minima"):
                assert getattr(mine, name) == getattr(theirs, name), (split, name)
            assert mine.moments.mean == pytest.approx(theirs.moments.mean)
            counts = [{lv.value: lv.count for lv in s.levels} for s in (mine, theirs)]
            assert counts[0] == counts[1]
    exact = np.sort(table(TASKS)["x"].to_numpy())
    (train,) = (s for s in many.summaries["train"] if s.name == "x")
    for share in (0.01, 0.25, 0.5, 0.75, 0.99):
        (found,) = train.sketch.quantiles([share])
        assert np.searchsorted(exact, found) / len(exact) == pytest.approx(share, abs=0.02)


def test_few_results_are_held_at_a_time(results) -> None:
    alive: weakref.WeakSet[TaskResult] = weakref.WeakSet()
    most = 0

    def watched() -> Iterator[TaskResult]:
        nonlocal most
        for result in results(TASKS):
            held = Held(result)
            alive.add(held)
            gc.collect()
            most = max(most, len(alive))
            yield held

    gc.collect()
    gc.freeze()  # what a whole suite has loaded is not looked through each time
    try:
        add_up(watched())
    finally:
        gc.unfreeze()
    assert most <= 2


def test_summaries_are_put_together_sixteen_by_sixteen(results) -> None:
    (columns,) = [one.summaries["train"] for one in results(1)]
    fold = _Fold()
    for _ in range(FAN_IN**2 + FAN_IN + 1):
        fold.add(columns)
    assert [len(level) for level in fold._levels] == [1, 1, 1]
    assert fold.whole()[0].rows == (FAN_IN**2 + FAN_IN + 1) * columns[0].rows


class Held:
    """A result whose life can be watched."""

    def __init__(self, result: TaskResult) -> None:
        self._result = result

    def __getattr__(self, name: str) -> object:
        return getattr(self._result, name)
