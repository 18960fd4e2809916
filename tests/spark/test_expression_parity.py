"""The Arrow evaluator against Spark SQL's own answers, with ANSI on and in UTC."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from arclight.expression import compile_expression
from tests.spark.expression_grammar import INF, batches, edge_batch, expressions
from tests.spark.expression_sides import EXACT, Sides, differences, same, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

SEED = 20131101
AT_ONCE = 70


@pytest.fixture(scope="module")
def exact(session: SparkSession) -> Iterator[SparkSession]:
    """The session, evaluating expressions as they are written."""
    with settings_of(session, EXACT):
        yield session


@seed(SEED)
@settings(
    max_examples=6,
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


TABLE = [
    "a_null + 1", "i8 + i8", "i8 * i8", "i16 - 32767S", "i32 * i32", "i64 * i64", "i64 + 1",
    "-i64", "abs(i8)", "i64 DIV -1L", "i64 % i8", "i32 / i8", "f64 / f32", "f64 % f32",
    "0 / i8", "CASE WHEN i8 = 0 THEN 0 ELSE i32 / i8 END", "coalesce(i32 / i8, 1 / i16)",
    "IF(i8 = 0, 0, i32 % i8)", "flag AND 1 / i8 > 0", "1 / i8 > 0 AND flag",
    "flag OR 1 / i8 > 0", "1 / i8 > 0 OR flag", "NOT (flag AND 1 / i8 > 0)",
    "f64 = f64", "f64 > f32", "f64 < f32", "f64 <=> f32", "greatest(f64, f32, i8)",
    "least(f64, f32, i8)", "f64 IN (0.5D, 0.1D)", "nanvl(f64, f32)", "isnan(f64)",
    "i64 > f64", "i64 = f32", "i8 IN (1, 7, NULL)", "i8 NOT IN (1, NULL)",
    "i8 BETWEEN -1 AND i16",
    "s < u", "s = u", "s BETWEEN 'A' AND 'b'", "greatest(s, u)", "least(s, u, 'a')", "s <=> u",
    "ceil(f64)", "floor(f64)", "floor(f32)", "round(f64)", "round(f64, 2)", "round(f64, -2)",
    "round(f32, 1)", "round(i8, -1)", "round(i32, -3)", "round(i64, -1)", "sqrt(f64)",
    "sign(f64)",
    "CAST(f64 AS bigint)", "CAST(f64 AS int)", "CAST(f64 AS tinyint)", "CAST(f32 AS bigint)",
    "CAST(f64 AS float)", "CAST(i64 AS float)", "CAST(i64 AS double)", "CAST(i64 AS int)",
    "CAST(f64 AS boolean)", "CAST(s AS int)", "CAST(s AS bigint)", "CAST(s AS tinyint)",
    "CAST(s AS double)", "CAST(s AS float)", "CAST(s AS boolean)", "CAST(s AS date)",
    "CAST(s AS timestamp)", "TRY_CAST(s AS int)", "TRY_CAST(s AS timestamp)",
    "TRY_CAST(i8 / i16 AS int)", "CAST(f64 AS timestamp)", "CAST(i64 AS timestamp)",
    "CAST(t AS bigint)", "CAST(t AS double)", "CAST(t AS float)", "CAST(t AS int)",
    "CAST(d AS string)", "CAST(t AS string)", "CAST(i64 AS string)", "CAST(flag AS string)",
    "year(d)", "quarter(d)", "month(d)", "day(d)", "dayofweek(d)", "weekday(d)", "dayofyear(d)",
    "weekofyear(d)", "year(t)", "weekofyear(t)", "hour(t)", "minute(t)", "second(t)", "hour(d)",
    "unix_timestamp(t)", "unix_seconds(t)", "unix_timestamp(d)", "datediff(d, t)",
    "date_add(d, i8)", "date_sub(t, i8)", "date_trunc('year', t)", "date_trunc('quarter', t)",
    "date_trunc('month', d)", "date_trunc('week', t)", "date_trunc('day', t)",
    "date_trunc('hour', t)", "date_trunc('minute', t)", "date_trunc('second', t)",
    "date_trunc('millisecond', t)", "d = t", "d < '2020-02-29'", "t >= '1970-01-01'",
    "d IN ('2020-02-29', '1582-10-15')", "length(s)", "upper(s)", "lower(s)", "trim(s)",
    "ltrim(s)", "rtrim(s)", "s || u", "concat(s, u, 'x')", "substring(s, 2)",
    "substring(s, -2, 1)", "substring(s, 0, 3)", "substring(s, -5, 4)", "left(s, 2)",
    "right(s, 2)", "right(s, 0)", "replace(s, 'a', 'é')", "replace(s, '', 'x')", "instr(s, 'b')",
    "instr(s, '')", "locate('😀', s)", "contains(s, 'b')", "startswith(s, 'a')",
    "endswith(s, 'c')",
    "s LIKE 'a_b'", "s LIKE 'a\\\\_b'", "s LIKE '%b%'", "s NOT LIKE '_'", "u LIKE '%\\\\\\\\%'",
    "u LIKE 'a/%' ESCAPE '/'", "nullif(i8, i16)", "nullif(i8, i16 / i8)", "flag IS TRUE",
    "flag IS NOT FALSE", "flag <=> NULL", "CASE s WHEN 'a' THEN 1L WHEN u THEN 2 END",
    "-128Y", "-2147483648", "2147483648", "5 - 3 - 1", "7 DIV 2 * 2", "-5 % 3", "2 + 3 * 4",
    "NOT flag = TRUE", "!flag", "- -i8", "CAST('\uff12' AS int)", "CAST('5\t' AS int)",
    "len(s)", "char_length(s)", "character_length(u)", "lcase(s)", "ucase(u)", "signum(f64)",
    "negative(i32)", "isnull(s)", "isnotnull(s)", "ifnull(i8, 0)", "nvl(s, 'x')", "ceiling(f32)",
    "dayofmonth(d)", "date_diff(d, t)", "dateadd(d, 2)", "to_date(s)", "mod(i32, i8)",
    "coalesce(5, i8)", "'a' || 'b'", "CAST('x' AS int)", "1 / 0",
]  # fmt: skip
TABLE[0] = "CAST(NULL AS int) + 1"


def test_a_fixed_table_means_what_it_means_in_spark(exact: SparkSession) -> None:
    found = differences(exact, edge_batch(), TABLE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("form", ["i32 / i8", "CAST(s AS int)", "flag AND 1 / i8 > 0"])
def test_the_harness_sees_rows_wrongly_called_valid(exact: SparkSession, form: str) -> None:
    batch = edge_batch()
    assert Sides(exact, batch).values([form], [None])[0].__class__ is str


TIMES = [
    "2020", "2020-1", "2020-01-1", "2020-01-01 1", "2020-01-01 1:2", "2020-01-01T1:2:3",
    "2020-01-01 01:02:03.", "2020-01-01 01:02:03.1234567", "2020-01-01 01:02:03Z",
    "2020-01-01 01:02:03 UTC", "2020-01-01 01:02:03+1", "2020-01-01 01:02:03+01:30",
    "2020-01-01 01:02:03-0100", "2020-01-01 01:02:03 GMT+1", "2020-01-01 01:02:03+19:00",
    "2020-01-01T", "2020-01-01 24:00:00", "2020-01-01 23:60:00", "2020-01-01 1:2:",
    "2020-02-30", "1900-02-29", "2000-02-29", "0000-01-01", "-0001-01-01", "+2020-01-01",
    "10000-01-01", "20200101", "2020-13-01", "2020-00-01", "2020-01-00", " 2020-01-01 ",
    "2020-01-01  01:02:03", "2020-01-01 01:02Z", "2020/01/01", "x", "", "2020-01-01Tx",
    "1582-10-10",
]  # fmt: skip
NUMBERS = [
    "1", "+1", "-1", " 1\t", "\x001", "1\x7f", "1.", ".5", "1.5", "1e3", "1E-3", "1d", "1F",
    "1L",
    "", " ", "+", "-", ".", "e1", "1e", "inf", "-Inf", "+Infinity", "nan", "NaN", "+NaN", "-nan",
    "1_0", "1,0", "0x1", "00012", "127", "128", "-128", "-129", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "99999999999999999999", "1e400", "1e-400",
    "1e39", "3.4028235e38", "0.1", "16777217", "\uff11", "true", "T", "YES", "n", "0", "off",
]  # fmt: skip


@pytest.mark.parametrize(("texts", "kinds"), [(TIMES, ["date", "timestamp"]),
    (NUMBERS, ["tinyint", "int", "bigint", "float", "double", "boolean"])])  # fmt: skip
def test_each_string_is_read_or_refused_as_spark_does(
    exact: SparkSession, texts: list[str], kinds: list[str]
) -> None:
    batch = pa.record_batch({"s": pa.array(texts)})
    sides = Sides(exact, batch)
    for kind in kinds:
        ours = compile_expression(f"TRY_CAST(s AS {kind})", batch.schema).evaluate(batch).values
        (theirs,) = sides.values([f"TRY_CAST(s AS {kind})"], [None])
        assert not isinstance(theirs, str), theirs
        wrong = [
            (text, left, right)
            for text, left, right in zip(texts, _plain(ours), _plain(theirs), strict=True)
            if not same(left, right, 0)
        ]
        assert not wrong, f"{kind}: {wrong}"


def _plain(values: pa.Array) -> list[object]:
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.int32() if values.type == pa.date32() else pa.int64())
    return values.to_pylist()


def notation(text: str) -> str:
    """Return a number without its digits; Java before 19 may write one too many."""
    return "".join(letter for letter in text if not letter.isdigit())


def test_floats_are_written_as_java_writes_them(exact: SparkSession) -> None:
    numbers = [0.0, -0.0, 1.0, 0.001, 9999999.0, 1e7, 1.5e10, 1e-5, 123456789.125, 1e22, 5e-320]
    numbers += [12.5, 1e100, -1.25e-7, 0.00099, INF, -INF, 1e300, 100.0, 0.1 + 0.2]
    batch = pa.record_batch({"f64": numbers, "f32": pa.array(numbers).cast(pa.float32())})
    texts = ["CAST(f64 AS string)", "CAST(f32 AS string)"]
    ours = [compile_expression(text, batch.schema).evaluate(batch).values for text in texts]
    for one, theirs in zip(ours, Sides(exact, batch).values(texts, [None, None]), strict=True):
        for left, right in zip(one.to_pylist(), theirs.to_pylist(), strict=True):
            assert notation(left) == notation(right)
            assert math.isclose(float(left), float(right), rel_tol=1e-7)


# Letters of Unicode 17 and of ICU's own age: the libraries' tables are of different years
NEWER = {0x277, 0x27C, 0xAB4B, 0xAB4C, 0xA7DD, 0xA7E2, 0xAB6C, 0xAB6D, *range(0x1DF40, 0x1DF80)}


def test_letters_change_case_as_in_spark(exact: SparkSession) -> None:
    letters = [chr(c) for c in range(1, 0x1EA00) if not 0xD800 <= c < 0xE000 and c not in NEWER]
    words = ["ΟΔΟΣ", "ΣΑΣ ΑΣ", "Straße", "ﬁn", "İI"]
    batch = pa.record_batch({"s": letters + words})
    for text in ("upper(s)", "lower(s)"):
        ours = compile_expression(text, batch.schema).evaluate(batch).values
        (theirs,) = Sides(exact, batch).values([text], [None])
        assert not isinstance(theirs, str), theirs
        wrong = [
            (hex(ord(before[0])), left, right)
            for before, left, right in zip(
                letters + words, ours.to_pylist(), theirs.to_pylist(), strict=True
            )
            if left != right
        ]
        assert not wrong, wrong[:20]
