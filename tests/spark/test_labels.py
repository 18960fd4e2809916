from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from arclight.errors import SpecError
from spark.labels import Task, check_label_type, read_labels

F32 = float(np.finfo(np.float32).max)
OVER = float(np.nextafter(F32, np.inf))
EXACT = 2**53


def reasons_by_row(task: Task, values: pa.Array) -> list[tuple[str, ...]]:
    _, reasons = read_labels(task, values)
    return [
        tuple(name for name, mask in reasons.items() if mask[row]) for row in range(len(values))
    ]


@pytest.mark.parametrize(
    ("task", "kind", "value", "expected"),
    [
        ("regression", pa.float64(), -2.5, ()),
        ("regression", pa.float64(), None, ("label_null",)),
        ("regression", pa.float64(), float("nan"), ("label_not_finite",)),
        ("regression", pa.float64(), float("-inf"), ("label_not_finite",)),
        ("regression", pa.float64(), F32, ()),
        ("regression", pa.float64(), OVER, ("label_too_large",)),
        ("regression", pa.float64(), -1e200, ("label_too_large",)),
        ("regression", pa.float64(), EXACT * 4.0, ()),  # a fraction's type says it is rounded
        ("regression", pa.int64(), EXACT, ()),
        ("regression", pa.int64(), -EXACT, ()),
        ("regression", pa.int64(), EXACT + 1, ("label_too_large",)),
        ("regression", pa.int64(), -(2**63), ("label_too_large",)),
        ("regression", pa.int64(), None, ("label_null",)),
        ("regression", pa.int8(), -128, ()),
        ("binary", pa.bool_(), True, ()),
        ("binary", pa.float64(), 1e200, ("label_not_0_or_1",)),
        ("binary", pa.int64(), EXACT + 1, ("label_not_0_or_1",)),
        ("binary", pa.float32(), float("inf"), ("label_not_finite",)),
        ("multiclass", pa.string(), "", ()),
        ("multiclass", pa.string(), None, ("label_null",)),
        ("multiclass", pa.string(), "x" * 256, ()),
        ("multiclass", pa.string(), "x" * 257, ("label_too_long",)),
        ("multiclass", pa.string(), "ü" * 129, ("label_too_long",)),  # bytes, not letters
        ("multiclass", pa.int64(), 2**60, ()),
    ],
)
def test_a_label_outside_its_task_has_a_named_reason(
    task: Task, kind: pa.DataType, value: Any, expected: tuple[str, ...]
) -> None:
    assert reasons_by_row(task, pa.array([value], kind)) == [expected]


def test_reasons_belong_to_rows() -> None:
    labels = pa.array([1.0, None, 1e200, float("inf")])
    assert reasons_by_row("regression", labels) == [
        (),
        ("label_null",),
        ("label_too_large",),
        ("label_not_finite",),
    ]


@pytest.mark.parametrize(
    ("task", "values", "stored"),
    [
        ("regression", pa.array([1, None], pa.int16()), pa.array([1.0, None])),
        ("binary", pa.array([True, False]), pa.array([1.0, 0.0])),
        ("multiclass", pa.array([7, 8], pa.int32()), pa.array(["7", "8"])),
        ("multiclass", pa.array(["a", None]).dictionary_encode(), pa.array(["a", None])),
    ],
)
def test_the_stored_label_has_one_type(task: Task, values: pa.Array, stored: pa.Array) -> None:
    found, _ = read_labels(task, values)
    assert found.equals(stored)


@pytest.mark.parametrize(
    ("task", "kind", "way"),
    [
        ("binary", pa.string(), "y = 'yes' AS y"),
        ("regression", pa.bool_(), r"CAST\(y AS DOUBLE\)"),
        ("multiclass", pa.float64(), r"CAST\(y AS STRING\)"),
        ("multiclass", pa.date32(), r"CAST\(y AS STRING\)"),
    ],
)
def test_a_type_that_no_label_has_is_refused(task: Task, kind: pa.DataType, way: str) -> None:
    with pytest.raises(SpecError, match=way):
        check_label_type(task, "y", kind)
