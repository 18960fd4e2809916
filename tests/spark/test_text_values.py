"""Text of which Spark would make another value than it says, without a word."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.sql import types as T

from arclight.errors import DataError, SchemaError, SpecError
from arclight.spec import Source
from spark.text_values import _odd_time
from tests.spark.etl_case import Case, make_case

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession


def csv_case(folder: Path, odd: str, **source: Any) -> Case:
    """Return a case over a CSV with an odd number in row 500, and in all a text like 12D."""
    lines = (f"{i},{odd if i == 500 else i % 17},1{i % 10}D,{i % 2}" for i in range(600))
    case = make_case(folder)
    (folder / "a.csv").write_text("\n".join(["id,x,c,y", *lines, ""]))
    options = {"header": True, **source.pop("options", {})}
    case.body["sources"]["t"] = {"path": "a.csv", "format": "csv", "options": options, **source}
    return case


@pytest.mark.spark
@pytest.mark.parametrize("odd", ["12D", " -3.5e2f ", "0x1p3"])
@pytest.mark.parametrize(
    "source",
    [{"schema": "id bigint, x double, c string, y int"}, {"options": {"multiLine": True}}],
)
def test_a_number_of_java_is_none(
    session: SparkSession, tmp_path: Path, odd: str, source: dict[str, Any]
):
    """12D and 3F, flats or classes to whoever wrote them, would be 12 and 3."""
    source.setdefault("schema", "id bigint, x float, c string, y int")
    case = csv_case(tmp_path, odd, **source)
    with pytest.raises(DataError, match=rf"'{odd}' in column 'x' is no number.*as a string"):
        case.build(session)


@pytest.mark.spark
def test_texts_that_end_as_a_number_of_java_does_stay_texts(session: SparkSession, tmp_path: Path):
    case = csv_case(tmp_path, "1e2", schema="id bigint, x double, c string, y int")
    stored = case.splits(case.build(session))
    assert set(stored["c"].to_pylist()) == {f"1{i}D" for i in range(10)}
    assert 100.0 in stored["x"].to_pylist()


DAY, AT = T.DateType(), T.TimestampType()


@pytest.mark.parametrize(
    ("form", "kind", "value", "options", "said"),
    [
        ("csv", DAY, "201301", {}, "no year of four"),
        ("json", DAY, "201301", {}, "no year of four"),
        ("json", DAY, "13", {}, "no year of four"),
        ("csv", AT, "20130-01-02 10:00:00", {}, "no year of four"),
        ("json", AT, "1357000000000", {}, "no year of four"),
        ("json", AT, "2013", {}, "no year of four"),
        ("csv", AT, "12:30", {}, "no date"),
        ("csv", AT, "2013", {}, None),
        ("csv", DAY, "2013-1-1", {}, None),
        ("csv", DAY, "20130101", {"dateFormat": "yyyyMMdd"}, None),
        ("json", AT, "1357000000", {}, None),
        ("json", AT, "2013-01-01T10:00:00Z", {}, None),
    ],
)
def test_a_time_of_digits_is_told(
    form: str, kind: T.DataType, value: str, options: dict[str, str], said: str | None
):
    source = Source.model_validate({"path": "t", "format": form, "options": options})
    found = _odd_time(value, kind, source)
    assert (found is None) if said is None else (said in str(found))


@pytest.mark.spark
@pytest.mark.parametrize(("kind", "value"), [("date", "201301"), ("timestamp", 1357000000000)])
def test_a_time_far_off_is_refused(
    session: SparkSession, tmp_path: Path, kind: str, value: str | int
):
    case = make_case(tmp_path)
    lines = [json.dumps({"id": i, "at": value, "x": 1.5, "y": i % 2}) for i in range(300)]
    (tmp_path / "a.json").write_text("\n".join(lines))
    schema = f"id bigint, at {kind}, x double, y int"
    case.body["sources"]["t"] = {"path": "a.json", "format": "json", "schema": schema}
    with pytest.raises(SpecError, match=rf"'{value}' in column 'at' has no year of four digits"):
        case.build(session)


@pytest.mark.spark
@pytest.mark.parametrize("whole", [False, True])
def test_a_key_in_another_case_than_the_schema_is_refused(
    session: SparkSession, tmp_path: Path, *, whole: bool
):
    """Spark reads null for it, in every row."""
    case = make_case(tmp_path)
    lines = [{"id": i, ("X" if i > 200 else "x"): i % 9, "y": i % 2} for i in range(300)]
    texts = [json.dumps(one | ({"ID": 0} if one["id"] else {})) for one in lines]
    (tmp_path / "a.json").write_text(f"[{','.join(texts)}]" if whole else "\n".join(texts))
    source = {"path": "a.json", "format": "json", "options": {"multiLine": whole}}
    case.body["sources"]["t"] = {**source, "schema": "id bigint, x double, y int"}
    with pytest.raises(SchemaError, match=r"names the column 'x', but an object has the key 'X'"):
        case.build(session)
