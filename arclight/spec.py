"""The user's spec as a frozen value; every cross-field rule stands at its root."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from arclight.contract import NAME, Contract
from arclight.decision import GateRule
from arclight.metrics import default_metric, metric_for

Task = Literal["binary", "multiclass", "regression"]
OnBad = Literal["quarantine", "fail"]

FORMATS = ("parquet", "csv", "json", "orc", "delta", "iceberg", "jdbc")
# Reader options that change what a value means, never which rows are read or what code runs.
OPTIONS: dict[str, frozenset[str]] = {
    "parquet": frozenset({"mergeSchema"}),
    "csv": frozenset(
        {
            "header", "sep", "delimiter", "quote", "escape", "comment", "encoding", "nullValue",
            "emptyValue", "nanValue", "dateFormat", "timestampFormat", "timestampNTZFormat",
            "inferSchema", "multiLine", "lineSep", "ignoreLeadingWhiteSpace",
            "ignoreTrailingWhiteSpace", "positiveInf", "negativeInf", "locale",
        }
    ),
    "json": frozenset(
        {"multiLine", "dateFormat", "timestampFormat", "encoding", "lineSep", "primitivesAsString"}
    ),
    "orc": frozenset({"mergeSchema"}),
    "delta": frozenset({"versionAsOf", "timestampAsOf"}),
    "iceberg": frozenset({"snapshot-id", "as-of-timestamp"}),
    "jdbc": frozenset(
        {
            "url", "dbtable", "query", "driver", "partitionColumn", "lowerBound", "upperBound",
            "numPartitions", "fetchsize",
        }
    ),
}  # fmt: skip

_DURATION = re.compile(r"^(\d+)\s*([smhdw])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_instant(text: str) -> dt.datetime:
    """Read an ISO date or time as an instant in UTC; a time without a zone is UTC.

    Raises:
        ValueError: the text is not an ISO date or time.
    """
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"'{text}' must be an ISO date or time such as 2013-11-01 or 2013-11-01T06:00:00Z."
        ) from error
    return instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant.astimezone(dt.UTC)


def parse_duration_s(text: str) -> int:
    """Read a duration such as 36h or 1d as seconds.

    Raises:
        ValueError: the text is not a whole number and one of s, m, h, d, w.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"'{text}' must be a duration such as 30m, 36h, 1d or 2w.")
    return int(match[1]) * _SECONDS[match[2]]


def _name(text: str) -> str:
    if not NAME.match(text):
        raise ValueError(
            f"'{text}' must be lower-case letters, digits and '-', at most 63, "
            "starting with a letter or digit."
        )
    return text


def _view(text: str) -> str:
    if not re.match(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", text):
        raise ValueError(
            f"'{text}' must be a plain SQL identifier, since etl.sql names the source by it."
        )
    return text


def _instant(text: str) -> str:
    parse_instant(text)
    return text


def _duration(text: str) -> str:
    parse_duration_s(text)
    return text


Name = Annotated[str, AfterValidator(_name)]
ViewName = Annotated[str, AfterValidator(_view)]
Instant = Annotated[str, AfterValidator(_instant)]
Duration = Annotated[str, AfterValidator(_duration)]
Names = tuple[str, ...]


class Source(Contract):
    """One table: where it lies and how it is read."""

    path: str | None = None
    format: Literal["parquet", "csv", "json", "orc", "delta", "iceberg", "jdbc"] = "parquet"
    options: dict[str, str | int | float | bool] = {}
    ddl: str | None = Field(default=None, alias="schema")
    """Column names and types in Spark's DDL, for formats that carry none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        allowed = OPTIONS[self.format]
        for option in self.options:
            if option not in allowed:
                raise ValueError(
                    f"option '{option}' must be one of {', '.join(sorted(allowed))} for format "
                    f"{self.format}; others could drop rows or run code."
                )
        if self.path is None and self.format != "jdbc":
            raise ValueError(f"a source of format {self.format} must have a path.")
        return self


class Check(Contract):
    """A rule every row must keep; a row for which it is false or null breaks it."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$")
    expect: str
    otherwise: Literal["quarantine", "fail", "warn"] = Field(default="quarantine", alias="else")


class TimeSplit(Contract):
    """Train before valid before test, with rows inside a gap before each boundary dropped."""

    by: Literal["time"]
    valid_from: Instant
    test_from: Instant
    gap: Duration = "0d"

    @model_validator(mode="after")
    def _check(self) -> Self:
        between = parse_instant(self.test_from) - parse_instant(self.valid_from)
        if between.total_seconds() <= parse_duration_s(self.gap):
            raise ValueError(
                f"test_from ({self.test_from}) must lie more than the gap ({self.gap}) after "
                f"valid_from ({self.valid_from})."
            )
        return self


class HashSplit(Contract):
    """Shares of the keys, or of the groups, by a stable hash."""

    by: Literal["hash"]
    train: float = Field(default=0.8, gt=0, lt=1)
    valid: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.1, gt=0, lt=1)
    group: Names = ()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(self.train + self.valid + self.test - 1) > 1e-9:
            raise ValueError(
                f"train, valid and test must add up to 1, got "
                f"{self.train + self.valid + self.test:g}."
            )
        return self


Split = Annotated[TimeSplit | HashSplit, Field(discriminator="by")]


class Etl(Contract):
    """From sources to labelled, keyed, checked rows."""

    sql: str | None = None
    sql_file: str | None = None
    key: Names = ()
    label: str
    time: str | None = None
    drop: Names = ()
    checks: tuple[Check, ...] = ()
    split: Split = HashSplit(by="hash")
    on_bad_key: OnBad = "quarantine"
    """Rows with a null key, and every row of a key that occurs more than once."""
    on_bad_label: OnBad = "quarantine"
    """Rows whose label is null, not finite, or outside the task's domain."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sql is not None and self.sql_file is not None:
            raise ValueError("give sql or sql_file, not both.")
        if self.label in self.key:
            raise ValueError(f"the label '{self.label}' must not be part of the key.")
        if self.label in self.drop:
            raise ValueError(f"the label '{self.label}' must not be dropped.")
        if isinstance(self.split, TimeSplit) and self.time is None:
            raise ValueError("a split by time needs etl.time, the column that holds the time.")
        names = [check.name for check in self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"check names must differ, '{twice[0]}' stands twice.")
        return self


class Features(Contract):
    """What a model sees beyond the plain columns, and how categories are kept."""

    derive: dict[str, str] = {}
    categorical: Names | None = None
    """Columns taken as categories; left out: every string and boolean."""
    max_levels: int = Field(default=1000, ge=1, le=1_000_000)
    min_count: int = Field(default=20, ge=1)


class Train(Contract):
    """One training: the library, its own parameters, and when to stop."""

    trainer: Literal["xgboost", "lightgbm", "torch"] = "xgboost"
    rounds: int = Field(default=300, ge=1, le=100_000)
    early_stopping: int | None = Field(default=20, ge=1)
    metric: str | None = None
    params: dict[str, str | int | float | bool] = {}
    imbalance: Literal["none", "weight"] = "none"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    workers: int = Field(default=1, ge=0)
    """Ray Train workers; 0 trains in this process."""


class IntRange(Contract):
    """Whole numbers from low to high, both included."""

    bounds: tuple[int, int] = Field(alias="int")
    log: bool = False


class FloatRange(Contract):
    """Numbers from low to high."""

    bounds: tuple[float, float] = Field(alias="float")
    log: bool = False


class Choice(Contract):
    """One of these values."""

    choice: tuple[str | int | float | bool, ...] = Field(min_length=1)


class Tune(Contract):
    """A search over a space of the trainer's parameters."""

    trials: int = Field(default=50, ge=1)
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    time_limit_s: int | None = Field(default=None, ge=1)
    space: dict[str, IntRange | FloatRange | Choice]


class Evaluate(Contract):
    """What the test split is broken down by."""

    segments: Names = ()


class Replicas(Contract):
    """How many copies serve, and how busy each may be."""

    min: int = Field(default=1, ge=0)
    max: int = Field(default=1, ge=1)
    ongoing_per_replica: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max}).")
        return self


class Serve(Contract):
    """How the model is served."""

    replicas: Replicas = Replicas()


class Spec(Contract):
    """A whole run as one value."""

    kind: ClassVar[str] = "spec"

    name: Name
    task: Task
    sources: dict[ViewName, Source] = Field(min_length=1)
    etl: Etl
    features: Features = Features()
    train: Train = Train()
    tune: Tune | None = None
    evaluate: Evaluate = Evaluate()
    gate: GateRule = GateRule()
    serve: Serve = Serve()

    @property
    def metric(self) -> str:
        """The metric that stops training and decides the gate."""
        return self.train.metric or default_metric(self.task)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.etl.sql is None and self.etl.sql_file is None and len(self.sources) > 1:
            raise ValueError(
                f"etl.sql must say how the {len(self.sources)} sources are joined; it may be "
                "left out only when there is one."
            )
        metric_for(self.task, self.metric)
        self.gate.check_task(self.task)
        for name in self.features.derive:
            if name in (self.etl.label, *self.etl.key, *self.etl.drop):
                raise ValueError(
                    f"features.derive.{name} must not take the name of the label, a key or a "
                    "dropped column."
                )
        for name in self.features.categorical or ():
            if name == self.etl.label or name in self.etl.drop:
                raise ValueError(f"features.categorical: '{name}' is the label or is dropped.")
        return self
