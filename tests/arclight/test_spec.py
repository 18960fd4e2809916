from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from arclight import decision, search_space, spec, train_section, tune_section, workers
from arclight.spec import Check, Etl, HashSplit, Source, Spec
from arclight.spec_field import FieldError, parse_duration_s, parse_instant
from arclight.spec_file import load_spec

TIME = {"by": "time", "valid_from": "2013-11-01", "test_from": "2013-12-01"}


def body(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "flights",
        "task": "binary",
        "sources": {"flights": {"path": "data"}},
        "etl": {"label": "late"},
    }
    return base | changes


def make(**changes: Any) -> Spec:
    return Spec.model_validate_json(json.dumps(body(**changes)))


def etl(**changes: Any) -> dict[str, Any]:
    return {"etl": {"label": "late"} | changes}


def derived(**features: Any) -> dict[str, Any]:
    return {"features": features, "etl": {"label": "late", "key": ["id"], "drop": ["leak"]}}


JDBC = {"url": "jdbc:x", "dbtable": "t"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "upper-case name": ({"name": "Flights"}, "lower-case"),
    "name with a line break": ({"name": "flights\n"}, "lower-case"),
    "name of 64": ({"name": "a" * 64}, "lower-case"),
    "path for a name": ({"name": "../x"}, "lower-case"),
    "no source": ({"sources": {}}, "at least 1"),
    "view with a line break": ({"sources": {"a\n": {"path": "x"}}}, "plain SQL identifier"),
    "sources alike but for case": (
        {"sources": {"a": {"path": "x"}, "A": {"path": "x"}}, **etl(sql="SELECT 1")},
        "must differ from 'a' by more than case",
    ),
    "two sources without sql": (
        {"sources": {"a": {"path": "x"}, "b": {"path": "x"}}},
        "etl.sql must say how the 2 sources are joined",
    ),
    "source without a path": ({"sources": {"a": {}}}, "must have a path"),
    "source with an empty path": ({"sources": {"a": {"path": ""}}}, "at least 1 character"),
    "source with a NUL": ({"sources": {"a": {"path": "x\0"}}}, "must have a path"),
    "unknown format": ({"sources": {"a": {"path": "x", "format": "avro"}}}, "'parquet'"),
    "option that drops rows": (
        {"sources": {"a": {"path": "x", "format": "csv", "options": {"mode": "DROPMALFORMED"}}}},
        "option 'mode' must be one of",
    ),
    "option of another format": (
        {"sources": {"a": {"path": "x", "options": {"header": True}}}},
        "option 'header' must be one of mergeSchema",
    ),
    "jdbc without url": (
        {"sources": {"a": {"format": "jdbc", "options": {"dbtable": "t"}}}},
        "must have options.url",
    ),
    "jdbc without table": (
        {"sources": {"a": {"format": "jdbc", "options": {"url": "jdbc:x"}}}},
        "options.dbtable or options.query",
    ),
    "jdbc with table and query": (
        {"sources": {"a": {"format": "jdbc", "options": {**JDBC, "query": "SELECT 1"}}}},
        "options.dbtable or options.query",
    ),
    "jdbc with a path": (
        {"sources": {"a": {"format": "jdbc", "path": "x", "options": JDBC}}},
        "has no path",
    ),
    "sql and sql_file": (etl(sql="SELECT 1", sql_file="a.sql"), "sql or sql_file, not both"),
    "empty sql": (etl(sql=""), "at least 1 character"),
    "label in the key": (etl(key=["late"]), "must not be part of the key"),
    "label dropped": (etl(drop=["late"]), "must not be dropped"),
    "label as time": (etl(time="late"), "must not be the time too"),
    "label as group": (etl(split={"by": "hash", "group": ["late"]}), "must not make the groups"),
    "key twice": (etl(key=["a", "a"]), "'a' stands twice"),
    "empty column": (etl(key=[""]), "at least 1 character"),
    "time split without time": (etl(split=TIME), "a split by time needs etl.time"),
    "test before valid": (
        etl(time="t", split=TIME | {"test_from": "2013-10-01"}),
        "must lie more than the gap",
    ),
    "gap as long as valid": (etl(time="t", split=TIME | {"gap": "30d"}), "more than the gap"),
    "no duration": (etl(time="t", split=TIME | {"gap": "1 day"}), "must be a duration"),
    "no instant": (etl(time="t", split=TIME | {"test_from": "soon"}), "must be an ISO date"),
    "instant past all calendars": (
        etl(time="t", split=TIME | {"test_from": "9999-12-31T23:59:59-14:00"}),
        "must be an ISO date",
    ),
    "shares above 1": (etl(split={"by": "hash", "train": 0.9}), "must add up to 1, got 1.1"),
    "shares hardly above 1": (etl(split={"by": "hash", "train": 0.8000001}), "got 1.0000001"),
    "no train": (etl(split={"by": "hash", "train": 0.0, "test": 0.9}), "greater than 0"),
    "seed past its limit": (etl(split={"by": "hash", "seed": 2**31}), "less than or equal"),
    "checks of one name": (
        etl(checks=[{"name": "a", "expect": "x > 0"}, {"name": "a", "expect": "y > 0"}]),
        "check names must differ, 'a' stands twice",
    ),
    "check without a rule": (etl(checks=[{"name": "a", "expect": ""}]), "at least 1 character"),
    "check's name": (etl(checks=[{"name": "a b", "expect": "x"}]), "match pattern"),
    "derive takes the label": (derived(derive={"late": "a"}), "must not take the name"),
    "derive takes a key": (derived(derive={"id": "a"}), "must not take the name"),
    "derive takes a dropped column": (derived(derive={"leak": "a"}), "must not take the name"),
    "derive takes the time": (
        {"features": {"derive": {"t": "a"}}, **etl(time="t")},
        "must not take the name",
    ),
    "derive takes a group": (
        {"features": {"derive": {"g": "a"}}, **etl(split={"by": "hash", "group": ["g"]})},
        "must not take the name",
    ),
    "label as category": (derived(categorical=["late"]), "is the label or is dropped"),
    "dropped category": (derived(categorical=["leak"]), "is the label or is dropped"),
    "category twice": (derived(categorical=["a", "a"]), "'a' stands twice"),
    "parameters of trees that change": (
        {"train": {"params_after": {"5": {"learning_rate": 0.1}}}},
        "xgboost keeps its parameters; only a network's can change on the way",
    ),
    "parameters that change too late": (
        {"train": {"trainer": "torch", "rounds": 9, "params_after": {"9": {"dropout": 0.1}}}},
        "a training of 9 rounds does not go on after 9",
    ),
    "nothing that changes": (
        {"train": {"trainer": "torch", "params_after": {"3": {}}}},
        "after 3 rounds nothing changes",
    ),
    "a second way to write rounds": (
        {"train": {"trainer": "torch", "params_after": {"03": {"dropout": 0.1}}}},
        "'03' must be a number of rounds from 1 to 99999",
    ),
    "rounds that are no number": (
        {"train": {"trainer": "torch", "params_after": {"x": {"dropout": 0.1}}}},
        "'x' must be a number of rounds from 1 to 99999",
    ),
    "no levels": (derived(max_levels=0), "greater than or equal to 1"),
    "segment by label": ({"evaluate": {"segments": ["late"]}}, "cannot be a segment"),
    "metric of another task": ({"train": {"metric": "rmse"}}, "metric of a binary task"),
    "gate on another task's metric": ({"gate": {"at_least": {"r2": 0.5}}}, "binary task"),
    "weights in a regression": (
        {"task": "regression", "train": {"imbalance": "weight"}},
        "no classes to weigh",
    ),
    "sampling of many classes": (
        {"task": "multiclass", "train": {"imbalance": "downsample"}},
        "downsample is for a binary task",
    ),
    "sampling by a metric at one half": (
        {"train": {"imbalance": "downsample", "metric": "recall"}},
        "recall calls a score of 0.5 and more a 1",
    ),
    "one fold": ({"train": {"folds": 1}}, "greater than or equal to 2"),
    "costs in a regression": (
        {"task": "regression", "train": {"costs": {"false_positive": 1.0, "false_negative": 2.0}}},
        "no threshold to choose by costs",
    ),
    "unknown trainer": ({"train": {"trainer": "sklearn"}}, "'xgboost'"),
    "a value twice": ({"tune": {"space": {"a": {"choice": [1, True]}}}}, "must differ"),
    "empty space": ({"tune": {"space": {}}}, "must have a space or trainers"),
    "space of nothing": ({"tune": {"space": {"a": {}}}}, "int, float or choice"),
    "falling range": ({"tune": {"space": {"a": {"int": [3, 1]}}}}, "must rise"),
    "log from zero": ({"tune": {"space": {"a": {"float": [0, 1], "log": True}}}}, "above 0"),
    "search from a model": (
        {"train": {"init": "a@1"}, "tune": {"space": {"a": {"int": [1, 2]}}}},
        "leave init or tune out",
    ),
    "empty choice": ({"tune": {"space": {"a": {"choice": []}}}}, "at least 1"),
    "grid of a range": (
        {"tune": {"sampler": "grid", "space": {"a": {"float": [0, 1]}}}},
        "a grid has no steps",
    ),
    "whole numbers that a process holds each of": (
        {"tune": {"sampler": "gp", "space": {"a": {"int": [0, 1_000_000]}}}},
        "gp goes through every whole number, at most 1,000,000",
    ),
    "a figure twice": (
        {"tune": {"scheduler": "none", "also": ["mae", "mae"], "space": {"a": {"int": [1, 2]}}}},
        "'mae' is there twice",
    ),
    "more replicas than allowed": ({"serve": {"replicas": {"min": 3, "max": 2}}}, "not exceed"),
    "unknown field": ({"nmae": "x"}, "Extra inputs"),
    "whole number as text": ({"train": {"rounds": "3"}}, "valid integer"),
    "fraction for a whole number": ({"train": {"rounds": 3.5}}, "valid integer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused(case: str):
    changes, part = REFUSED[case]
    with pytest.raises(ValidationError, match=part):
        make(**changes)


ACCEPTED: dict[str, dict[str, Any]] = {
    "jdbc": {"sources": {"a": {"format": "jdbc", "options": JDBC}}},
    "gap shorter than valid": etl(time="t", split=TIME | {"gap": "29d"}),
    "shares with rounding": etl(split={"by": "hash", "train": 0.7, "valid": 0.2, "test": 0.1}),
    "dropped key": etl(key=["a"], drop=["a"]),
    "key as category": {"features": {"categorical": ["a"]}, **etl(key=["a"])},
    "odd column names": etl(key=["2B", "a b", "🚀"]),
    "derived segment": {
        "features": {"derive": {"s": "a"}},
        "evaluate": {"segments": ["s"]},
    },
    "grid": {"tune": {"sampler": "grid", "space": {"a": {"int": [1, 3]}, "b": {"choice": [1]}}}},
    "sql for two": {
        "sources": {"a": {"path": "x"}, "b": {"path": "y"}},
        **etl(sql="SELECT * FROM a, b"),
    },
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_sound_is_accepted_and_keeps_its_form(case: str):
    made = make(**ACCEPTED[case])
    assert Spec.from_json(made.to_json()) == made
    assert Spec.from_json(made.to_json()).digest == made.digest


def test_a_rule_between_fields_knows_where_it_shows():
    with pytest.raises(ValidationError) as caught:
        make(**derived(derive={"id": "a"}))
    (problem,) = caught.value.errors()
    assert isinstance(problem["ctx"]["error"], FieldError)
    assert problem["ctx"]["error"].path == ("features", "derive", "id")


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        make().name = "x"  # type: ignore[misc]


def test_the_json_schema_names_fields_as_the_file_does():
    schema = Spec.model_json_schema(by_alias=True)
    text = json.dumps(schema)
    assert schema["required"] == ["name", "task", "sources", "etl"]
    assert {"schema", "else", "int", "float"} <= {
        name for part in schema["$defs"].values() for name in part["properties"]
    }
    assert '"ddl"' not in text
    assert '"otherwise"' not in text
    assert schema["additionalProperties"] is False


def test_python_may_use_either_name():
    assert Check(name="a", expect="x", otherwise="fail").model_dump()["else"] == "fail"
    assert Source(path="x", ddl="a int") == Source.model_validate({"path": "x", "schema": "a int"})


def test_groups_are_those_of_a_hash_split():
    assert Etl(label="a", split=HashSplit(by="hash", group=("g",))).group == ("g",)
    assert make(**etl(time="t", split=TIME)).etl.group == ()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2013-11-01", (2013, 11, 1)),
        ("2013-11-01T06:00:00", (2013, 11, 1, 6)),
        ("2013-11-01T06:00:00Z", (2013, 11, 1, 6)),
        ("2013-11-01T06:00:00+05:30", (2013, 11, 1, 0, 30)),
        ("2013-11-01 06:00:00.000001", (2013, 11, 1, 6, 0, 0, 1)),
    ],
)
def test_an_instant_is_utc(text: str, utc: tuple[int, ...]):
    assert parse_instant(text) == dt.datetime(*utc, tzinfo=dt.UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("30m", 1800),
        ("36h", 129_600),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("1 d", 86400),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: int):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "d", "-1d", "1.5d", "1d\n", "٣d", "1d2h", "9" * 400])
def test_no_duration(text: str):
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration_s(text)


DOCS = Path(__file__).parents[2] / "docs" / "spec.md"
# where a model's fields stand in the documentation
SECTIONS = {
    "Spec": "",
    "Source": "sources.NAME.",
    "Etl": "etl.",
    "Check": "etl.checks.",
    "TimeSplit": "etl.split.",
    "HashSplit": "etl.split.",
    "Features": "features.",
    "Train": "train.",
    "WorkerRange": "train.workers.",
    "Costs": "train.costs.",
    "Init": "train.init.",
    "Tune": "tune.",
    "Candidate": "tune.trainers.NAME.",
    "IntRange": "tune.space.NAME.",
    "FloatRange": "tune.space.NAME.",
    "Choice": "tune.space.NAME.",
    "Evaluate": "evaluate.",
    "GateRule": "gate.",
    "Serve": "serve.",
    "Replicas": "serve.replicas.",
}


def models_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    schema = model.model_json_schema(by_alias=True)
    names = {model.__name__, *schema.get("$defs", {})}
    assert names == set(SECTIONS), "a new part of the spec must be documented"
    modules = (spec, search_space, decision, train_section, tune_section, workers)
    return {next(vars(m)[n] for m in modules if n in vars(m)) for n in names}


def test_every_field_is_documented_with_its_default():
    rows = {
        match[1]: match[2].strip()
        for match in re.finditer(r"^\| `([^`]+)` \|([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    }
    expected = {
        SECTIONS[model.__name__] + (field.alias or name): field
        for model in models_below(Spec)
        for name, field in model.model_fields.items()
    }
    assert set(rows) == set(expected)
    for name, field in expected.items():
        value = field.get_default(call_default_factory=True)
        if field.is_required():
            assert rows[name] == "", name
        elif isinstance(value, int | float | str):
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            assert rows[name] == f"`{shown}`", name


def test_the_example_of_the_documentation_is_a_spec(tmp_path: Path):
    example = DOCS.read_text().split("```yaml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "a.yaml").write_text(example)
    assert load_spec(tmp_path / "a.yaml").spec.etl.label == "late"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"headr": True}, r"option 'headr' must be one of .* Did you mean 'header'\?"),
        ({"nullvalue": "?"}, r"Did you mean 'nullValue'\?"),
        ({"header": "yes"}, "option 'header' must be true or false, got 'yes'"),
        ({"inferSchema": 1}, "must be true or false, got '1'"),
        ({"encoding": "utf-16"}, "a line ends with one byte.*got 'utf-16'.*add multiLine: true"),
        ({"encoding": "UTF-16", "lineSep": "\n"}, "a line ends with one byte"),
        ({"encoding": "utf-16le", "multiLine": False}, "a line ends with one byte"),
        ({"encoding": "cp037"}, "a line ends with one byte"),
    ],
)
def test_options_that_a_reader_would_not_take_are_refused_at_once(options, told):
    with pytest.raises(ValidationError, match=told):
        Source(path="t", format="csv", options=options)


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "iso-8859-1"},
        {"encoding": "windows-1252"},
        {"encoding": "utf-16", "multiLine": True},
        {"encoding": "UTF-16LE", "lineSep": "\n"},
        {"encoding": "x-MacRoman"},
    ],
)
def test_an_encoding_whose_lines_are_told_is_one(options):
    assert Source(path="t", format="csv", options=options).options == options
