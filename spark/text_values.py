"""Values in text that Spark's readers take for others than they are, without a word."""

from __future__ import annotations

import re
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from arclight.errors import DataError, SpecError, printable
from arclight.sql_guard import TIME_OF_DAY
from cluster.spark_errors import JVM_ERRORS
from spark.badrecord import explain_rows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from arclight.spec import Source

_LOOKED_AT = 1000
"""Rows in which odd times are looked for: they are written alike in a whole file."""
_OTHER_YEAR = re.compile(r"\s*[+-]?(\d{1,3}|\d{5,})(-.*)?\s*")
_SECONDS = re.compile(r"\d{9,11}")  # from 1973 to 5138
# how Java writes a double, a float and a hexadecimal one; and signs of one in a line
_OF_JAVA = r"^\s*[+-]?(0[xX].*|[0-9.]+([eE][+-]?[0-9]+)?[dDfF])\s*$"
_MAY_BE_OF_JAVA = r"[0-9.][dDfF]\b|0[xX]"


def refuse_odd_times(name: str, source: Source, text: DataFrame, schema: T.StructType) -> None:
    """Refuse what Spark, when it reads a date or a time out of text, makes another one of.

    That is: a time of day, which it completes with the day of the run; and digits that are no
    year of four, as 201301 or a time in milliseconds, which become a year or days since 1970.

    Args:
        name: of the source.
        source: how it is read.
        text: its rows, all columns as text.
        schema: what they are read as.

    Raises:
        SpecError: one of the first rows has such a value.
    """
    times = _of_kind(schema, T.DateType, T.TimestampType, T.TimestampNTZType)
    if not times:
        return
    try:
        rows = text.select([_column(one) for one in times]).limit(_LOOKED_AT).collect()
    except JVM_ERRORS as error:
        raise explain_rows(error, f"source '{name}' cannot be read") from error
    for row in rows:
        for column, value in zip(times, row, strict=True):
            kind = schema[column].dataType
            why = None if value is None else _odd_time(value, kind, source)
            if why is not None:
                raise SpecError(
                    f"source '{name}': '{printable(value)}' in column '{printable(column)}' "
                    f"{why}; give the types in sources.{name}.schema, this one as a string or "
                    "bigint, and say in etl.sql what it is, as to_date(…, 'yyyyMM') and "
                    "timestamp_millis(…) do."
                )


def refuse_java_numbers(
    name: str, lines: DataFrame | None, text: DataFrame, schema: T.StructType
) -> None:
    """Refuse texts that are numbers to Java alone: `12D` and `3F` would become 12 and 3.

    Args:
        name: of the source.
        lines: all of it as it stands; None where its encoding is another.
        text: its rows, all columns as text.
        schema: what they are read as.

    Raises:
        DataError: there is one.
    """
    fractions = _of_kind(schema, T.FloatType, T.DoubleType)
    if not fractions:
        return
    odd = [_column(one).rlike(_OF_JAVA) for one in fractions]
    try:
        if lines is not None and not lines.where(F.col("value").rlike(_MAY_BE_OF_JAVA)).take(1):
            return
        rows = text.where(reduce(or_, odd)).select([_column(one) for one in fractions]).take(1)
    except JVM_ERRORS as error:
        raise explain_rows(error, f"source '{name}' cannot be read") from error
    for row in rows:
        values = zip(fractions, row, strict=True)
        column, value = next(pair for pair in values if re.match(_OF_JAVA, pair[1] or ""))
        raise DataError(
            f"source '{name}': '{printable(value)}' in column '{printable(column)}' is no number, "
            "but Spark would make one of it, as Java does; mend it, or give the types in "
            f"sources.{name}.schema, this one as a string."
        )


# --------------------------------------------------------------------------------- inside


def _odd_time(value: str, kind: T.DataType, source: Source) -> str | None:
    """Return what Spark would make of a text, None where that is what it says."""
    is_date = isinstance(kind, T.DateType)
    if not is_date and TIME_OF_DAY.fullmatch(value):
        return "has no date, and Spark would take that of the day of the run"
    own = {"dateformat"} if is_date else {"timestampformat", "timestampntzformat"}
    if own & {option.lower() for option in source.options}:
        return None
    is_number = source.format == "json" and not is_date
    if is_number and (_SECONDS.fullmatch(value) or not value.strip().isdigit()):
        return None
    if is_number or _OTHER_YEAR.fullmatch(value):
        return "has no year of four digits, and Spark would make of it a year or a time since 1970"
    return None


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")


def _of_kind(schema: T.StructType, *kinds: type[T.DataType]) -> list[str]:
    return [field.name for field in schema.fields if isinstance(field.dataType, kinds)]
