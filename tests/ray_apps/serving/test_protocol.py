"""S1: what a request's rows may be, and how every wrong field is named."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from arclight.features import Derived, FeatureBuilder, FeatureColumn, FeatureLayout
from arclight.schema import Column
from ray_apps.json_values import Rule
from ray_apps.serving import protocol
from ray_apps.serving.problem import Problem
from ray_apps.serving.protocol import (
    MAX_ERRORS,
    RowDecoder,
    outcome,
    predictions,
    refuse_rejected,
    rows_of,
)
from tests.ray_apps.serving.small_model import COLUMNS, ROW, make_bundle


def decode(document: Any, max_rows: int = 1000) -> pa.RecordBatch:
    return RowDecoder(COLUMNS, max_rows=max_rows).decode(orjson.dumps(document))


def refusal(document: Any, max_rows: int = 1000) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(document, max_rows)
    return caught.value


def test_a_row_of_every_type() -> None:
    row = decode({"rows": [ROW]}).to_pylist()[0]
    assert row["a_int64"] == 2**63 - 1
    assert row["a_date"] == dt.date(2013, 11, 1)
    assert row["a_timestamp"] == dt.datetime(2013, 11, 1, 5, tzinfo=dt.UTC)
    assert {k: row[k] for k in ("a_bool", "a_int8", "a_string", "a_float64")} == {
        k: ROW[k] for k in ("a_bool", "a_int8", "a_string", "a_float64")
    }


def test_null_is_allowed_everywhere() -> None:
    batch = decode({"rows": [dict.fromkeys(ROW), ROW]})
    assert all(column.null_count == 1 for column in batch.columns)


def test_a_time_without_a_zone_is_utc() -> None:
    batch = decode({"rows": [{**ROW, "a_timestamp": "2013-11-01T06:00:00"}]})
    assert batch.column("a_timestamp")[0].as_py() == dt.datetime(2013, 11, 1, 6, tzinfo=dt.UTC)


def test_columns_are_found_by_name_in_any_order() -> None:
    assert decode(dict(reversed(ROW.items()))).equals(decode(ROW))


@pytest.mark.parametrize("document", [{"rows": [ROW]}, {"rows": ROW}, ROW])
def test_one_row_may_come_alone(document: Any) -> None:
    assert decode(document).num_rows == 1


WRONG: list[tuple[str, Any]] = [
    ("a_bool", 1), ("a_bool", 0), ("a_bool", "true"),
    ("a_int8", True), ("a_int8", 3.0), ("a_int8", 128), ("a_int8", -129), ("a_int8", "3"),
    ("a_int64", 2**63), ("a_int64", 1.5), ("a_int64", [1]),
    ("a_float32", 1e300), ("a_float32", -1e39), ("a_float32", True), ("a_float32", "1.5"),
    ("a_float64", True), ("a_float64", "NaN"), ("a_float64", {"x": 1}),
    ("a_string", 7), ("a_string", ["JFK"]), ("a_string", False),
    ("a_date", "2013-11-31"), ("a_date", "2013-11-01T06:00:00"), ("a_date", 20131101),
    ("a_date", ""),
    ("a_timestamp", "yesterday"), ("a_timestamp", 1383285600), ("a_timestamp", ""),
    ("a_timestamp", "0001-01-01T00:00:00+10:00"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    problem = refusal({"rows": [ROW, {**ROW, name: value}]})
    assert (problem.status, problem.slug) == (422, "fields")
    assert [(e["row"], e["field"]) for e in problem.errors] == [(1, name)]
    assert problem.errors[0]["detail"].startswith("must be ")


RIGHT: list[tuple[str, Any]] = [
    ("a_int8", 127), ("a_int64", -(2**63)), ("a_float32", 7), ("a_float64", 2**63),
    ("a_float64", 2**64 - 1), ("a_float64", 1e308), ("a_string", ""), ("a_string", "\0\n"),
    ("a_timestamp", "2013-11-01"), ("a_timestamp", "2013-11-01T06:00:00.123456Z"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_a_right_value_is_taken(name: str, value: Any) -> None:
    assert decode({**ROW, name: value}).num_rows == 1


def test_everything_wrong_is_told_at_once() -> None:
    missing = {name: value for name, value in ROW.items() if name != "a_string"}
    rows = [ROW, {**ROW, "a_int8": 3.0, "a_bool": 1}, {**missing, "a_strin": "x"}, 7, None]
    errors = refusal({"rows": rows}).errors
    assert {(e["row"], e["field"]) for e in errors} == {
        (1, "a_int8"), (1, "a_bool"), (2, "a_string"), (2, "a_strin"), (3, None), (4, None),
    }  # fmt: skip
    hint = next(e["detail"] for e in errors if e["field"] == "a_strin")
    assert "Did you mean 'a_string'?" in hint


def test_only_the_first_hundred_are_listed() -> None:
    problem = refusal({"rows": [{}] * 500})
    assert len(problem.errors) == MAX_ERRORS
    assert "first 100" in problem.detail


def test_only_the_first_wrong_names_are_told_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at 500 columns takes 10 to 25 ms, and a small body is read where all callers wait."""
    asked: list[str] = []
    monkeypatch.setattr(protocol, "nearest", lambda name, _: asked.append(name) or " Near.")
    rows = [{**ROW, **{f"{place}_{i}": 1 for i in range(30)}} for place in range(3)]
    errors = refusal({"rows": rows}).errors
    assert len(errors) == 90
    assert len(asked) == protocol.MAX_HINTS
    assert sum("Near." in error["detail"] for error in errors) == protocol.MAX_HINTS


@pytest.mark.parametrize("wrong", [[9_999], [5, 150, 9_999], [*range(0, 10_000, 100)]])
def test_a_wrong_value_costs_a_look_at_its_neighbours_alone(
    monkeypatch: pytest.MonkeyPatch, wrong: list[int]
) -> None:
    looks: list[Any] = []
    real = Rule.complaint
    monkeypatch.setattr(Rule, "complaint", lambda rule, v: looks.append(v) or real(rule, v))
    rows = [ROW] * 10_000
    for place in wrong:
        rows[place] = {**ROW, "a_int8": 128}
    errors = refusal({"rows": rows}, max_rows=10_000).errors
    assert [(e["row"], e["field"]) for e in errors] == [(place, "a_int8") for place in wrong]
    assert len(looks) <= 100 * len(wrong)


SHAPES: list[Any] = [
    [], [ROW], "rows", 7, None, True, {}, {"rows": 7}, {"rows": None}, {"rows": []},
    {"rows": [ROW], "more": 1}, {"rows": [[1]]}, {"row": [ROW]},
]  # fmt: skip


@pytest.mark.parametrize("document", SHAPES)
def test_a_document_of_another_shape_is_refused(document: Any) -> None:
    assert refusal(document).status == 422


@pytest.mark.parametrize(("rows", "got"), [(None, "null"), (7, "an integer"), ("a", "a string")])
def test_rows_that_are_no_rows_are_named_as_such(rows: Any, got: str) -> None:
    assert refusal({"rows": rows}).detail == (
        f'"rows" must be an array of objects or one object, got {got}.'
    )


def test_a_model_may_have_a_column_called_rows() -> None:
    assert rows_of({"rows": 7, "b": 1}) == [{"rows": 7, "b": 1}]


def test_too_many_rows() -> None:
    problem = refusal({"rows": [ROW] * 3}, max_rows=2)
    assert problem.status == 413


def test_a_wrong_field_is_never_echoed_raw() -> None:
    problem = refusal({**ROW, "\x1b[31m" + "x" * 5000: 1})
    assert "\x1b" not in str(problem.errors)
    assert len(problem.errors[0]["field"]) <= 300


def test_rejected_rows_are_named_with_their_reason() -> None:
    masks = {"derive:speedy": np.array([False, True, True]), "infinite:x": np.array([0, 1, 0]) > 0}
    with pytest.raises(Problem) as caught:
        refuse_rejected(masks)
    assert caught.value.status == 422
    assert "2 rows" in caught.value.detail
    assert [(e["row"], e["field"]) for e in caught.value.errors] == [
        (1, "speedy"), (1, "x"), (2, "speedy"),
    ]  # fmt: skip
    first, infinite, _ = (error["detail"] for error in caught.value.errors)
    assert first.startswith("derived feature 'speedy' has no value for this row: ")
    assert infinite.startswith("feature 'x' is infinite for this row: ")
    refuse_rejected({"derive:speedy": np.array([False, False])})


def test_every_reason_a_builder_gives_is_a_sentence() -> None:
    """A division by zero, an infinite number, bytes that are no text: through the real builder."""
    kinds = {"a": "float64", "b": "float64", "t": "string"}
    layout = FeatureLayout(
        inputs=tuple(Column(name=name, type=kind) for name, kind in kinds.items()),
        derive=(Derived(name="ratio", expression="a / b"),),
        features=(
            FeatureColumn(name="ratio", type="number"),
            FeatureColumn(name="a", type="number"),
            FeatureColumn(name="t", type="category"),
        ),
    )
    text = pa.array([b"\xff", b"t"]).cast(pa.string(), safe=False)
    columns = [pa.array([1.0, float("inf")]), pa.array([0.0, 1.0]), text]
    raw = pa.RecordBatch.from_arrays(columns, schema=layout.input_schema)
    with pytest.raises(Problem) as caught:
        refuse_rejected(FeatureBuilder(layout).build(raw).rejected)
    details = {(e["row"], e["field"]): e["detail"] for e in caught.value.errors}
    assert details.keys() >= {(0, "ratio"), (0, "t"), (1, "a")}
    for (_, name), text in details.items():
        assert re.fullmatch(rf"(derived )?feature '{name}' .* for this row: .*\.", text)


def test_predictions_of_each_task() -> None:
    binary = make_bundle("binary")
    scores = np.array([0.25, 0.5])
    assert predictions(binary, outcome(binary, scores)) == [
        {"score": 0.25, "label": False},
        {"score": 0.5, "label": True},
    ]
    number = make_bundle("regression")
    assert predictions(number, outcome(number, scores)) == [{"score": 0.25}, {"score": 0.5}]
    several = make_bundle("multiclass")
    assert predictions(several, outcome(several, np.array([[0.2, 0.7, 0.1]]))) == [
        {"label": "never", "scores": {"late": 0.2, "never": 0.7, "on-time": 0.1}}
    ]
