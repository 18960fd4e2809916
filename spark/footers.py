"""Footers of a source's files, read before any task starts: damage and disagreement are named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from arclight.errors import DataError, SchemaError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arclight.spec import Source

_THREADS = 8
_MOST_DIGITS = 38  # of a decimal of Spark
FOOTED = {"parquet": "Parquet", "orc": "ORC"}
"""Formats whose files say their columns at their ends, as a message names them."""


@dataclass(frozen=True)
class Footers:
    """What the footers of a source's files say: the columns of all, and the rows they hold."""

    schema: pa.Schema
    rows: int

    @property
    def nanosecond_columns(self) -> tuple[str, ...]:
        """Timestamps in nanoseconds, which Spark reads as plain integers from Parquet."""
        return tuple(
            field.name
            for field in self.schema
            if pa.types.is_timestamp(field.type) and field.type.unit == "ns"
        )


def read_footers(name: str, source: Source, files: Sequence[Path]) -> Footers | None:
    """Read every footer and check that the files agree; None where they have none.

    With `mergeSchema` files may lack columns that others have. Without it Spark takes the columns
    of one file for those of all, and of ORC makes nulls of what does not fit.

    Args:
        name: of the source.
        source: how it is read.
        files: as they were listed.

    Raises:
        DataError: a file is no whole file of its format.
        SchemaError: two files disagree on a column, and the message names both; or no schema says
            what is to become of a column that Spark cannot read as what it is.
    """
    if source.format not in FOOTED or not files:
        return None
    may_differ = str(source.options.get("mergeSchema", "")).lower() == "true"
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(lambda file: _footer(name, source.format, file), files))
    first_file, (schema, _) = files[0], read[0]
    for file, (other, _) in zip(files[1:], read[1:], strict=True):
        # what none of the files before has, the next ones are compared with
        for field in other if may_differ else ():
            schema = schema if field.name in schema.names else schema.append(field)
        difference = _difference(schema, other, may_differ=may_differ)
        if difference:
            raise SchemaError(
                f"source '{name}': files disagree on {difference} "
                f"(first in '{printable(first_file)}', then in '{printable(file)}'); all files of "
                "a source must have the same columns: rewrite one of them."
            )
    if source.ddl is None:
        _refuse_types(name, schema)
    return Footers(schema=schema, rows=sum(rows for _, rows in read))


def _footer(name: str, kind: str, file: Path) -> tuple[pa.Schema, int]:
    try:
        if kind == "orc":
            with file.open("rb") as stream:
                found = orc.ORCFile(stream)
                return found.schema.remove_metadata(), found.nrows
        with pq.ParquetFile(file) as parquet:
            return parquet.schema_arrow.remove_metadata(), parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"source '{name}': '{printable(file)}' must be a whole {FOOTED[kind]} file, but its "
            f"footer cannot be read ({printable(error, limit=120)}); write the file again or "
            "remove it."
        ) from error


def _refuse_types(name: str, schema: pa.Schema) -> None:
    """Refuse a column that would stop Spark, dropped or not, or be a bare number to it."""
    for field in schema:
        kind, way = field.type, ""
        if pa.types.is_duration(kind):
            what = f"which Spark takes for a whole number ({kind.unit})"
            way = f"give it there as bigint, a number of {kind.unit}, or "
        elif _is_unread(kind):
            what = "which Spark cannot read"
        else:
            continue
        raise SchemaError(
            f"source '{name}': column '{printable(field.name)}' is {kind}, {what}; name the "
            f"columns to read in sources.{name}.schema: {way}leave it out there and in etl.drop, "
            "or write the file again with it as text or a number."
        )


def _is_unread(kind: pa.DataType) -> bool:
    is_wide = pa.types.is_decimal(kind) and kind.precision > _MOST_DIGITS
    return bool(is_wide or pa.types.is_time(kind) or pa.types.is_float16(kind))


def _difference(left: pa.Schema, right: pa.Schema, *, may_differ: bool) -> str:
    """Return the first column two schemas disagree on, empty when they agree."""
    for name in dict.fromkeys([*left.names, *right.names]):
        here, there = left.get_field_index(name), right.get_field_index(name)
        if here < 0 or there < 0:
            if may_differ:
                continue
            return f"column '{printable(name)}', which one of them lacks"
        a, b = _storage(left.field(here).type), _storage(right.field(there).type)
        if a != b:
            return f"column '{printable(name)}', {a} against {b}"
    return ""


def _storage(kind: pa.DataType) -> pa.DataType:
    """Return the type Spark sees: how strings are held in memory is no difference."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return kind
