"""Random typed row expressions, and the edge values they are tried on."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime

import pyarrow as pa
from hypothesis import strategies as st

ROWS = 24

INF, NAN = math.inf, math.nan
COLUMNS: dict[str, tuple[pa.DataType, list[object]]] = {
    "i8": (pa.int8(), [None, 0, 1, -1, 2, 7, 100, 127, -128]),
    "i16": (pa.int16(), [None, 0, 1, -1, 3, 300, 32767, -32768]),
    "i32": (pa.int32(), [None, 0, 1, -1, 5, 1000, 46341, 2**31 - 1, -(2**31)]),
    "i64": (pa.int64(), [None, 0, 1, -1, 9, 10**10, 2**53 + 1, 3037000500, 2**63 - 1, -(2**63)]),
    "f32": (pa.float32(), [None, 0.0, -0.0, 1.5, -2.25, 0.1, 16777217.0, 3e38, INF, -INF, NAN]),
    "f64": (
        pa.float64(),
        [
            None,
            0.0,
            -0.0,
            0.5,
            -1.5,
            2.675,
            1.005,
            1e-300,
            1e300,
            9.3e18,
            2.0**63,
            123456789.125,
            INF,
            -INF,
            NAN,
            2147483647.5,
            -128.9,
            0.1,
        ],
    ),
    "flag": (pa.bool_(), [None, True, False]),
    "s": (
        pa.string(),
        [
            None,
            "",
            " ",
            "a",
            "A",
            "ab",
            "b",
            "Ångström",
            "😀",
            "x😀y",
            "a\x00b",
            "a_b",
            "a%b",
            "12",
            " -7 ",
            "+3",
            "007",
            "300",
            "2147483648",
            "9223372036854775808",
            "1e3",
            "1.5",
            "NaN",
            "-Infinity",
            "true",
            "No",
            "2020-02-29",
            "2021-02-29",
            "1582-10-10",
            "0001-01-01",
            "2020-01-01 01:02:03.5",
            "9999-12-31T23:59:59Z",
            "\t8",
            "ÿ",
            "z",
            "\ue000",
            "abcabc",
        ],
    ),
    "u": (pa.string(), [None, "", "a", "ab", "B", "é", "😀", "a\\b", "10", "\uffee"]),
    "d": (
        pa.date32(),
        [
            None,
            date(1, 1, 1),
            date(9999, 12, 31),
            date(1582, 10, 4),
            date(1582, 10, 15),
            date(1582, 10, 10),
            date(1970, 1, 1),
            date(1969, 12, 31),
            date(2020, 2, 29),
            date(1900, 3, 1),
            date(2000, 12, 31),
            date(2021, 1, 3),
            date(1500, 2, 28),
        ],
    ),
    "t": (
        pa.timestamp("us", tz="UTC"),
        [
            None,
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 500000, UTC),
            datetime(1582, 10, 9, 12, 0, 1, tzinfo=UTC),
            datetime(2020, 2, 29, 13, 14, 15, 16, UTC),
            datetime(1500, 2, 28, 1, 1, 1, tzinfo=UTC),
            datetime(2013, 11, 1, 5, tzinfo=UTC),
        ],
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


LEAVES = {
    "int": [
        "i8",
        "i16",
        "i32",
        "i64",
        "0",
        "1",
        "-3",
        "7Y",
        "300S",
        "2147483647",
        "5L",
        "9223372036854775807L",
    ],
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
        "dayofweek(<moment>)", "weekday(<moment>)", "dayofyear(<moment>)",
        "weekofyear(<moment>)",
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
        "(<date> IN ('2020-02-29', DATE '1970-01-01'))",
        "(<int> NOT IN (0, 1, 2, 3, 4, 5, 6, 7, 8, 9))",
        "(<number> BETWEEN <number> AND <number>)", "(<text> BETWEEN <text> AND <text>)",
        "(<text> LIKE 'a%')", "(<text> LIKE '%b')", "(<text> LIKE '_')", "(<text> LIKE '%a_b%')",
        "(<text> LIKE 'a\\\\_b')", "(<text> NOT LIKE 'a/%b' ESCAPE '/')",
        "contains(<text>, '😀')",
        "startswith(<text>, 'a')", "endswith(<text>, '')", "CAST(<number> AS boolean)",
        "CAST(<text> AS boolean)", "TRY_CAST(<text> AS boolean)", "(<bool> IS TRUE)",
    ],
    "text": [
        "concat(<text>, <text>)", "(<text> || <text>)", "concat(<text>, <text>, 'z')",
        "trim(<text>)", "ltrim(<text>)", "rtrim(<text>)", "substring(<text>, 2)",
        "substring(<text>, -2, 1)", "substr(<text>, 0, 2)", "substring(<text>, -5, 4)",
        "left(<text>, 1)", "right(<text>, 2)", "replace(<text>, 'a', '😀')",
        "replace(<text>, 'b')",
        "CAST(<int> AS string)", "CAST(<bool> AS string)", "CAST(<moment> AS string)",
        "upper(<text>)", "lower(<text>)",
    ],
    "date": [
        "CAST(<text> AS date)", "TRY_CAST(<text> AS date)", "CAST(<time> AS date)",
        "to_date(<moment>)", "date_add(<moment>, i8)", "date_sub(<date>, 3)",
    ],
    # a cut string may be a time alone, which Spark reads as of today: a documented difference
    "time": [
        "CAST(s AS timestamp)", "TRY_CAST(trim(s) AS timestamp)",
        "CAST(<date> AS timestamp)",
        "CAST(i32 AS timestamp)", "date_trunc('month', <moment>)",
        "date_trunc('week', <moment>)",
        "date_trunc('hour', <time>)", "date_trunc('quarter', <date>)",
        "date_trunc('year', <time>)",
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
