"""Functions of numbers: rounding, roots, logarithms, powers and angles."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.errors import SpecError
from arclight.expression.columns import Column, fail, strict, union
from arclight.expression.kinds import DTYPES, INTEGERS, NUMBERS, Kind
from arclight.expression.steps import Built, Step, require, require_integer_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.expression.steps import Builder

_MOST_DIGITS = 15
_EXACT = 2.0**53


def _of_double(function: Callable[[Any], Any], undefined_to: float | None = None) -> Builder:
    """Return a builder; where the argument is at most `undefined_to` the result is null."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], NUMBERS)

        def apply(value: Column) -> Column:
            data = value.data.astype(np.float64, copy=False)
            if undefined_to is None:
                return Column(function(data), value.null, value.bad)
            outside = data <= undefined_to
            null = union(value.null, outside) if outside.any() else value.null
            return Column(function(data), null, value.bad)

        return Built(Kind.F64, apply)

    return build


def _sign(value: Any) -> Any:
    return np.where(value == 0, value, np.sign(value))


def _power(base: Any, exponent: Any) -> Any:
    # C gives 1 for these where Java gives NaN
    undefined = (np.abs(base) == 1) & ~np.isfinite(exponent)
    return np.where(undefined, np.nan, np.power(base, exponent))


def _of_doubles(function: Callable[[Any, Any], Any]) -> Builder:
    def build(name: str, steps: Sequence[Step]) -> Built:
        for step in steps:
            require(name, step, NUMBERS)

        def apply(left: Column, right: Column) -> Column:
            null, bad = strict((left, right))
            first = left.data.astype(np.float64, copy=False)
            second = right.data.astype(np.float64, copy=False)
            return Column(function(first, second), null, bad)

        return Built(Kind.F64, apply)

    return build


def _log(name: str, steps: Sequence[Step]) -> Built:
    if len(steps) == 1:
        return _of_double(np.log, 0.0)(name, steps)
    plain = _of_doubles(lambda base, value: np.log(value) / np.log(base))(name, steps)

    def apply(base: Column, value: Column) -> Column:
        data, null, bad = plain.apply(base, value)
        outside = (base.data <= 0) | (value.data <= 0)
        return Column(data, union(null, outside) if outside.any() else null, bad)

    return Built(Kind.F64, apply)


def _whole(function: Callable[[Any], Any]) -> Builder:
    """Return a builder of ceil or floor: the result is a bigint."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], NUMBERS)

        def on_integers(value: Column) -> Column:
            return Column(value.data.astype(np.int64), value.null, value.bad)

        def on_floats(value: Column) -> Column:
            data = function(value.data.astype(np.float64, copy=False))
            over = (data < -(2.0**63)) | (data > 2.0**63)
            return fail(to_long(data), value.null, value.bad, over)

        return Built(Kind.I64, on_integers if steps[0].kind in INTEGERS else on_floats)

    return build


def to_long(data: Any) -> Any:
    """Return whole doubles as 64-bit integers as Java does: NaN is 0, 2**63 is the largest."""
    top = data >= 2.0**63
    whole = np.where(np.isnan(data) | top, 0.0, data).astype(np.int64)
    return np.where(top, np.iinfo(np.int64).max, whole)


def _round(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], NUMBERS)
    digits = require_integer_literal(name, steps[1], "number of digits") if steps[1:] else 0
    if digits is None or abs(digits) > _MOST_DIGITS:
        raise SpecError(
            f"'round' must have -{_MOST_DIGITS} to {_MOST_DIGITS} digits, got {digits}; "
            "a double has no more."
        )
    kind = steps[0].kind
    if kind in INTEGERS:
        return Built(kind, _integer_rounding(kind, digits), steps[:1])
    dtype = DTYPES[kind]

    def apply(value: Column) -> Column:
        data = _half_up(value.data.astype(np.float64, copy=False), digits)
        return Column(data.astype(dtype, copy=False), value.null, value.bad)

    return Built(kind, apply, steps[:1])


def _integer_rounding(kind: Kind, digits: int) -> Callable[[Column], Column]:
    unit = 10 ** max(-digits, 0)
    dtype = DTYPES[kind]

    def keep(value: Column) -> Column:
        return value

    def apply(value: Column) -> Column:
        wide = value.data.astype(np.int64)
        rest = np.fmod(wide, unit)
        away = np.where(2 * np.abs(rest) >= unit, np.sign(wide) * unit, 0)
        down = wide - rest
        total = down + away
        over = ((down ^ total) & (away ^ total)) < 0
        short = total.astype(dtype)
        return fail(short, value.null, value.bad, over | (short != total))

    return apply if digits < 0 else keep


def _half_up(data: Any, digits: int) -> Any:
    """Round doubles half up on their shortest decimal form, as Spark does through BigDecimal.

    A number is a tie exactly when it is the double nearest to that tie, so comparing with the
    double of the tie decides; both are exact while the scaled number stays below 2**53 / 10.
    """
    size = np.abs(data)
    down = np.floor(_scaled(size, digits))
    up = down + (size >= _scaled(10 * down + 5, -digits - 1))
    rounded = _scaled(up, -digits)
    result = np.where(up == 0, 0.0, np.copysign(rounded, data))
    large = ~(10 * down + 5 < _EXACT)
    if not large.any():
        return result
    return np.where(large, _rounded_large(data, digits, large), result)


def _scaled(data: Any, digits: int) -> Any:
    return data * 10.0**digits if digits >= 0 else data / 10.0**-digits


def _rounded_large(data: Any, digits: int, large: Any) -> Any:
    """Round by decimals the few doubles of 16 or 17 digits; larger ones have nothing to round."""
    size = _scaled(np.abs(data), digits)
    result = np.array(data, np.float64)
    unit = Decimal(1).scaleb(-digits)
    for row in np.flatnonzero(large & (size < 1e18)):
        value = Decimal(repr(float(data[row])))
        result[row] = float(value.quantize(unit, ROUND_HALF_UP))
    return result


BUILDERS: dict[str, Builder] = {
    "ceil": _whole(np.ceil),
    "ceiling": _whole(np.ceil),
    "floor": _whole(np.floor),
    "round": _round,
    "sqrt": _of_double(np.sqrt),
    "exp": _of_double(np.exp),
    "expm1": _of_double(np.expm1),
    "ln": _of_double(np.log, 0.0),
    "log": _log,
    "log10": _of_double(np.log10, 0.0),
    "log2": _of_double(np.log2, 0.0),
    "log1p": _of_double(np.log1p, -1.0),
    "pow": _of_doubles(_power),
    "power": _of_doubles(_power),
    "sign": _of_double(_sign),
    "signum": _of_double(_sign),
    "sin": _of_double(np.sin),
    "cos": _of_double(np.cos),
    "tan": _of_double(np.tan),
    "atan2": _of_doubles(np.arctan2),
}
