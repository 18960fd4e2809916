"""CAST of a string to a number, a boolean, a date or a timestamp; what has no such form fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.expression.columns import Column, Flags, fail, flags_of, values_of
from arclight.expression.kinds import DTYPES, FLOATS, INTEGERS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_JAVA_BLANKS = "".join(map(chr, range(33)))
_BLANKS = _JAVA_BLANKS + "\x7f"
_TRUE = ("t", "true", "y", "yes", "1")
_FALSE = ("f", "false", "n", "no", "0")
_INTEGER = r"^(?P<sign>[+-]?)0*(?P<digits>\d{1,19})$"
_FLOAT = r"^\+?(?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[dDfF]?$"
_SPECIAL = {
    np.inf: ("inf", "+inf", "infinity", "+infinity"),
    -np.inf: ("-inf", "-infinity"),
    np.nan: ("nan",),
}
_DATE = (
    r"(?s)^(?P<sign>[+-]?)(?P<year>\d{4,7})"
    r"(?:-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2})(?:[ T].*)?)?)?$"
)
_TIME = (
    r"^(?P<sign>[+-]?)(?P<year>\d{4,6})(?:-(?P<month>\d{1,2})(?:-(?P<day>\d{1,2})"
    r"(?:[ T](?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})"
    r"(?:\.(?P<fraction>\d*))?(?: ?(?:Z|(?:UTC|GMT|UT)?"
    r"(?:(?P<east>[+-])(?:(?P<hours>\d{1,2})(?::(?P<minutes>\d{1,2}))?|(?P<four>\d{4})))?))?"
    r")?)?)?)?)?$"
)
_DAY_US = 86_400_000_000
_LONGEST_OFFSET_MINUTES = 18 * 60


def reader(to: Kind) -> Callable[[Column], Column]:
    """Return the function that reads string columns as a type."""
    if to in INTEGERS:
        return lambda value: _integers(value, to)
    if to in FLOATS:
        return lambda value: _floats(value, to)
    return {Kind.BOOL: _booleans, Kind.DATE: _dates, Kind.TIME: _times}[to]


def _booleans(value: Column) -> Column:
    text = pc.utf8_trim(pc.ascii_lower(value.data), characters=_BLANKS)
    yes, no = (flags_of(pc.is_in(text, value_set=pa.array(w))) for w in (_TRUE, _FALSE))
    return fail(yes, value.null, value.bad, ~(yes | no))


def _integers(value: Column, to: Kind) -> Column:
    text = pc.utf8_trim(value.data, characters=_BLANKS)
    parts, failed = _matched(text, _INTEGER)
    size = _numbers(parts, 1, pa.uint64())
    minus = flags_of(pc.equal(pc.struct_field(parts, 0), "-"))
    bounds = np.iinfo(DTYPES[to])
    over = size > np.where(minus, np.uint64(-int(bounds.min)), np.uint64(bounds.max))
    signed = np.where(minus, (~size + np.uint64(1)).view(np.int64), size.view(np.int64))
    return fail(signed.astype(DTYPES[to]), value.null, value.bad, failed | over)


def _floats(value: Column, to: Kind) -> Column:
    text = pc.utf8_trim(value.data, characters=_JAVA_BLANKS)
    parts, failed = _matched(text, _FLOAT)
    number = pc.if_else(pc.fill_null(parts.is_null(), True), "0", pc.struct_field(parts, 0))
    arrow = pa.float32() if to is Kind.F32 else pa.float64()
    data = values_of(number.cast(arrow), DTYPES[to])
    if failed.any():
        data, failed = _special(text, data, failed)
    return fail(data, value.null, value.bad, failed)


def _special(text: pa.Array, data: Any, failed: Flags) -> tuple[Any, Flags]:
    lowered = pc.ascii_lower(text)
    for number, words in _SPECIAL.items():
        found = flags_of(pc.is_in(lowered, value_set=pa.array(words)))
        data, failed = np.where(found, data.dtype.type(number), data), failed & ~found
    # Java reads a signed NaN in this spelling only
    signed = flags_of(pc.is_in(text, value_set=pa.array(["+NaN", "-NaN"])))
    return np.where(signed, data.dtype.type(np.nan), data), failed & ~signed


def _dates(value: Column) -> Column:
    text = pc.utf8_trim(value.data, characters=_BLANKS)
    parts, failed = _matched(text, _DATE)
    days, wrong = _days(parts)
    over = np.abs(days) > np.iinfo(np.int32).max
    return fail(days.astype(np.int32), value.null, value.bad, failed | wrong | over)


def _times(value: Column) -> Column:
    text = pc.utf8_trim(value.data, characters=_BLANKS)
    parts, failed = _matched(text, _TIME)
    days, wrong = _days(parts)
    hour, minute, second = (_numbers(parts, i, pa.int64()) for i in (4, 5, 6))
    wrong = wrong | (hour > 23) | (minute > 59) | (second > 59)
    fraction = pc.utf8_slice_codeunits(pc.struct_field(parts, 7), 0, 6)
    padded = pc.fill_null(pc.utf8_rpad(fraction, 6, "0"), "0")
    micros = values_of(padded.cast(pa.int64()), np.int64)
    offset, far = _offset_minutes(parts)
    seconds = (hour * 60 + minute - offset) * 60 + second
    over = np.abs(days) > np.iinfo(np.int64).max // _DAY_US - 2
    data = days * _DAY_US + seconds * 1_000_000 + micros
    return fail(data, value.null, value.bad, failed | wrong | far | over)


def _offset_minutes(parts: pa.Array) -> tuple[Any, Flags]:
    """Return the zone's offset, and where it is no offset."""
    hours, minutes, four = (_numbers(parts, i, pa.int64()) for i in (9, 10, 11))
    hours, minutes = hours + four // 100, minutes + four % 100
    size = hours * 60 + minutes
    west = flags_of(pc.equal(pc.struct_field(parts, 8), "-"))
    return np.where(west, -size, size), (size > _LONGEST_OFFSET_MINUTES) | (minutes > 59)


def _days(parts: pa.Array) -> tuple[Any, Flags]:
    """Return days since 1970 of sign, year, month and day, and where there is no such day."""
    year = _numbers(parts, 1, pa.int64())
    year = np.where(flags_of(pc.equal(pc.struct_field(parts, 0), "-")), -year, year)
    month, day = (_numbers(parts, i, pa.int64(), missing="1") for i in (2, 3))
    wrong = (month < 1) | (month > 12)
    months = (year - 1970) * 12 + np.where(wrong, 1, month) - 1
    first, following = (
        (months + i).astype("M8[M]").astype("M8[D]").astype(np.int64) for i in (0, 1)
    )
    return first + day - 1, wrong | (day < 1) | (day > following - first)


def _matched(text: pa.Array, pattern: str) -> tuple[pa.Array, Flags]:
    """Return the named groups as a struct array, and where the text does not match."""
    parts = pc.extract_regex(text, pattern)
    return parts, flags_of(parts.is_null())


def _numbers(parts: pa.Array, index: int, to: pa.DataType, missing: str = "0") -> Any:
    """Return one group of digits as numbers; a group that is not there reads as `missing`."""
    text = pc.fill_null(pc.struct_field(parts, index), missing)
    present = pc.if_else(pc.equal(text, ""), missing, text)
    return values_of(present.cast(to), to.to_pandas_dtype())
