"""`arclight check` over sources that carry no types, and what it cannot know and says so."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC = """\
name: a
task: binary
sources:
  t: {path: t, format: csv, options: {header: true}, schema: "age int, city string, late int"}
etl:
  label: late
"""
OPEN = SPEC.replace(', schema: "age int, city string, late int"', "")


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command takes SIGTERM over; give it back."""
    held = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, held)


def typed(folder: Path, spec: str, *words: str) -> int:
    """Type `check`, or another command, on a spec beside a CSV; return its status."""
    (folder / "a.yaml").write_text(spec)
    (folder / "t").mkdir()
    (folder / "t" / "a.csv").write_text("age,city,late\n1,x,0\n")
    pq.write_table(pa.table({"late": [0, 1], "age": [1, 2]}), folder / "a.parquet")
    with pytest.raises(SystemExit) as ended:
        main([*(words or ("check",)), str(folder / "a.yaml"), "--json"])
    return int(str(ended.value.code))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (SPEC.replace("label: late", "label: lat"), ":6: etl.label: the joined table has no"),
        (f"{SPEC}  key: [id]\n", ":7: etl.key: the joined table has no column 'id'."),
        (f"{OPEN}  key: [id]\n", ":7: etl.key: the joined table has no column 'id'."),
        (OPEN.replace("label: late", "label: lat"), ":6: etl.label: the joined table has no"),
        (f"{SPEC}  drop: [cty]\n", ":7: etl.drop: the joined table has no column 'cty'. Did you"),
        (f"{SPEC}  time: age\n", ":7: etl.time: 'age' must be a date or timestamp, got int32"),
        (f"{SPEC}features: {{derive: {{a: agee + 1}}}}\n", "got 'agee'; the columns are age, c"),
        (f"{SPEC}evaluate: {{segments: [town]}}\n", ":7: evaluate.segments: the joined table has"),
        (f"{SPEC}evaluate: {{segments: [age]}}\n", ":7: evaluate.segments: 'age' is a number to"),
        (f"{SPEC}  sql: SELECT age, late, age + 1 AS b FROM t\nevaluate: {{segments: [age]}}\n",
         ":8: evaluate.segments: 'age' is a number to"),
        (f"{SPEC}features: {{derive: {{b: age + 1}}}}\nevaluate: {{segments: [b]}}\n",
         ":8: evaluate.segments: 'b' is a number to the model"),
        (SPEC.replace("age int", "age itn"), ":4: sources.t.schema: 'itn' in 'age itn' is no typ"),
        (SPEC.replace("late\n", "late\n  split: {by: tiem}\n"),
         ":7: 'etl.split.by' must be 'time' or 'hash', got 'tiem'."),
        (f"{SPEC}gate: {{at_least: {{auc: 70}}}}\n", "but auc is 1 at best, got 70; "),
    ],
)  # fmt: skip
def test_a_schema_s_columns_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str, sentence: str
) -> None:
    assert typed(tmp_path, spec) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sentence in err


def test_whether_workers_fit_is_checked_where_a_place_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"{SPEC}train: {{workers: 999}}\n"
    assert typed(tmp_path, spec, "check", "--profile", "local") == 3
    assert "train.workers: 999 workers with 1 cores each must fit" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    assert typed(other, spec) == 0  # where it will run is not known


@pytest.mark.parametrize("command", ["run", "train"])
def test_more_workers_than_cores_are_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert typed(tmp_path, f"{SPEC}train: {{workers: 999}}\n", command) == 3
    assert "train.workers: 999 workers with 1 cores each must fit" in capsys.readouterr().err
    assert not (tmp_path / ".arclight").exists()


@pytest.mark.parametrize(
    ("spec", "unchecked"),
    [
        (SPEC, []),
        (SPEC.replace("csv, options: {header: true}", "json"), []),
        (f"{OPEN}  drop: [city]\n".replace("true}", "true, quote: '|'}"),
         ["the columns of source t (csv without schema, whose header alone does not tell) are "
          "known only to Spark: label, drop, features were not checked"]),
        (f"{OPEN}  drop: [city]\n".replace("true}", "true, inferSchema: true}"),
         ["the types of age, city, late are known only to Spark: what uses them was checked by "
          "name"]),
        (SPEC.replace("path: t", "path: 's3://b/t'"),
         ["the columns of source t (csv that is not on a file system of this machine) are known "
          "only to Spark: label, features were not checked"]),
        (f"{SPEC}  sql: SELECT * FROM t NATURAL JOIN t AS u\n",
         ["the columns that etl.sql gives are known only to Spark: label, features were not "
          "checked"]),
        (f"{SPEC}  sql: SELECT age + 1 AS b, late FROM t\n",
         ["the types of b are known only to Spark: what uses them was checked by name"]),
        (OPEN.replace("format: csv, options: {header: true}", "options: {mergeSchema: true}")
         .replace("path: t", "path: a.parquet"),
         ["the columns of source t (parquet with mergeSchema) are known only to Spark: label, "
          "features were not checked"]),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str, unchecked: list[str]
) -> None:
    assert typed(tmp_path, spec) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["unchecked"] == unchecked
    for text in unchecked:
        assert f"{text}." in err.replace("\n", " ")
    assert ("nothing wrong was found in what was checked." in err) == bool(unchecked)
