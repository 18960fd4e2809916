"""Operators on numbers with Spark's widening, and its overflow and division checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.expression.columns import Column, Flags, Mask, fail, strict
from arclight.expression.kinds import DTYPES, FLOATS, INTEGERS, NUMBERS, Kind, common_kind
from arclight.expression.steps import Built, Step, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.expression.steps import Builder

_WIDE = {Kind.I8: np.int32, Kind.I16: np.int32, Kind.I32: np.int64}


def _widened(name: str, steps: Sequence[Step]) -> Kind:
    for step in steps:
        require(name, step, NUMBERS)
    kind = common_kind(steps[0].kind, steps[1].kind)
    assert kind is not None
    return kind


def add(left: Any, right: Any) -> tuple[Any, Flags]:
    """Return the wrapped sum of integers and where it overflowed."""
    total = left + right
    return total, ((left ^ total) & (right ^ total)) < 0


def subtract(left: Any, right: Any) -> tuple[Any, Flags]:
    """Return the wrapped difference of integers and where it overflowed."""
    total = left - right
    return total, ((left ^ right) & (left ^ total)) < 0


def multiply(left: Any, right: Any) -> tuple[Any, Flags]:
    """Return the wrapped product of 64-bit integers and where it overflowed."""
    total = left * right
    suspect = np.abs(left.astype(np.float64) * right) > 9.2e18
    if not suspect.any():
        return total, suspect
    lowest = np.iinfo(np.int64).min
    safe = np.where(left == 0, 1, left)
    # lowest // -1 wraps back to lowest, so that one product has to be named
    wrapped = (total // safe != right) | ((left == -1) & (right == lowest))
    return total, suspect & (left != 0) & wrapped


def _narrow_multiply(kind: Kind) -> Callable[[Any, Any], tuple[Any, Flags]]:
    wide, dtype = _WIDE[kind], DTYPES[kind]

    def product(left: Any, right: Any) -> tuple[Any, Flags]:
        total = left.astype(wide) * right
        short = total.astype(dtype)
        return short, short != total

    return product


_CHECKED: dict[str, Callable[[Any, Any], tuple[Any, Flags]]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
}
_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
}


def _arithmetic(name: str, steps: Sequence[Step]) -> Built:
    kind = _widened(name, steps)
    dtype = DTYPES[kind]
    plain = _PLAIN[name]

    def on_floats(left: Column, right: Column) -> Column:
        null, bad = strict((left, right))
        data = plain(left.data.astype(dtype, copy=False), right.data.astype(dtype, copy=False))
        return Column(data, null, bad)

    checked = _narrow_multiply(kind) if name == "*" and kind in _WIDE else _CHECKED[name]

    def on_integers(left: Column, right: Column) -> Column:
        null, bad = strict((left, right))
        data, over = checked(
            left.data.astype(dtype, copy=False), right.data.astype(dtype, copy=False)
        )
        return fail(data, null, bad, over)

    return Built(kind, on_integers if kind in INTEGERS else on_floats)


def _divisor_first(left: Column, right: Column) -> tuple[Mask, Mask]:
    """Return null and bad: Spark reads the divisor before the dividend."""
    return strict((right, left))


def _divide(name: str, steps: Sequence[Step]) -> Built:
    _widened(name, steps)

    def apply(left: Column, right: Column) -> Column:
        null, bad = _divisor_first(left, right)
        data = left.data.astype(np.float64) / right.data
        return fail(data.astype(np.float64, copy=False), null, bad, right.data == 0)

    return Built(Kind.F64, apply)


def _remainder(name: str, steps: Sequence[Step]) -> Built:
    kind = _widened(name, steps)
    dtype = DTYPES[kind]

    def apply(left: Column, right: Column) -> Column:
        null, bad = _divisor_first(left, right)
        divisor = right.data.astype(dtype, copy=False)
        data = np.fmod(left.data.astype(dtype, copy=False), divisor)
        return fail(data, null, bad, divisor == 0)

    return Built(kind, apply)


def _whole_division(name: str, steps: Sequence[Step]) -> Built:
    for step in steps:
        require(name, step, INTEGERS)
    lowest = np.iinfo(np.int64).min

    def apply(left: Column, right: Column) -> Column:
        null, bad = _divisor_first(left, right)
        dividend, divisor = left.data.astype(np.int64), right.data.astype(np.int64)
        zero = divisor == 0
        safe = np.where(zero, 1, divisor)
        rest = np.fmod(dividend, safe)
        over = (dividend == lowest) & (safe == -1)
        return fail((dividend - rest) // safe, null, bad, zero | over)

    return Built(Kind.I64, apply)


def _negative(name: str, steps: Sequence[Step]) -> Built:
    return _signed(name, steps[0], np.negative)


def _absolute(name: str, steps: Sequence[Step]) -> Built:
    return _signed(name, steps[0], np.abs)


def _signed(name: str, step: Step, change: Callable[[Any], Any]) -> Built:
    require(name, step, NUMBERS)
    kind = step.kind

    def on_floats(value: Column) -> Column:
        return Column(change(value.data), value.null, value.bad)

    if kind in FLOATS:
        return Built(kind, on_floats)
    lowest = np.iinfo(DTYPES[kind]).min

    def on_integers(value: Column) -> Column:
        return fail(change(value.data), value.null, value.bad, value.data == lowest)

    return Built(kind, on_integers)


BUILDERS: dict[str, Builder] = {
    "+": _arithmetic,
    "-": _arithmetic,
    "*": _arithmetic,
    "/": _divide,
    "%": _remainder,
    "mod": _remainder,
    "div": _whole_division,
    "negative": _negative,
    "abs": _absolute,
}
