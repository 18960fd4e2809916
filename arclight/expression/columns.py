"""A column while it is computed: its values, which rows are null, and which rows failed.

Numbers, booleans, dates and timestamps are numpy arrays, strings are Arrow arrays. A literal is
the same with a single value instead of an array, and numpy and Arrow spread it over the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.expression.kinds import ARROW, DTYPES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

Flags: TypeAlias = npt.NDArray[np.bool_]
Mask: TypeAlias = Flags | None


class Column(NamedTuple):
    """Values with two masks; a mask of None has no row set.

    `null` holds for every row without a value, failed rows included; `bad` holds for the rows in
    which Spark would have raised. Under `null` the values mean nothing.
    """

    data: Any
    null: Mask
    bad: Mask


def union(left: Mask, right: Mask) -> Mask:
    """Return the rows set in either mask."""
    if left is None:
        return right
    return left if right is None else left | right


def without(rows: Mask, removed: Mask) -> Mask:
    """Return the rows set in the first mask and not in the second."""
    return rows if rows is None or removed is None else rows & ~removed


def within(rows: Mask, kept: Flags) -> Mask:
    """Return the rows set in both."""
    return None if rows is None else rows & kept


def strict(columns: Iterable[Column]) -> tuple[Mask, Mask]:
    """Return null and bad of a function that reads its arguments left to right.

    As in Spark, a null argument ends the reading: what stands to its right is not evaluated in
    that row and cannot fail there.
    """
    null: Mask = None
    bad: Mask = None
    for column in columns:
        if column.bad is not None:
            bad = union(bad, without(column.bad, null))
        null = union(null, column.null)
    return null, bad


def fail(data: Any, null: Mask, bad: Mask, failed: Flags) -> Column:
    """Return a column in which the non-null rows of `failed` are bad as well."""
    if not failed.any():
        return Column(data, null, bad)
    rows = failed if null is None else failed & ~null
    return Column(data, union(null, rows), union(bad, rows))


def chosen(take: Flags, yes: Mask, no: Mask) -> Mask:
    """Return the mask of a choice between two columns."""
    if yes is None and no is None:
        return None
    return np.where(take, False if yes is None else yes, False if no is None else no)


def flags_of(array: pa.Array | pa.Scalar) -> Flags:
    """Return the values of an Arrow boolean array, nulls read as whatever lies under them."""
    if isinstance(array, pa.Scalar):
        return np.array(bool(array.as_py()))
    size = len(array)
    if size == 0:
        return np.zeros(0, np.bool_)
    return _bits(array.buffers()[1], array.offset, size)


def values_of(array: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the values of a primitive Arrow array without a copy; nulls hold anything."""
    size = len(array)
    if size == 0:
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, size + array.offset)[array.offset :]


def nulls_of(array: pa.Array) -> Mask:
    """Return which rows of an Arrow array are null."""
    if array.null_count == 0:
        return None
    if array.type.id == pa.null().id:
        return np.ones(len(array), np.bool_)
    return ~_bits(array.buffers()[0], array.offset, len(array))


def _bits(buffer: pa.Buffer, offset: int, size: int) -> Flags:
    packed = np.frombuffer(buffer, np.uint8)
    spread = np.unpackbits(packed, count=offset + size, bitorder="little")
    return spread[offset:].view(np.bool_)


def arrow_flags(flags: Flags) -> pa.Array | pa.Scalar:
    """Return a mask for an Arrow function: an array, or a scalar for a literal."""
    return pa.array(flags) if flags.ndim else pa.scalar(bool(flags))


def arrow_array(column: Column, kind: Kind, size: int) -> pa.Array:
    """Return the Arrow array of a computed column; nulls and failed rows are null in it."""
    if kind is Kind.TEXT:
        return _text_array(column, size)
    if kind is Kind.NULL:
        return pa.nulls(size)
    data = column.data
    if np.ndim(data) == 0:
        data = np.full(size, data, DTYPES[kind])
    if kind is Kind.BOOL:
        values = pa.py_buffer(np.packbits(data, bitorder="little"))
    else:
        values = pa.py_buffer(np.ascontiguousarray(data, DTYPES[kind]))
    return pa.Array.from_buffers(ARROW[kind], size, [_validity(column.null, size), values])


def _text_array(column: Column, size: int) -> pa.Array:
    data = column.data
    if isinstance(data, pa.Scalar):
        data = pa.repeat(data, size)
    if column.null is None and data.null_count == 0:
        return data
    if data.offset:
        data = pa.concat_arrays([data, pa.array([], pa.string())])
        if data.offset:
            data = data.take(pa.array(np.arange(size)))
    _, offsets, values = data.buffers()
    return pa.Array.from_buffers(
        pa.string(), size, [_validity(column.null, size), offsets, values]
    )


def _validity(null: Mask, size: int) -> pa.Buffer | None:
    if null is None:
        return None
    spread = np.broadcast_to(null, (size,))
    return pa.py_buffer(np.packbits(~spread, bitorder="little"))
