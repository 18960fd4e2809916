"""From the columns of a batch to computed columns: which Arrow types are read, and as what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from arclight.expression.columns import Column, fail, flags_of, nulls_of, values_of
from arclight.expression.kinds import ARROW, DTYPES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_Read = tuple[Kind, "Callable[[pa.Array], Column]"]
# Arrow types that no kind stands for, and the Arrow type they are read as
_WIDER: dict[pa.DataType, pa.DataType] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.float64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.date64(): pa.date32(),
}
_KINDS = {arrow: kind for kind, arrow in ARROW.items() if kind is not Kind.TIME}
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def reader_of(arrow: pa.DataType) -> _Read | None:
    """Return how columns of an Arrow type are read, or None when they cannot be."""
    if pa.types.is_timestamp(arrow):
        return Kind.TIME, _timestamps(arrow.unit)
    if arrow in _KINDS:
        kind = _KINDS[arrow]
        return kind, _plain(kind)
    wider = _wider(arrow)
    if wider is None:
        return None
    kind = _KINDS[wider]
    read = _plain(kind)
    return kind, lambda array: read(array.cast(wider, safe=False))


def _wider(arrow: pa.DataType) -> pa.DataType | None:
    if pa.types.is_decimal(arrow):
        return pa.float64()
    if pa.types.is_dictionary(arrow):
        found = reader_of(arrow.value_type)
        return pa.string() if found is not None and found[0] is Kind.TEXT else None
    return _WIDER.get(arrow)


def _plain(kind: Kind) -> Callable[[pa.Array], Column]:
    if kind is Kind.TEXT:
        return lambda array: Column(array, nulls_of(array), None)
    if kind is Kind.BOOL:
        return lambda array: Column(flags_of(array), nulls_of(array), None)
    if kind is Kind.NULL:
        return _nothing
    dtype = DTYPES[kind]
    return lambda array: Column(values_of(array, dtype), nulls_of(array), None)


def _nothing(array: pa.Array) -> Column:
    size = len(array)
    return Column(np.zeros(size, np.bool_), np.ones(size, np.bool_), None)


def _timestamps(unit: str) -> Callable[[pa.Array], Column]:
    """Read any unit as microseconds: finer ones are cut downwards, coarser ones may overflow."""
    length_ns = _UNIT_NS[unit]

    def read(array: pa.Array) -> Column:
        data: Any = values_of(array, np.int64)
        null = nulls_of(array)
        if length_ns < 1000:
            data = data // (1000 // length_ns)
        if length_ns <= 1000:
            return Column(data, null, None)
        factor = length_ns // 1000
        over = np.abs(data) > np.iinfo(np.int64).max // factor
        return fail(data * factor, null, None, over)

    return read
