from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from arclight.errors import DataError, SpecError
from arclight.expression import Expression, check_syntax, compile_expression
from arclight.expression.compiler import BUILDERS
from arclight.expression.signatures import ARITIES

BATCH = pa.record_batch(
    {
        "a": pa.array([6, 0, None, 2**31 - 1], pa.int32()),
        "b": pa.array([4, 0, 1, None], pa.int32()),
        "x": pa.array([2.5, float("nan"), None, -0.0]),
        "s": pa.array(["abc", "é😀c", None, ""]),
        "o": pa.array([True, False, None, True]),
        "d": pa.array([date(2020, 2, 29), date(1, 1, 1), None, date(1582, 10, 10)]),
        "t": pa.array(
            [datetime(2020, 2, 29, 13, 14, 15), datetime(1969, 12, 31, 23, 59, 59, 5), None, None],
            pa.timestamp("us", tz="UTC"),
        ),
    }
)
BAD = "bad"
MANY = ", ".join(map(str, range(10, 20)))


@pytest.mark.parametrize(
    ("text", "arrow", "expected"),
    [
        ("a + 1", pa.int32(), [7, 1, None, BAD]),
        ("a / b", pa.float64(), [1.5, BAD, None, None]),
        ("a DIV b", pa.int64(), [1, BAD, None, None]),
        ("a % b", pa.int32(), [2, BAD, None, None]),
        ("CASE WHEN b = 0 THEN 0 ELSE a / b END", pa.float64(), [1.5, 0.0, None, None]),
        ("CASE WHEN b = 0 THEN 0 WHEN 1 / b > 0.5D THEN 1 ELSE 2 END", pa.int32(), [2, 0, 1, 2]),
        ("CASE WHEN 1 / b > 0.5D THEN 1 WHEN b = 0 THEN 0 END", pa.int32(), [None, BAD, 1, None]),
        ("upper(IF(o, 'straße', 'ﬁ'))", pa.string(), ["STRASSE", "FI", "FI", "STRASSE"]),
        ("lower(IF(o, 'ΟΔΟΣ', 'İ'))", pa.string(), ["οδος", "i\u0307", "i\u0307", "οδος"]),
        ("coalesce(b, 1 / 0)", pa.float64(), [4.0, 0.0, 1.0, BAD]),
        ("coalesce(5, b)", pa.int32(), [5, 5, 5, 5]),
        ("o AND 1 / b > 0", pa.bool_(), [True, False, None, None]),
        ("1 / b > 0 AND o", pa.bool_(), [True, BAD, None, None]),
        ("o OR 1 / b > 9", pa.bool_(), [True, BAD, None, True]),
        ("NULL AND 1 / b > 0", pa.bool_(), [None, BAD, None, None]),
        ("a + 1 / b", pa.float64(), [6.25, BAD, None, None]),
        ("CAST(NULL AS int) + 1 / b", pa.float64(), [None, None, None, None]),
        ("x > 1", pa.bool_(), [True, True, None, False]),
        ("x = x", pa.bool_(), [True, True, None, True]),
        ("x <=> NULL", pa.bool_(), [False, False, True, False]),
        ("o <=> TRUE", pa.bool_(), [True, False, False, True]),
        ("greatest(x, a)", pa.float64(), [6.0, "nan", None, 2147483647.0]),
        ("a IN (6, NULL)", pa.bool_(), [True, None, None, None]),
        ("x IN (CAST('NaN' AS double), 6)", pa.bool_(), [False, True, None, False]),
        (f"x IN (CAST('NaN' AS double), {MANY})", pa.bool_(), [False, True, None, False]),
        ("a BETWEEN 0 AND b", pa.bool_(), [False, True, None, None]),
        ("a BETWEEN 7 AND b", pa.bool_(), [False, False, None, None]),
        ("nullif(a, 0)", pa.int32(), [6, None, None, 2147483647]),
        ("round(2.675 + x * 0, 2)", pa.float64(), [2.68, "nan", None, 2.68]),
        ("CAST(s AS int)", pa.int32(), [BAD, BAD, None, BAD]),
        ("TRY_CAST(s AS int)", pa.int32(), [None, None, None, None]),
        ("TRY_CAST(1 / b AS int)", pa.int32(), [0, BAD, 1, None]),
        ("s || 'x'", pa.string(), ["abcx", "é😀cx", None, "x"]),
        ("instr(s, 'c')", pa.int32(), [3, 3, None, 0]),
        ("s LIKE '_😀%'", pa.bool_(), [False, True, None, False]),
        ("IF(o, 'y', s)", pa.string(), ["y", "é😀c", None, "y"]),
        ("upper(s)", pa.string(), ["ABC", "É😀C", None, ""]),
        ("year(d)", pa.int32(), [2020, 1, None, 1582]),
        ("d + 0 = 1 OR TRUE", None, "must take"),
        ("hour(t)", pa.int32(), [13, 23, None, None]),
        ("datediff(d, '2020-01-01')", None, "must take"),
        ("d > '2020-01-01'", pa.bool_(), [True, False, None, False]),
        ("DATE '2020-03-01'", pa.date32(), [date(2020, 3, 1)] * 4),
        ("'k'", pa.string(), ["k"] * 4),
        ("1 / 0", pa.float64(), [BAD] * 4),
    ],
)
def test_values_nulls_and_failures(text: str, arrow: pa.DataType | None, expected: Any) -> None:
    if arrow is None:
        with pytest.raises(SpecError, match=expected):
            compile_expression(text, BATCH.schema)
        return
    expression = compile_expression(text, BATCH.schema)
    values, invalid = expression.evaluate(BATCH)
    values.validate(full=True)
    assert expression.type == values.type == arrow
    assert invalid is None or pa.types.is_boolean(invalid.type)
    failed = [False] * 4 if invalid is None else invalid.to_pylist()
    assert failed == [value is BAD for value in expected]
    assert (invalid is None) == (BAD not in expected)
    found = ["nan" if str(value) == "nan" else value for value in values.to_pylist()]
    assert found == [None if value is BAD else value for value in expected]


@pytest.mark.parametrize(
    "text", ["a + 1", "x > 1", "upper(s)", "IF(o, 'y', s)", "hour(t)", "o AND 1 / b > 0", "s"]
)
def test_a_slice_gives_the_slice_of_the_values(text: str) -> None:
    expression = compile_expression(text, BATCH.schema)
    whole = expression.evaluate(BATCH).values
    for start, size in [(1, 2), (0, 1), (3, 1), (2, 0)]:
        part = expression.evaluate(BATCH.slice(start, size)).values
        part.validate(full=True)
        assert str(part.to_pylist()) == str(whole.slice(start, size).to_pylist())


def test_an_expression_survives_pickling_and_needs_only_its_columns() -> None:
    expression = compile_expression("a + x", BATCH.schema)
    again: Expression = pickle.loads(pickle.dumps(expression))
    assert again.columns == ("a", "x")
    assert again == expression
    turned = BATCH.select(["x", "s", "a"])
    assert str(again.evaluate(turned).values) == str(expression.evaluate(BATCH).values)


def test_a_batch_that_is_not_of_the_schema_is_refused() -> None:
    expression = compile_expression("a + 1", BATCH.schema)
    with pytest.raises(DataError, match="must have column 'a', got x"):
        expression.evaluate(BATCH.select(["x"]))
    with pytest.raises(DataError, match="Column 'a' must be int32 as it was compiled, got int64"):
        expression.evaluate(pa.record_batch({"a": pa.array([1], pa.int64())}))


@pytest.mark.parametrize(
    ("array", "text", "expected"),
    [
        (pa.array([200, None], pa.uint8()), "c + 0", pa.array([200, None], pa.int32())),
        (pa.array([60_000], pa.uint16()), "c", pa.array([60_000], pa.int32())),
        (pa.array([4_000_000_000], pa.uint32()), "c", pa.array([4_000_000_000], pa.int64())),
        (pa.array([2**64 - 1], pa.uint64()), "c", pa.array([2.0**64])),
        (pa.array(np.array([1.5], np.float16)), "c", pa.array([1.5], pa.float32())),
        (pa.array([Decimal("1.25")]), "c * 2", pa.array([2.5])),
        (pa.array(["a", None, "a"]).dictionary_encode(), "c", pa.array(["a", None, "a"])),
        (pa.array(["b"], pa.large_string()), "c", pa.array(["b"])),
        (pa.array(["b"], pa.string_view()), "c || c", pa.array(["bb"])),
        (pa.array([-1, 1999], pa.timestamp("ns")), "unix_seconds(c)", pa.array([-1, 0])),
        (pa.array([-1], pa.timestamp("ns")), "right(c::string, 6)", pa.array(["999999"])),
        (pa.array([5], pa.timestamp("s")), "unix_seconds(c)", pa.array([5])),
        (pa.array([5_000], pa.timestamp("ms", tz="Asia/Tokyo")), "unix_seconds(c)", pa.array([5])),
        (pa.array([2**62], pa.timestamp("s")), "unix_seconds(c)", pa.array([None], pa.int64())),
        (pa.array([date(2020, 1, 2)], pa.date64()), "day(c)", pa.array([2], pa.int32())),
        (pa.nulls(2), "coalesce(c, 1)", pa.array([1, 1], pa.int32())),
    ],
)  # fmt: skip
def test_other_arrow_types_are_read_as_the_nearest_kind(
    array: pa.Array, text: str, expected: pa.Array
) -> None:
    batch = pa.record_batch({"c": array})
    found = compile_expression(text, batch.schema).evaluate(batch).values
    assert found.equals(expected), found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("distanc + 1", "must use columns that exist once, got 'distanc'.*mean 'Distance'"),
        ("distance + 1", "Did you mean 'Distance'"),
        ("items", "must be a number, boolean, string, date or timestamp.*list<"),
        ("s + 1", r"'\+' must take tinyint, .*, got string; convert the argument with CAST"),
        ("s = 1", "'=' must compare or combine values of one type, got string, int"),
        ("o = 1", "got boolean, int"),
        ("d = 'tomorrow'", "must compare a date with a date, got 'tomorrow'"),
        ("d + 1", "must take"),
        ("s || 1", r"'\|\|' must take string, got int"),
        ("upper(1)", "'upper' must take string, got int"),
        ("upper(NULL)", "must know the type of its argument"),
        ("year(s)", "'year' must take date, timestamp, got string"),
        ("NOT 1", "'NOT' must take boolean, void, got int"),
        ("o AND 1", "'AND' must take boolean, void, got int"),
        ("CASE WHEN 1 THEN 2 END", "'CASE WHEN' must take boolean"),
        ("CASE WHEN o THEN 1 ELSE 'a' END", "one type, got int, string"),
        ("CAST(o AS date)", "CAST of a boolean must go to"),
        ("CAST(d AS int)", "CAST of a date must go to timestamp, string, got int"),
        ("s LIKE s", "'like' must have a string literal as its pattern"),
        ("s LIKE 'a\\\\'", "must have _, % or"),
        ("s LIKE 'a' ESCAPE 'xy'", "one character as ESCAPE"),
        ("s IN (s)", "'in' must have valid literals in its list"),
        ("substring(s, Distance)", "'substring' must have an integer literal as its position"),
        ("round(Distance, 99)", "'round' must have -15 to 15 digits, got 99"),
        ("date_trunc('monht', d)", "Did you mean 'month'"),
        ("date_add(d, 1L)", "'date_add' must take tinyint, smallint, int, got bigint"),
        ("5.5D DIV 2", "'div' must take tinyint, .*, got double"),
        ("NULL", "it is always NULL"),
        ("twice", "exist once, got 'twice'"),
    ],
)
def test_a_wrong_type_or_name_is_refused_when_compiled(text: str, reason: str) -> None:
    schema = pa.schema(
        [
            ("Distance", pa.int32()),
            ("s", pa.string()),
            ("o", pa.bool_()),
            ("d", pa.date32()),
            ("items", pa.list_(pa.int32())),
            ("twice", pa.int32()),
            ("twice", pa.int32()),
        ]
    )
    with pytest.raises(SpecError, match=reason):
        compile_expression(text, schema)


def test_every_documented_function_has_a_builder() -> None:
    assert set(ARITIES) <= set(BUILDERS)


def test_nested_choices_compile_and_run_in_linear_time() -> None:
    text = "a"
    for _ in range(20):
        text = f"CASE ({text}) BETWEEN 1 AND 2 WHEN TRUE THEN 1 ELSE 2 END"
    assert check_syntax(text) == ("a",)
    values = compile_expression(text, BATCH.schema).evaluate(BATCH).values
    assert len(values) == 4


def test_a_long_chain_is_one_loop() -> None:
    expression = compile_expression(" + ".join(["x"] * 2_000), BATCH.schema)
    assert expression.evaluate(BATCH).values[0].as_py() == 5_000.0


def test_extreme_timestamps_keep_their_instant() -> None:
    instant = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
    batch = pa.record_batch({"t": pa.array([instant], pa.timestamp("us", tz="UTC"))})
    values = compile_expression("CAST(CAST(t AS string) AS timestamp)", batch.schema)
    assert values.evaluate(batch).values[0].as_py() == instant
