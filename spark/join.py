"""Sources to one table by the spec's SQL, with every column of a raw type."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from arclight.errors import SpecError
from arclight.schema import ARROW_TYPES
from arclight.sql_guard import check_all_read, check_select, refuse_moving
from cluster.spark_errors import JVM_ERRORS, describe_spark_error
from spark.columns import check_distinct, check_dropped, check_indexes, nested_refused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pyspark.sql import Column, DataFrame, SparkSession

    from spark.read import SourceTable

RAW: dict[type[T.DataType], tuple[str, str]] = {
    # Spark's type -> (cast to, raw type)
    T.BooleanType: ("boolean", "bool"),
    T.ByteType: ("tinyint", "int8"),
    T.ShortType: ("smallint", "int16"),
    T.IntegerType: ("int", "int32"),
    T.LongType: ("bigint", "int64"),
    T.FloatType: ("float", "float32"),
    T.DoubleType: ("double", "float64"),
    T.DecimalType: ("double", "float64"),
    T.StringType: ("string", "string"),
    T.CharType: ("string", "string"),
    T.VarcharType: ("string", "string"),
    T.NullType: ("string", "string"),
    T.BinaryType: ("binary", "binary"),
    T.DateType: ("date", "date"),
    T.TimestampType: ("timestamp", "timestamp"),
    T.TimestampNTZType: ("timestamp", "timestamp"),
}


def join_sources(
    session: SparkSession,
    tables: Sequence[SourceTable],
    sql: str,
    *,
    key: Collection[str],
    drop: Collection[str],
) -> tuple[DataFrame, pa.Schema]:
    """Join the sources and give every column a raw type.

    Decimals become float64, in a key strings (a key must compare exactly); nested columns must be
    dropped. Other dropped columns stay, for checks and for the quarantine.

    Returns:
        The table and its raw schema.

    Raises:
        SpecError: the SQL is no single SELECT over the sources, makes a date or a time of a text
            that the clock decides, or Spark refuses it.
        SchemaError: two columns share a name, or a column is nested or a pandas index and not
            dropped.
    """
    names = [table.name for table in tables]
    check_select(sql, names)
    check_all_read(sql, names)
    for table in tables:
        table.table.createOrReplaceTempView(table.name)
    try:
        joined = session.sql(sql)
        fields = joined.schema.fields
        plan = json.loads(joined._jdf.queryExecution().analyzed().toJSON())
    except JVM_ERRORS as error:
        raise SpecError(f"etl.sql: {describe_spark_error(error)}") from error
    for text in _texts_as_times(plan):
        refuse_moving(text)
    check_distinct([field.name for field in fields])
    check_dropped([field.name for field in fields], drop)
    check_indexes([field.name for field in fields], {*drop, *key})
    kept = [field for field in fields if not (field.name in drop and _is_nested(field))]
    columns, raw = [], []
    for field in kept:
        column, kind = _raw(field, is_key=field.name in key)
        columns.append(column.alias(field.name))
        raw.append((field.name, ARROW_TYPES[kind]))
    return joined.select(*columns), pa.schema(raw)


def _texts_as_times(plan: Any) -> Iterator[str]:
    """Yield the texts that Spark makes a date or a time of, as it does beside one unasked.

    Args:
        plan: as Spark writes it in JSON, where a tree is a list in which the first child of a
            node follows it.
    """
    if isinstance(plan, dict):
        plan = list(plan.values())
    if not isinstance(plan, list):
        return
    for node, child in itertools.pairwise(plan):
        if isinstance(node, dict) and isinstance(child, dict) and _makes_a_time(node):
            is_text = child["class"].endswith(".Literal") and child["dataType"] == "string"
            if is_text and child["value"] is not None:
                yield child["value"]
    for part in plan:
        yield from _texts_as_times(part)


def _makes_a_time(node: dict[str, Any]) -> bool:
    kind = str(node.get("class")).rpartition(".")[2]
    return kind in ("ParseToDate", "ParseToTimestamp") or (
        kind == "Cast" and node["dataType"] in ("date", "timestamp", "timestamp_ntz")
    )


def _is_nested(field: T.StructField) -> bool:
    return type(field.dataType) not in RAW


def _raw(field: T.StructField, *, is_key: bool) -> tuple[Column, str]:
    if _is_nested(field):
        raise nested_refused(field.name, field.dataType.simpleString())
    column = F.col("`" + field.name.replace("`", "``") + "`")
    if is_key and isinstance(field.dataType, T.DecimalType):
        return column.cast("string"), "string"
    cast, kind = RAW[type(field.dataType)]
    return column.cast(cast), kind
