"""The Arrow evaluator against Spark SQL's own answers, with ANSI on and in UTC."""

from __future__ import annotations

import math
from contextlib import contextmanager
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from arclight.expression import compile_expression

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

SEED = 20131101
AT_ONCE = 60
ROWS = 24
UTC = timezone.utc

# Rules that may drop a failing part before it is evaluated: the evaluator knows no optimizer.
OPTIMIZER = "org.apache.spark.sql.catalyst.optimizer."
EXCLUDED = (
    "ConstantFolding NullPropagation NullDownPropagation BooleanSimplification "
    "SimplifyConditionals SimplifyBinaryComparison OptimizeIn PushFoldableIntoBranches "
    "ReplaceNullWithFalseInPredicate ConstantPropagation FoldablePropagation "
    "UnwrapCastInBinaryComparison ReorderAssociativeOperator"
).split()
EXACT = {
    "spark.sql.optimizer.excludedRules": ",".join(OPTIMIZER + name for name in EXCLUDED),
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.subexpressionElimination.enabled": "false",
}


@contextmanager
def settings_of(session: SparkSession, values: dict[str, str]) -> Iterator[None]:
    before = {key: session.conf.get(key, None) for key in values}
    for key, value in values.items():
        session.conf.set(key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                session.conf.unset(key)
            else:
                session.conf.set(key, value)


@pytest.fixture(scope="module")
def exact(session: SparkSession) -> Iterator[SparkSession]:
    """The session, evaluating expressions as they are written."""
    with settings_of(session, EXACT):
        yield session


# ---- values -------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
COLUMNS: dict[str, tuple[pa.DataType, list[object]]] = {
    "i8": (pa.int8(), [None, 0, 1, -1, 2, 7, 100, 127, -128]),
    "i16": (pa.int16(), [None, 0, 1, -1, 3, 300, 32767, -32768]),
    "i32": (pa.int32(), [None, 0, 1, -1, 5, 1000, 46341, 2**31 - 1, -(2**31)]),
    "i64": (pa.int64(), [None, 0, 1, -1, 9, 10**10, 2**53 + 1, 3037000500, 2**63 - 1, -(2**63)]),
    "f32": (pa.float32(), [None, 0.0, -0.0, 1.5, -2.25, 0.1, 16777217.0, 3e38, INF, -INF, NAN]),
    "f64": (
        pa.float64(),
        [None, 0.0, -0.0, 0.5, -1.5, 2.675, 1.005, 1e-300, 1e300, 9.3e18, 2.0**63, 123456789.125]
        + [INF, -INF, NAN, 2147483647.5, -128.9, 0.1],
    ),
    "flag": (pa.bool_(), [None, True, False]),
    "s": (
        pa.string(),
        [None, "", " ", "a", "A", "ab", "b", "Ångström", "😀", "x😀y", "a\x00b", "a_b", "a%b"]
        + ["12", " -7 ", "+3", "007", "300", "2147483648", "9223372036854775808", "1e3", "1.5"]
        + ["NaN", "-Infinity", "true", "No", "2020-02-29", "2021-02-29", "1582-10-10", "0001-01-01"]
        + ["2020-01-01 01:02:03.5", "9999-12-31T23:59:59Z", "\t8", "ÿ", "z", "\ue000", "abcabc"],
    ),
    "u": (pa.string(), [None, "", "a", "ab", "B", "é", "😀", "a\\b", "10", "\uffee"]),
    "d": (
        pa.date32(),
        [None, date(1, 1, 1), date(9999, 12, 31), date(1582, 10, 4), date(1582, 10, 15)]
        + [date(1582, 10, 10), date(1970, 1, 1), date(1969, 12, 31), date(2020, 2, 29)]
        + [date(1900, 3, 1), date(2000, 12, 31), date(2021, 1, 3), date(1500, 2, 28)],
    ),
    "t": (
        pa.timestamp("us", tz="UTC"),
        [None, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]
        + [datetime(1970, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 500000, UTC)]
        + [datetime(1582, 10, 9, 12, 0, 1, tzinfo=UTC), datetime(2020, 2, 29, 13, 14, 15, 16, UTC)]
        + [datetime(1500, 2, 28, 1, 1, 1, tzinfo=UTC), datetime(2013, 11, 1, 5, tzinfo=UTC)],
    ),
}


def batch_of(values: dict[str, list[object]]) -> pa.RecordBatch:
    arrays = [pa.array(values[name], kind) for name, (kind, _) in COLUMNS.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(COLUMNS))


def edge_batch() -> pa.RecordBatch:
    """Every edge value of every column, each column turned by another step."""
    size = max(len(pool) for _, pool in COLUMNS.values())
    return batch_of(
        {
            name: [pool[(row * (1 + turn % 3) + turn) % len(pool)] for row in range(size)]
            for turn, (name, (_, pool)) in enumerate(COLUMNS.items())
        }
    )


# ---- the grammar --------------------------------------------------------------------------------

LEAVES = {
    "int": ["i8", "i16", "i32", "i64", "0", "1", "-3", "7Y", "300S", "2147483647", "5L"]
    + ["9223372036854775807L"],
    "float": ["f32", "f64", "f64", "0.5D", "-2.0D", "1.5F", "1e3", "0.0D"],
    "bool": ["flag", "TRUE", "FALSE"],
    "text": ["s", "u", "'a'", "''", "'x😀'"],
    "date": ["d", "DATE '2020-02-29'", "DATE '0001-01-01'"],
    "time": ["t", "TIMESTAMP '2013-11-01 05:00:00'"],
}
NUMBER = ("int", "float")
ANY = ("int", "float", "bool", "text", "date", "time")
# `<int>` stands for an argument of that sort, `<number>` and `<any>` for one of several,
# `<same>` for one more of the sort that was drawn last
FORMS = {
    "int": [
        "(<int> + <int>)", "(<int> - <int>)", "(<int> * <int>)", "(<int> % <int>)",
        "(<int> DIV <int>)", "(- <int>)", "abs(<int>)", "ceil(<number>)", "floor(<number>)",
        "round(<int>)", "round(<int>, -1)", "mod(<int>, <int>)",
        "CAST(<number> AS tinyint)", "CAST(<number> AS smallint)", "CAST(<number> AS int)",
        "CAST(<number> AS bigint)", "CAST(<text> AS int)", "CAST(<text> AS bigint)",
        "CAST(<text> AS tinyint)", "TRY_CAST(<text> AS int)", "TRY_CAST(<number> AS smallint)",
        "CAST(<bool> AS int)", "CAST(<time> AS bigint)", "CAST(<time> AS int)",
        "length(<text>)", "instr(<text>, 'b')", "locate('😀', <text>)",
        "year(<moment>)", "quarter(<moment>)", "month(<moment>)", "day(<moment>)",
        "dayofweek(<moment>)", "weekday(<moment>)", "dayofyear(<moment>)", "weekofyear(<moment>)",
        "hour(<moment>)", "minute(<moment>)", "second(<moment>)", "datediff(<moment>, <moment>)",
        "unix_timestamp(<moment>)", "unix_seconds(<time>)",
    ],
    "float": [
        "(<number> / <number>)", "(<float> + <number>)", "(<number> - <float>)",
        "(<float> * <number>)", "(<float> % <number>)", "(- <float>)", "abs(<float>)",
        "round(<float>, 2)", "round(<float>, -1)", "round(<float>)", "sqrt(<number>)",
        "sign(<number>)", "nanvl(<float>, <number>)", "CAST(<number> AS double)",
        "CAST(<number> AS float)", "CAST(<text> AS double)", "CAST(<text> AS float)",
        "TRY_CAST(<text> AS double)", "CAST(<time> AS double)",
    ],
    "bool": [
        "(<number> = <number>)", "(<number> <> <number>)", "(<number> < <number>)",
        "(<number> <= <number>)", "(<number> > <number>)", "(<number> >= <number>)",
        "(<any> <=> <same>)", "(<any> = <same>)", "(<any> < <same>)", "(<any> >= <same>)",
        "(<date> < <time>)", "(<date> > '2020-01-01')", "(<time> <= '2013-11-01 05:00:00')",
        "(<bool> AND <bool>)", "(<bool> OR <bool>)", "(NOT <bool>)", "(<bool> AND <bool>)",
        "(<bool> OR <bool>)", "(<any> IS NULL)", "(<any> IS NOT NULL)", "isnan(<number>)",
        "(<int> IN (1, 7, NULL))", "(<number> IN (1, 0.5D, 300))", "(<text> IN ('a', '', 'b'))",
        "(<date> IN ('2020-02-29', DATE '1970-01-01'))", "(<int> NOT IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9))",
        "(<number> BETWEEN <number> AND <number>)", "(<text> BETWEEN <text> AND <text>)",
        "(<text> LIKE 'a%')", "(<text> LIKE '%b')", "(<text> LIKE '_')", "(<text> LIKE '%a_b%')",
        "(<text> LIKE 'a\\\\_b')", "(<text> NOT LIKE 'a/%b' ESCAPE '/')", "contains(<text>, '😀')",
        "startswith(<text>, 'a')", "endswith(<text>, '')", "CAST(<number> AS boolean)",
        "CAST(<text> AS boolean)", "TRY_CAST(<text> AS boolean)", "(<bool> IS TRUE)",
    ],
    "text": [
        "concat(<text>, <text>)", "(<text> || <text>)", "concat(<text>, <text>, 'z')",
        "trim(<text>)", "ltrim(<text>)", "rtrim(<text>)", "substring(<text>, 2)",
        "substring(<text>, -2, 1)", "substr(<text>, 0, 2)", "substring(<text>, -5, 4)",
        "left(<text>, 1)", "right(<text>, 2)", "replace(<text>, 'a', '😀')", "replace(<text>, 'b')",
        "CAST(<int> AS string)", "CAST(<bool> AS string)", "CAST(<moment> AS string)",
        "upper(<text>)", "lower(<text>)",
    ],
    "date": [
        "CAST(<text> AS date)", "TRY_CAST(<text> AS date)", "CAST(<time> AS date)",
        "to_date(<moment>)", "date_add(<moment>, i8)", "date_sub(<date>, 3)",
    ],
    "time": [
        "CAST(<text> AS timestamp)", "TRY_CAST(<text> AS timestamp)", "CAST(<date> AS timestamp)",
        "CAST(i32 AS timestamp)", "date_trunc('month', <moment>)", "date_trunc('week', <moment>)",
        "date_trunc('hour', <time>)", "date_trunc('quarter', <date>)", "date_trunc('year', <time>)",
    ],
}  # fmt: skip
FOR_ALL = [
    "CASE WHEN <bool> THEN <one> WHEN <bool> THEN <one> ELSE <one> END",
    "CASE <any> WHEN <same> THEN <one> END",
    "IF(<bool>, <one>, <one>)",
    "IF(<bool>, <one>, NULL)",
    "coalesce(<one>, <one>)",
    "coalesce(NULL, <one>, <one>)",
    "nullif(<one>, <one>)",
    "greatest(<one>, <one>)",
    "least(<one>, <one>, <one>)",
]
# libm and Java differ in the last places, so these stand alone and are held to a tolerance
CLOSE = [
    "exp(<leaf>)", "expm1(<leaf>)", "ln(<leaf>)", "log10(<leaf>)", "log2(<leaf>)", "log1p(<leaf>)",
    "log(2, <leaf>)", "pow(<leaf>, 2)", "power(1.5D, <leaf>)", "pow(<leaf>, <leaf>)",
    "sin(<small>)", "cos(<small>)", "tan(<small>)", "atan2(<leaf>, <leaf>)",
]  # fmt: skip
GROUPS = {"number": NUMBER, "any": ANY, "moment": ("date", "time")}


@st.composite
def expressions(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 11)) == 0:
        return draw(close_ones())
    return _expression(draw, draw(st.sampled_from(ANY)), 3)


@st.composite
def close_ones(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(CLOSE))
    for hole, pool in (("<leaf>", LEAVES["int"] + LEAVES["float"]), ("<small>", ["i8", "f32"])):
        while hole in text:
            text = text.replace(hole, draw(st.sampled_from(pool)), 1)
    return text


def _expression(draw: st.DrawFn, sort: str, depth: int) -> str:
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(LEAVES[sort]))
    general = draw(st.integers(0, 4)) == 0
    text = draw(st.sampled_from(FOR_ALL if general else FORMS[sort]))
    last = sort
    while (start := text.find("<")) >= 0:
        hole, text = _next_hole(text, start)
        if hole is None:
            continue
        last = {"one": sort, "same": last}.get(hole) or draw(
            st.sampled_from(GROUPS.get(hole, (hole,)))
        )
        text = text.replace(f"\x01{hole}\x02", _expression(draw, last, depth - 1), 1)
    return text.replace("\x03", "<")


def _next_hole(text: str, start: int) -> tuple[str | None, str]:
    """Mark the hole at a position, or hide a `<` that is an operator."""
    end = text.find(">", start)
    name = text[start + 1 : end] if end > 0 else ""
    if name in FORMS or name in GROUPS or name in ("one", "same"):
        return name, f"{text[:start]}\x01{name}\x02{text[end + 1 :]}"
    return None, f"{text[:start]}\x03{text[start + 1 :]}"


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    return batch_of(
        {
            name: [draw(st.sampled_from(pool)) for _ in range(ROWS)]
            for name, (_, pool) in COLUMNS.items()
        }
    )


# ---- holding one against the other --------------------------------------------------------------


class Sides:
    """Spark's answers for a batch, asked for many expressions at once."""

    def __init__(self, session: SparkSession, batch: pa.RecordBatch) -> None:
        self.batch = batch
        numbered = batch.append_column("row_", pa.array(range(batch.num_rows), pa.int32()))
        self.frame = session.createDataFrame(pa.Table.from_batches([numbered])).coalesce(1)

    def values(self, texts: list[str], invalid: list[np.ndarray | None]) -> list[pa.Array | str]:
        """Return Spark's values, null in the rows called invalid, or what Spark says instead."""
        guarded = [self._guarded(*pair) for pair in zip(texts, invalid, strict=True)]
        found = self._select(guarded)
        if not isinstance(found, str):
            return [found.column(i).combine_chunks() for i in range(len(texts))]
        alone = [self._select([text]) for text in guarded]
        return [one if isinstance(one, str) else one.column(0).combine_chunks() for one in alone]

    def _guarded(self, text: str, invalid: np.ndarray | None) -> str:
        if invalid is None:
            return f"({text})"
        rows = ", ".join(str(row) for row in np.flatnonzero(invalid))
        return f"CASE WHEN row_ NOT IN ({rows}) THEN ({text}) END"

    def _select(self, texts: list[str]) -> pa.Table | str:
        from pyspark.errors import PySparkException

        columns = [f"{text} AS c{i}" for i, text in enumerate(texts)]
        try:
            return self.frame.selectExpr("row_", *columns).toArrow().sort_by("row_").drop("row_")
        except PySparkException as error:
            return str(error).splitlines()[0][:200]

    def raises(self, text: str, row: int) -> bool:
        """Whether Spark raises for one row alone."""
        from pyspark.errors import PySparkException

        try:
            self.frame.where(f"row_ = {row}").selectExpr(f"({text}) AS c").toArrow()
        except PySparkException:
            return True
        return False


def differences(session: SparkSession, batch: pa.RecordBatch, texts: list[str]) -> list[str]:
    sides = Sides(session, batch)
    ours = [compile_expression(text, batch.schema).evaluate(batch) for text in texts]
    invalid = [
        None if one.invalid is None else one.invalid.to_numpy(zero_copy_only=False) for one in ours
    ]
    found = []
    for text, one, bad, theirs in zip(
        texts, ours, invalid, sides.values(texts, invalid), strict=True
    ):
        if isinstance(theirs, str):
            found.append(f"{text}: Spark raised in rows called valid: {theirs}")
            continue
        found += [f"{text}: {line}" for line in unequal(batch, text, one.values, theirs)]
        if bad is not None and not sides.raises(text, int(np.flatnonzero(bad)[0])):
            row = batch.slice(int(np.flatnonzero(bad)[0]), 1).to_pylist()
            found.append(f"{text}: Spark did not raise for {row}")
    return found


def unequal(batch: pa.RecordBatch, text: str, ours: pa.Array, theirs: pa.Array) -> Iterator[str]:
    if ours.type != theirs.type:
        yield f"type {ours.type}, Spark's is {theirs.type}"
        return
    if pa.types.is_temporal(ours.type):
        whole = pa.int32() if ours.type == pa.date32() else pa.int64()
        ours, theirs = ours.cast(whole), theirs.cast(whole)
    tolerance = 1e-14 if any(text.startswith(form[: form.index("(") + 1]) for form in CLOSE) else 0
    for row, (left, right) in enumerate(zip(ours.to_pylist(), theirs.to_pylist(), strict=True)):
        if not same(left, right, tolerance):
            yield f"{left!r}, Spark says {right!r} for {batch.slice(row, 1).to_pylist()}"
            return


def same(left: object, right: object, tolerance: float) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        if tolerance and math.isfinite(left):
            return math.isclose(left, right, rel_tol=tolerance, abs_tol=1e-300)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


@seed(SEED)
@settings(
    max_examples=12,
    deadline=None,
    database=None,
    verbosity=Verbosity.quiet,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(batch=batches(), texts=st.lists(expressions(), min_size=AT_ONCE, max_size=AT_ONCE))
def test_random_expressions_mean_what_they_mean_in_spark(
    exact: SparkSession, batch: pa.RecordBatch, texts: list[str]
) -> None:
    found = differences(exact, batch, texts)
    assert not found, f"seed {SEED}:\n" + "\n".join(found)
