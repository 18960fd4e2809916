"""The user's spec as a frozen value; every cross-field rule stands at its root."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from arclight.contract import NAME, Contract
from arclight.ddl import check_ddl
from arclight.decision import GateRule
from arclight.errors import SpecError, nearest
from arclight.metrics import default_metric, metric_for
from arclight.spec_field import (
    Duration,
    FieldError,
    Instant,
    Text,
    parse_duration_s,
    parse_instant,
)
from arclight.train_section import AT_ONE_HALF, MOVING, SAMPLED, Train
from arclight.tune_section import MODEL_BYTES, Tune

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

SWITCHES = frozenset(
    {
        "header", "inferSchema", "multiLine", "ignoreLeadingWhiteSpace",
        "ignoreTrailingWhiteSpace", "mergeSchema", "primitivesAsString",
    }
)  # fmt: skip
"""Options that are on or off."""


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(
            f"'{text}' must be lower-case letters, digits and '-', at most 63, "
            "starting with a letter or digit."
        )
    return text


def _view(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", text):
        raise ValueError(
            f"'{text}' must be a plain SQL identifier, since etl.sql names the source by it."
        )
    return text


def _unlike(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"'{twice[0]}' stands twice; name it once.")
    return names


Name = Annotated[str, AfterValidator(_name)]
ViewName = Annotated[str, AfterValidator(_view)]
Names = Annotated[tuple[Text, ...], AfterValidator(_unlike)]


class Source(Contract):
    """One table: where it lies and how it is read."""

    path: Text | None = None
    format: Literal["parquet", "csv", "json", "orc", "delta", "iceberg", "jdbc"] = "parquet"
    options: dict[str, str | int | bool] = {}
    """Reader options; no fractions, since 1.50 would reach the reader as 1.5: quote them."""
    ddl: Annotated[Text, AfterValidator(check_ddl)] | None = Field(default=None, alias="schema")
    """Column names and types in Spark's DDL, for formats that carry none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        allowed = OPTIONS[self.format]
        for option in self.options:
            if option not in allowed:
                raise ValueError(
                    f"option '{option}' must be one of {', '.join(sorted(allowed))} for format "
                    f"{self.format}; others could drop rows or run code."
                    f"{nearest(option.lower(), allowed)}"
                )
            value = self.options[option]
            if option in SWITCHES and str(value).lower() not in ("true", "false"):
                raise ValueError(f"option '{option}' must be true or false, got '{value}'.")
        if self.format == "csv":
            self._check_encoding()
        if self.format == "jdbc":
            self._check_jdbc()
        elif self.path is None or "\0" in self.path:
            raise ValueError(f"a source of format {self.format} must have a path.")
        return self

    def _check_encoding(self) -> None:
        """Refuse text whose lines Spark would end within a sign: it tells them by bytes."""
        named = str(self.options.get("encoding", "utf-8"))
        try:
            is_plain = "\n".encode(named) == b"\n"
        except LookupError:
            return  # which Spark may know
        is_whole = str(self.options.get("multiLine")).lower() == "true"
        has_ends = "lineSep" in self.options and named.lower() in ("utf-16le", "utf-16be")
        if not (is_plain or is_whole or has_ends):
            raise ValueError(
                "option 'encoding' must be one in which a line ends with one byte, as in utf-8 or "
                f"iso-8859-1, got '{named}', of which Spark would read other rows; add multiLine: "
                "true, or make the files UTF-8."
            )

    def _check_jdbc(self) -> None:
        if self.path is not None:
            raise ValueError("a source of format jdbc has no path; give options.url instead.")
        if "url" not in self.options:
            raise ValueError("a source of format jdbc must have options.url.")
        if ("dbtable" in self.options) == ("query" in self.options):
            raise ValueError("a source of format jdbc must have options.dbtable or options.query.")


class Check(Contract):
    """A rule every row must keep; a row for which it is false or null breaks it."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$")
    expect: Text
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
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(self.train + self.valid + self.test - 1) > 1e-9:
            raise ValueError(
                f"train, valid and test must add up to 1, got "
                f"{self.train + self.valid + self.test:.12g}."
            )
        return self


Split = Annotated[TimeSplit | HashSplit, Field(discriminator="by")]


class Etl(Contract):
    """From sources to labelled, keyed, checked rows."""

    sql: Text | None = None
    sql_file: Text | None = None
    key: Names = ()
    label: Text
    time: Text | None = None
    drop: Names = ()
    checks: tuple[Check, ...] = ()
    split: Split = HashSplit(by="hash")
    on_bad_key: OnBad = "quarantine"
    """Rows with a null key, and every row of a key that occurs more than once."""
    on_bad_label: OnBad = "quarantine"
    """Rows whose label is null, not finite, or outside the task's domain."""

    @property
    def group(self) -> tuple[str, ...]:
        """The columns whose equal values stay in one split; none for a split by time."""
        return self.split.group if isinstance(self.split, HashSplit) else ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sql is not None and self.sql_file is not None:
            raise ValueError("give sql or sql_file, not both.")
        if isinstance(self.split, TimeSplit) and self.time is None:
            raise FieldError(
                "a split by time needs etl.time, the column that holds the time.", "split"
            )
        self._check_label()
        names = tuple(check.name for check in self.checks)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FieldError(f"check names must differ, '{twice[0]}' stands twice.", "checks")
        return self

    def _check_label(self) -> None:
        if self.label in self.key:
            raise FieldError(f"the label '{self.label}' must not be part of the key.", "key")
        if self.label in self.drop:
            raise FieldError(f"the label '{self.label}' must not be dropped.", "drop")
        if self.label == self.time:
            raise FieldError(f"the label '{self.label}' must not be the time too.", "time")
        if self.label in self.group:
            raise FieldError(f"the label '{self.label}' must not make the groups.", "split")


class Features(Contract):
    """What a model sees beyond the plain columns, and how categories are kept."""

    derive: dict[Text, Text] = {}
    categorical: Names | None = None
    """Columns taken as categories; left out: every string and boolean."""
    max_levels: int = Field(default=1000, ge=1, le=1_000_000)
    min_count: int = Field(default=20, ge=1)


class Evaluate(Contract):
    """What the test split is broken down by."""

    segments: Names = ()


class Replicas(Contract):
    """How many copies serve, and how busy each may be."""

    min: int = Field(default=1, ge=1)
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
        self._check_sources()
        self._check_metrics()
        self._check_columns()
        if self.task == "regression" and self.train.imbalance != "none":
            raise FieldError(
                "a regression has no classes to weigh; leave it out.", "train", "imbalance"
            )
        if self.task != "binary" and self.train.imbalance in SAMPLED:
            text = f"{self.train.imbalance} is for a binary task; use weight."
            raise FieldError(text, "train", "imbalance")
        if self.train.imbalance in SAMPLED and self.metric in AT_ONE_HALF:
            text = (
                f"{self.metric} calls a score of 0.5 and more a 1, which few rows of a rare class "
                f"reach once {self.train.imbalance} has been put right; use auc, "
                "average_precision or log_loss, and train.costs for the threshold."
            )
            raise FieldError(text, "train", "metric")
        self._check_tune()
        if self.task != "binary" and self.train.costs is not None:
            text = f"a {self.task} task has no threshold to choose by costs; leave it out."
            raise FieldError(text, "train", "costs")
        return self

    def _check_tune(self) -> None:
        if self.tune is None:
            return
        if self.train.init is not None:
            text = "the trials of a search are trained from scratch; leave init or tune out."
            raise FieldError(text, "train", "init")
        if self.train.params_after:
            text = "a search finds parameters; leave those that change on the way or tune out."
            raise FieldError(text, "train", "params_after")
        if self.tune.population is None:
            return
        if self.train.trainer != "torch":
            text = f"a population is of networks (trainer: torch), got {self.train.trainer}."
            raise FieldError(text, "tune", "population")
        fixed = sorted(set(self.tune.space) - set(MOVING))
        if fixed:
            text = (
                f"a network that takes over another's weights keeps its {fixed[0]}; search among "
                f"{', '.join(MOVING)}, or use another scheduler."
            )
            raise FieldError(text, "tune", "space", fixed[0])
        if self.train.rounds < self.tune.generations:
            text = (
                f"{self.tune.generations:,} generations ({self.tune.trials:,} trials of a "
                f"population of {self.tune.population:,}) need as many rounds, got "
                f"{self.train.rounds:,}; set fewer trials, or more rounds."
            )
            raise FieldError(text, "tune", "trials")

    def _check_sources(self) -> None:
        if self.etl.sql is None and self.etl.sql_file is None and len(self.sources) > 1:
            raise FieldError(
                f"etl.sql must say how the {len(self.sources)} sources are joined; it may be "
                "left out only when there is one.",
                "etl",
            )
        seen: dict[str, str] = {}
        for name in self.sources:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                text = f"must differ from '{other}' by more than case: SQL takes both for one."
                raise FieldError(text, "sources", name)

    def _check_metrics(self) -> None:
        try:
            metric_for(self.task, self.metric)
        except SpecError as error:
            raise FieldError(error.message, "train", "metric") from error
        for name in self.tune.also if self.tune is not None else ():
            if name == self.metric:
                raise FieldError(f"'{name}' is train.metric already.", "tune", "also")
            try:
                _ = name == MODEL_BYTES or metric_for(self.task, name)
            except SpecError as error:
                text = f"{error.message} Or {MODEL_BYTES}, the size of the model."
                raise FieldError(text, "tune", "also") from error
        try:
            self.gate.check_task(self.task)
        except ValueError as error:
            raise FieldError(str(error), "gate") from error

    def _check_columns(self) -> None:
        etl = self.etl
        stored = (etl.label, *etl.key, *etl.group, *((etl.time,) if etl.time else ()))
        for name in self.features.derive:
            if name in stored or name in etl.drop:
                text = "must not take the name of the label, a key, a group, the time or a drop."
                raise FieldError(text, "features", "derive", name)
        for name in self.features.categorical or ():
            if name == etl.label or name in etl.drop:
                raise FieldError(
                    f"'{name}' is the label or is dropped.", "features", "categorical"
                )
        if etl.label in self.evaluate.segments:
            text = f"the label '{etl.label}' cannot be a segment, as each would hold one class."
            raise FieldError(text, "evaluate", "segments")
