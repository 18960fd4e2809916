"""Columns and their types as values: a source's contract and a model's signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from arclight.contract import Contract
from arclight.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMESTAMP = pa.timestamp("us", tz="UTC")

# The raw types that may reach a key, a derive expression or a feature, by their stored name.
ARROW_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": TIMESTAMP,
}
NAMES = {arrow: name for name, arrow in ARROW_TYPES.items()}
TypeName = Literal[
    "bool", "int8", "int16", "int32", "int64", "float32", "float64", "string", "binary", "date",
    "timestamp",
]  # fmt: skip


class Column(Contract):
    """A column's name and type: an `ARROW_TYPES` name or, in a source, the engine's."""

    name: str
    type: str


class SourceContract(Contract):
    """What a source's columns were when the first version of a dataset was built."""

    source: str
    columns: tuple[Column, ...]


def compare(expected: SourceContract, found: SourceContract) -> tuple[str, ...]:
    """Return one sentence part per difference, empty when the found columns keep the contract."""
    before = {column.name: column.type for column in expected.columns}
    now = {column.name: column.type for column in found.columns}
    missing = [
        f"column '{name}' ({before[name]}) is missing" for name in before if name not in now
    ]
    new = [f"column '{name}' ({now[name]}) is new" for name in now if name not in before]
    retyped = [
        f"column '{name}' was {before[name]}, is {now[name]}"
        for name in before
        if name in now and now[name] != before[name]
    ]
    return (*missing, *new, *retyped)


def hold(expected: Sequence[SourceContract], found: Sequence[SourceContract]) -> None:
    """Refuse sources that differ from their contracts, every difference in one message.

    Raises:
        SchemaError: a column is missing, new or of another type.
    """
    known = {contract.source: contract for contract in expected}
    differences = [
        f"source '{contract.source}': " + ", ".join(parts)
        for contract in found
        if contract.source in known and (parts := compare(known[contract.source], contract))
    ]
    if differences:
        raise SchemaError(
            "; ".join(differences)
            + "; a source must keep the columns of the first version: mend the source, or run "
            "again with --accept-schema to make the new columns the contract."
        )


def raw_type(name: str, arrow: pa.DataType) -> pa.DataType:
    """Return the raw type that stands for an Arrow type as engines write it.

    Unsigned integers widen, decimals become float64, any timestamp becomes microseconds in UTC,
    large and dictionary strings become strings.

    Raises:
        SchemaError: the type is nested or has no raw type; the message names the column.
    """
    if arrow in NAMES:
        return arrow
    if pa.types.is_dictionary(arrow):
        return raw_type(name, arrow.value_type)
    if pa.types.is_timestamp(arrow):
        return TIMESTAMP
    widened = _WIDENED.get(arrow)
    if widened is not None:
        return widened
    if pa.types.is_decimal(arrow):
        return pa.float64()
    raise SchemaError(
        f"column '{name}' must be a number, boolean, string, date or timestamp, got {arrow}; "
        "select its parts in etl.sql or name it in etl.drop."
    )


_WIDENED: dict[pa.DataType, pa.DataType] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.float64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.null(): pa.string(),
}
