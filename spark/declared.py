"""What a schema declares of files that carry their columns themselves: no value may change by it.

Spark takes the bytes of a file for what the schema says. Where it cannot it mostly stops; but a
whole number of Parquet that does not fit becomes another, and any value of ORC becomes null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import types as T

from arclight.errors import SchemaError, nearest, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from spark.footers import Footers

_BITS: dict[type[T.DataType], int] = {
    T.ByteType: 8, T.ShortType: 16, T.IntegerType: 32, T.LongType: 64,
}  # fmt: skip
_WHOLE_IN_DOUBLE = 32  # the widest type of which a double holds every whole number
_OF_ORC: tuple[tuple[Callable[[pa.DataType], bool], tuple[type[T.DataType], ...]], ...] = (
    (pa.types.is_boolean, (T.BooleanType,)),
    (pa.types.is_float32, (T.FloatType, T.DoubleType)),
    (pa.types.is_float64, (T.DoubleType,)),
    (pa.types.is_string, (T.StringType,)),
    (pa.types.is_binary, (T.BinaryType,)),
    (pa.types.is_date, (T.DateType,)),
    (pa.types.is_timestamp, (T.TimestampType, T.TimestampNTZType)),
)


def refuse_declared(
    name: str, kind: str, schema: T.StructType, footers: Footers, of_path: Collection[str]
) -> None:
    """Refuse a schema that names a column no file has, or by which a value would be another.

    Args:
        name: of the source.
        kind: its format, one that has footers.
        schema: as Spark reads it.
        footers: of its files.
        of_path: columns that its folders carry, in lower case.

    Raises:
        SchemaError: the column, and both types or the nearest name.
    """
    names = footers.schema.names
    if kind == "orc" and all(one.startswith("_col") for one in names):
        names = schema.names[: len(names)]  # as Hive wrote them: Spark goes by position
    found = {one.lower(): field.type for one, field in zip(names, footers.schema, strict=False)}
    for field in schema.fields:
        have = found.get(field.name.lower())
        if have is None and field.name.lower() not in of_path:
            raise SchemaError(
                f"source '{name}': sources.{name}.schema names the column "
                f"'{printable(field.name)}', which its files do not have."
                f"{nearest(field.name, names)} Correct it or take it out."
            )
        if have is not None and not _keeps(kind, have, field.dataType):
            raise SchemaError(
                f"source '{name}': sources.{name}.schema says that '{printable(field.name)}' is "
                f"{field.dataType.simpleString()}, but its files hold {have}, whose values would "
                "become others or null without a word; give it a type that holds them all, and "
                "CAST it in etl.sql, which tells of a value that does not fit."
            )


def _keeps(kind: str, have: pa.DataType, wanted: T.DataType) -> bool:
    """Whether each value stays what it is; also where Spark stops by itself."""
    if pa.types.is_dictionary(have):
        have = have.value_type
    if pa.types.is_integer(have) and type(wanted) in (*_BITS, T.DoubleType):
        bits = int(have.bit_width) * (2 if pa.types.is_unsigned_integer(have) else 1)
        return bits <= _BITS.get(type(wanted), _WHOLE_IN_DOUBLE)
    if kind == "parquet" or pa.types.is_nested(have):
        return True
    if pa.types.is_decimal(have) and isinstance(wanted, T.DecimalType):
        whole = wanted.precision - wanted.scale
        return bool(wanted.scale >= have.scale and whole >= have.precision - have.scale)
    return any(is_one(have) and isinstance(wanted, kinds) for is_one, kinds in _OF_ORC)
