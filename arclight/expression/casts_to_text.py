"""CAST to string in the form Spark writes: Java's numbers, ISO dates, shortened fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arclight.expression.columns import Column, arrow_flags
from arclight.expression.kinds import ARROW, FLOATS, INTEGERS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_PARTS = r"^(?P<whole>\d+)(?:\.(?P<fraction>\d+))?(?:e(?P<exponent>[+-]?\d+))?$"
# 0001-01-01 and 9999-12-31, outside which Arrow and Spark write years differently
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY_US = 86_400_000_000


def writer(source: Kind) -> Callable[[Column], Column]:
    """Return the function that writes columns of a type as strings."""
    write = _WRITERS[source]
    return lambda value: Column(write(value.data), value.null, value.bad)


def no_text(size: int) -> pa.Array:
    """Return that many empty values of an all-null string column."""
    return pa.nulls(size, pa.string())


def _booleans(data: npt.NDArray[Any]) -> pa.Array:
    return pc.if_else(arrow_flags(data), "true", "false")


def _integers(data: npt.NDArray[Any]) -> pa.Array:
    return pa.array(data).cast(pa.string())


def _floats(data: npt.NDArray[Any]) -> pa.Array:
    """Write doubles as Java does: 0.001 to 10**7 plainly, others with an exponent."""
    size = np.abs(data)
    text = pa.array(size).cast(pa.string())
    plain = ((size >= 1e-3) & (size < 1e7)) | (size == 0)
    whole = arrow_flags(size == np.trunc(size))
    written = pc.if_else(whole, pc.binary_join_element_wise(text, ".0", ""), text)
    if not plain.all():
        written = pc.if_else(arrow_flags(plain), written, _scientific(text))
        written = pc.if_else(arrow_flags(np.isinf(data)), "Infinity", written)
    sign = pc.if_else(arrow_flags(np.signbit(data)), "-", "")
    written = pc.binary_join_element_wise(sign, written, "")
    return pc.if_else(arrow_flags(np.isnan(data)), "NaN", written)


def _scientific(text: pa.Array) -> pa.Array:
    """Return `d.dddEn` of positive decimals in any form; inf and nan come out null."""
    parts = pc.extract_regex(text, _PARTS)
    whole, fraction, exponent = (pc.struct_field(parts, i) for i in range(3))
    exponent = pc.if_else(pc.equal(exponent, ""), "0", pc.utf8_ltrim(exponent, characters="+"))
    digits = pc.binary_join_element_wise(whole, fraction, "")
    leading = pc.utf8_ltrim(digits, characters="0")
    zeros = pc.subtract(pc.utf8_length(digits), pc.utf8_length(leading))
    shift = pc.subtract(pc.subtract(pc.utf8_length(whole), 1), zeros)
    power = pc.add(exponent.cast(pa.int32()), shift).cast(pa.string())
    rest = pc.utf8_rtrim(pc.utf8_slice_codeunits(leading, 1), characters="0")
    rest = pc.if_else(pc.equal(rest, ""), "0", rest)
    mantissa = pc.binary_join_element_wise(pc.utf8_slice_codeunits(leading, 0, 1), rest, ".")
    return pc.binary_join_element_wise(mantissa, power, "E")


def _dates(data: npt.NDArray[Any]) -> pa.Array:
    if ((data >= _FIRST_DAY) & (data <= _LAST_DAY)).all():
        return pa.array(data).cast(ARROW[Kind.DATE]).cast(pa.string())
    return _signed_years(np.datetime_as_string(data.astype("M8[D]")), data > _LAST_DAY)


def _times(data: npt.NDArray[Any]) -> pa.Array:
    days = data // _DAY_US
    if ((days >= _FIRST_DAY) & (days <= _LAST_DAY)).all():
        text = pa.array(data).cast(pa.timestamp("us")).cast(pa.string())
    else:
        written = np.datetime_as_string(data.astype("M8[us]"), unit="us")
        text = pc.replace_substring(_signed_years(written, days > _LAST_DAY), "T", " ")
    trimmed = pc.utf8_rtrim(text, characters="0")
    has_fraction = arrow_flags(data % 1_000_000 != 0)
    return pc.if_else(has_fraction, trimmed, pc.utf8_slice_codeunits(text, 0, -7))


def _signed_years(text: npt.NDArray[Any], late: npt.NDArray[Any]) -> pa.Array:
    return pc.binary_join_element_wise(
        pc.if_else(arrow_flags(late), "+", ""), pa.array(text.tolist(), pa.string()), ""
    )


_WRITERS: dict[Kind, Callable[[npt.NDArray[Any]], pa.Array]] = {
    Kind.BOOL: _booleans,
    **dict.fromkeys(INTEGERS, _integers),
    **dict.fromkeys(FLOATS, _floats),
    Kind.DATE: _dates,
    Kind.TIME: _times,
}
