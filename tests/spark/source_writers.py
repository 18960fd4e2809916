"""The same awkward rows, written to Parquet by each engine that users have, in its own types.

pandas, Polars and DuckDB come with the extra `dev` alone: the product needs none of them.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyspark.sql import SparkSession

ROWS = 200
START_S = 1711845000  # 2024-03-31 00:30 UTC: half an hour before Berlin's clocks jump
STEP_S = 1800
PART_NS = 123_456_789


def instant_ns(i: int) -> int:
    """Return an instant of a row; that of an odd row lies before 1970."""
    ns = (START_S + STEP_S * i) * 10**9 + PART_NS
    return -ns if i % 2 else ns


def expected() -> list[dict[str, Any]]:
    """Return the rows as they must come out of the ETL."""
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return [
        {
            "id": i,
            "at": epoch + dt.timedelta(microseconds=instant_ns(i) // 1000),
            "zoned": epoch + dt.timedelta(seconds=START_S + STEP_S * i),
            "day": dt.date(1969, 12, 30) + dt.timedelta(days=i),
            "c": "abc"[i % 3],
            "s": f"grüß-{i % 7}",
            "u8": 250.0,
            "u32": 4294967040.0,
            "u64": float(2**63) if i % 2 else float(i),
            "d": i / 4 - 10,
            "n": None if i % 10 == 0 else float(i),
            "k": float(10 * (i % 2)),
            "2B": i / 2,
            "a b": float(i),
            "y": float(i % 5 < 2),
        }
        for i in range(ROWS)
    ]


def _columns() -> dict[str, list[Any]]:
    rows = expected()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    whole = ("u8", "u32", "u64", "n", "k", "a b")
    for name in whole:
        columns[name] = [None if v is None else int(v) for v in columns[name]]
    columns["d"] = [Decimal(i) / 4 - 10 for i in range(ROWS)]
    columns["y"] = [bool(v) for v in columns["y"]]
    columns["at"] = [instant_ns(i) for i in range(ROWS)]
    return columns


def write_pandas(session: SparkSession, folder: Path) -> None:
    columns = _columns()
    frame = pd.DataFrame({name: columns[name] for name in ("id", "day", "d", "2B", "y")})
    frame["at"] = pd.Series(columns["at"]).astype("datetime64[ns]")
    zoned = pd.to_datetime(pd.Series(columns["zoned"]), utc=True)
    frame["zoned"] = zoned.dt.as_unit("ns").dt.tz_convert("Europe/Berlin")
    frame["c"] = pd.Series(columns["c"], dtype="category")
    frame["k"] = pd.Series(columns["k"], dtype="category")
    frame["s"] = pd.Series(columns["s"], dtype="large_string[pyarrow]")
    kinds = {"u8": "uint8", "u32": "uint32", "u64": "uint64", "n": "Int32", "a b": "int16"}
    for name, kind in kinds.items():
        frame[name] = pd.Series(columns[name], dtype=kind)
    frame.to_parquet(folder / "a.parquet")


def write_polars(session: SparkSession, folder: Path) -> None:
    kinds: dict[str, Any] = {
        "at": pl.Datetime("ns"),
        "zoned": pl.Datetime("ns", "Europe/Berlin"),
        "c": pl.Categorical(),
        "u8": pl.UInt8(),
        "u32": pl.UInt32(),
        "u64": pl.UInt64(),
        "d": pl.Decimal(12, 2),
        "n": pl.UInt8(),
        "a b": pl.UInt16(),
    }
    columns = _columns()
    series = [
        pl.Series(name, values, dtype=pl.Int64()).cast(kinds[name])
        if name == "at"
        else pl.Series(name, values, dtype=kinds.get(name))
        for name, values in columns.items()
    ]
    pl.DataFrame(series).write_parquet(folder / "a.parquet")


_DUCKDB = f"""
    SELECT i AS id,
           make_timestamp_ns(CASE WHEN i % 2 = 1 THEN -1 ELSE 1 END
                             * (({START_S} + {STEP_S} * i) * 1000000000 + {PART_NS})) AS at,
           to_timestamp({START_S} + {STEP_S} * i) AS zoned,
           (DATE '1969-12-30' + i::INT) AS day,
           (['a', 'b', 'c'][i % 3 + 1])::ENUM('a', 'b', 'c') AS c,
           'grüß-' || (i % 7) AS s,
           250::UTINYINT AS u8,
           4294967040::UINTEGER AS u32,
           CASE WHEN i % 2 = 1 THEN 9223372036854775808::UBIGINT ELSE i::UBIGINT END AS u64,
           (i / 4 - 10)::DECIMAL(12, 2) AS d,
           CASE WHEN i % 10 = 0 THEN NULL ELSE i::UTINYINT END AS n,
           (10 * (i % 2))::HUGEINT AS k,
           i / 2 AS "2B",
           i::USMALLINT AS "a b",
           i % 5 < 2 AS y
    FROM range({ROWS}) r(i)
"""


def write_duckdb(session: SparkSession, folder: Path) -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"COPY ({_DUCKDB}) TO '{folder / 'a.parquet'}' (FORMAT parquet)")


_SPARK = f"""
    SELECT id,
           timestamp_micros((CASE WHEN id % 2 = 1 THEN -1 ELSE 1 END
                * (({START_S} + {STEP_S} * id) * 1000000 + {PART_NS // 1000}))
                - id % 2)::timestamp_ntz AS at,
           timestamp_seconds({START_S} + {STEP_S} * id) AS zoned,
           date_add(DATE '1969-12-30', id::int) AS day,
           cast(array('a', 'b', 'c')[id % 3] AS char(1)) AS c,
           cast('grüß-' || (id % 7) AS varchar(20)) AS s,
           250::smallint AS u8,
           4294967040L AS u32,
           CASE WHEN id % 2 = 1 THEN 9223372036854775808::decimal(20, 0)
                ELSE id::decimal(20, 0) END AS u64,
           (id / 4 - 10)::decimal(12, 2) AS d,
           CASE WHEN id % 10 = 0 THEN NULL ELSE id::smallint END AS n,
           (10 * (id % 2))::tinyint AS k,
           (id / 2)::float AS `2B`,
           id::int AS `a b`,
           id % 5 < 2 AS y
    FROM range({ROWS})
"""


_OUTPUT = "spark.sql.parquet.outputTimestampType"


def write_spark(session: SparkSession, folder: Path) -> None:
    session.sql(_SPARK).write.mode("append").parquet(str(folder))


def write_spark_int96(session: SparkSession, folder: Path) -> None:
    """Write as a Spark does whose settings nobody changed."""
    ours = session.conf.get(_OUTPUT)
    session.conf.set(_OUTPUT, "INT96")
    try:
        write_spark(session, folder)
    finally:
        session.conf.set(_OUTPUT, ours)


def write_int96(session: SparkSession, folder: Path) -> None:
    """Write every time as Hive and Impala do."""
    columns = _columns()
    kinds = {"at": pa.timestamp("ns"), "u64": pa.uint64()}
    table = pa.table({n: pa.array(values, kinds.get(n)) for n, values in columns.items()})
    pq.write_table(table, folder / "a.parquet", use_deprecated_int96_timestamps=True)


WRITERS: dict[str, Callable[[SparkSession, Path], None]] = {
    "pandas": write_pandas,
    "polars": write_polars,
    "duckdb": write_duckdb,
    "spark": write_spark,
    "spark_int96": write_spark_int96,
    "int96": write_int96,
}
