"""Stable 64-bit hashes of rows: the same row hashes alike in any engine, file order or release.

A value hashes by what it means: integers of any width by value, floats by their IEEE-754 double
(-0.0 as 0.0, every NaN alike), strings by a polynomial over their UTF-8 bytes, instants by
microseconds since 1970 in UTC, null by a constant. Column hashes are mixed in order, so (a, b) and
(b, a) differ. The mixer is splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, OOPSLA 2014). Not for secrets: who chooses strings of a thousand bytes and more can
choose two that hash alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arclight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xA5A5_1E5F_00D0_0B1E)
_START = 0x6A09_E667_F3BC_C909  # of the root of 2: keeps a seed from trading places with a value
_BASES = (0x2F72_B421_5A35_93D5, 0xD6E8_FEB8_6659_FD93)  # odd, so they have inverses modulo 2**64
_SLICE_BYTES = 1 << 22


def mix(values: Hashes) -> Hashes:
    """Return splitmix64's finalizer of each value."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hash_rows(columns: Sequence[pa.Array], *, seed: int = 0) -> Hashes:
    """Hash each row of equally long columns.

    Args:
        columns: at least one; bool, integer, float, string, binary, date, timestamp.
        seed: another seed gives an independent hash; seeds of different parity also use different
            polynomials for strings, so two of them make a 128-bit digest.

    Returns:
        uint64 of shape [rows].

    Raises:
        DataError: a column's type cannot be hashed.
    """
    start = np.uint64((seed ^ _START) & 0xFFFF_FFFF_FFFF_FFFF)
    state = np.full(len(columns[0]), start, dtype=np.uint64)
    for column in columns:
        state = mix(mix(state) ^ _hash_column(column, seed))
    return state


def null_rows(columns: Sequence[pa.Array], rows: int) -> npt.NDArray[np.bool_]:
    """Return which of so many rows have a null in any of some columns."""
    found = np.zeros(rows, dtype=np.bool_)
    for column in columns:
        if column.null_count:
            found |= column.is_null().to_numpy(zero_copy_only=False)
    return found


def row_digests(columns: Sequence[pa.Array]) -> pa.Array:
    """Return a 128-bit digest of each row as 32 hexadecimal digits."""
    pairs = np.empty((len(columns[0]), 2), dtype=">u8")
    pairs[:, 0] = hash_rows(columns, seed=0)
    pairs[:, 1] = hash_rows(columns, seed=1)
    text = pairs.tobytes().hex().encode()
    offsets = np.arange(0, len(text) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(pairs), pa.py_buffer(offsets.tobytes()), pa.py_buffer(text)
    )


def _hash_column(column: pa.Array, seed: int) -> Hashes:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _hash_dictionary(column, seed)
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL)
    hashes = _hash_bytes(column, seed) if _is_text(kind) else mix(_bits(column))
    if column.null_count:
        hashes = np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL, hashes)
    return hashes


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or kind in (pa.string_view(), pa.binary_view())
    )


def _hash_dictionary(column: pa.DictionaryArray, seed: int) -> Hashes:
    levels = np.append(_hash_column(column.dictionary, seed), _NULL)
    codes = column.indices.cast(pa.int64()).fill_null(len(column.dictionary))
    return np.asarray(levels[codes.to_numpy(zero_copy_only=False)], dtype=np.uint64)


def _bits(column: pa.Array) -> Hashes:
    kind = column.type
    if pa.types.is_floating(kind):
        doubles = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        return (np.where(np.isnan(doubles), np.nan, doubles) + 0.0).view(np.uint64)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).view(pa.int64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32()).view(pa.int32())
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(
            f"a column of type {kind} cannot be part of a key or a group; cast it in etl.sql."
        )
    whole = pc.fill_null(column.cast(pa.int64(), safe=False), 0).to_numpy(zero_copy_only=False)
    return np.asarray(whole, dtype=np.int64).view(np.uint64)


def _hash_bytes(column: pa.Array, seed: int) -> Hashes:
    """Hash strings by sum((byte_i + 1) * P**i) modulo 2**64, mixed with the length."""
    if not len(column):
        return np.empty(0, dtype=np.uint64)
    column = column.cast(pa.large_binary())
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    data = column.buffers()[2]
    content = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, np.uint8)
    hashes = np.empty(len(column), dtype=np.uint64)
    start = 0
    while start < len(column):
        limit = offsets[start] + _SLICE_BYTES
        stop = int(np.searchsorted(offsets, limit, side="right")) - 1
        stop = min(max(start + 1, stop), len(column))
        hashes[start:stop] = _polynomials(content, offsets[start : stop + 1], seed)
        start = stop
    lengths = np.diff(offsets).astype(np.uint64)
    return mix(hashes ^ mix(lengths))


def _polynomials(
    content: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], seed: int
) -> Hashes:
    """Return each string's polynomial; strings in pieces where there is one that fills a slice."""
    base = _BASES[seed % len(_BASES)]
    if len(offsets) == 2 and offsets[1] - offsets[0] > _SLICE_BYTES:
        return _long_polynomial(content[offsets[0] : offsets[1]], base)
    first, last = int(offsets[0]), int(offsets[-1])
    powers = _powers(base, last - first + 1)
    inverses = _powers(pow(base, -1, 1 << 64), last - first + 1)
    total = np.zeros(last - first + 1, dtype=np.uint64)
    symbols = content[first:last].astype(np.uint64) + np.uint64(1)
    np.cumsum(symbols * powers[: last - first], out=total[1:])
    local = offsets - first
    return (total[local[1:]] - total[local[:-1]]) * inverses[local[:-1]]


def _long_polynomial(content: npt.NDArray[np.uint8], base: int) -> Hashes:
    """Return the polynomial of one long string, slice by slice, so that memory stays bounded."""
    powers = _powers(base, _SLICE_BYTES)
    total = 0
    for start in range(0, len(content), _SLICE_BYTES):
        symbols = content[start : start + _SLICE_BYTES].astype(np.uint64) + np.uint64(1)
        part = int((symbols * powers[: len(symbols)]).sum(dtype=np.uint64))
        total += part * pow(base, start, 1 << 64)
    return np.array([total & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64)


_CACHE: dict[int, Hashes] = {}


def _powers(base: int, count: int) -> Hashes:
    """Return base**0 … base**(count-1) modulo 2**64, kept for the next call of this process."""
    known = _CACHE.get(base)
    if known is None or len(known) < count:
        size = max(count, 1 << 16)
        known = np.full(size, np.uint64(base), dtype=np.uint64)
        known[0] = np.uint64(1)
        known = np.cumprod(known, dtype=np.uint64)
        _CACHE[base] = known
    return known
