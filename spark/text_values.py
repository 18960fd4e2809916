"""Values in text that Spark's readers take for others than they are, without a word."""

from __future__ import annotations

import re
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
"""Rows in which odd values are looked for: most often a whole file is written alike."""
_OTHER_YEAR = re.compile(r"\s*[+-]?(\d{1,3}|\d{5,})(-.*)?\s*")
_SECONDS = re.compile(r"\d{9,11}")  # from 1973 to 5138
# how Java writes a double, a float and a hexadecimal one
_OF_JAVA = re.compile(r"\s*[+-]?(0[xX].*|[0-9.]+([eE][+-]?[0-9]+)?[dDfF])\s*")
_TIMES = (T.DateType, T.TimestampType, T.TimestampNTZType)
_FRACTIONS = (T.FloatType, T.DoubleType)


def refuse_odd_values(name: str, source: Source, text: DataFrame, schema: T.StructType) -> None:
    """Refuse what Spark, when it reads a time or a number out of text, makes another one of.

    That is: a time of day, which it completes with the day of the run; digits that are no year
    of four, as 201301 or a time in milliseconds, which become a year or days since 1970; and in
    a CSV numbers as Java alone writes them: `12D` and `3F` become 12 and 3.

    Args:
        name: of the source.
        source: how it is read.
        text: its rows, all columns as text.
        schema: what they are read as.

    Raises:
        SpecError: one of the first rows has such a time.
        DataError: one has such a number.
    """
    kinds = _TIMES if source.format == "json" else (*_TIMES, *_FRACTIONS)
    fields = [field for field in schema.fields if isinstance(field.dataType, kinds)]
    if not fields:
        return
    try:
        rows = text.select([_column(field.name) for field in fields]).limit(_LOOKED_AT).collect()
    except JVM_ERRORS as error:
        raise explain_rows(error, f"source '{name}' cannot be read") from error
    for row in rows:
        for field, value in zip(fields, row, strict=True):
            if value is None:
                continue
            if isinstance(field.dataType, _FRACTIONS):
                _refuse_java_number(name, field.name, value)
            else:
                _refuse_odd_time(name, source, field, value)


# --------------------------------------------------------------------------------- inside


def _refuse_java_number(name: str, column: str, value: str) -> None:
    if _OF_JAVA.fullmatch(value):
        raise DataError(
            f"source '{name}': '{printable(value)}' in column '{printable(column)}' is no number, "
            "but Spark would make one of it, as Java does; mend it, or give the types in "
            f"sources.{name}.schema, this one as a string."
        )


def _refuse_odd_time(name: str, source: Source, field: T.StructField, value: str) -> None:
    why = _odd_time(value, field.dataType, source)
    if why is not None:
        raise SpecError(
            f"source '{name}': '{printable(value)}' in column '{printable(field.name)}' "
            f"{why}; give the types in sources.{name}.schema, this one as a string or "
            "bigint, and say in etl.sql what it is, as to_date(…, 'yyyyMM') and "
            "timestamp_millis(…) do."
        )


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
