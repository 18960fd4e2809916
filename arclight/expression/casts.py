"""CAST and TRY_CAST between the types of the expression language, and implicit widening."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.errors import SpecError
from arclight.expression import casts_from_text, casts_to_text
from arclight.expression.columns import Column, fail
from arclight.expression.kinds import (
    DTYPES,
    FLOATS,
    INTEGERS,
    MOMENTS,
    NUMBERS,
    Kind,
)
from arclight.expression.mathematics import to_long
from arclight.expression.steps import Built, Step, constant, fold, literal_step, names, plain_value

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_US = 86_400_000_000
SECOND_US = 1_000_000
_LOWEST, _HIGHEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
# Spark's casts with ANSI on; a source's own type and string stand in every row
_FROM: dict[Kind, tuple[Kind, ...]] = {
    Kind.BOOL: NUMBERS,
    **dict.fromkeys(NUMBERS, (Kind.BOOL, *NUMBERS, Kind.TIME)),
    Kind.TEXT: (Kind.BOOL, *NUMBERS, *MOMENTS),
    Kind.DATE: (Kind.TIME,),
    Kind.TIME: (*NUMBERS, Kind.DATE),
    Kind.NULL: (Kind.BOOL, *NUMBERS, *MOMENTS),
}


def build_cast(step: Step, to: Kind, *, safe: bool) -> Built:
    """Return the conversion of a step to another type.

    Args:
        step: What is converted.
        to: The type wanted.
        safe: Whether a value that cannot be converted becomes null (TRY_CAST).

    Raises:
        SpecError: Spark has no such cast.
    """
    source = step.kind
    if source is not to and to is not Kind.TEXT and to not in _FROM[source]:
        accepted = names((*_FROM[source], Kind.TEXT))
        raise SpecError(
            f"CAST of a {source.value} must go to {accepted}, got {to.value}; "
            "cast in two steps or derive the column in etl.sql."
        )
    convert = conversion(source, to)
    if not safe:
        return Built(to, convert)

    def apply(value: Column) -> Column:
        data, null, _ = convert(value)
        return Column(data, null, value.bad)

    return Built(to, apply)


def conversion(source: Kind, to: Kind) -> Callable[[Column], Column]:
    """Return the function that converts computed columns from one type to another."""
    if source is to:
        return _same
    if source is Kind.NULL:
        return _typed_null(to)
    if to is Kind.TEXT:
        return casts_to_text.writer(source)
    if source is Kind.TEXT:
        return casts_from_text.reader(to)
    if source in MOMENTS or to in MOMENTS:
        return _moment_conversion(source, to)
    return _number_conversion(source, to)


def widen(step: Step, kind: Kind) -> Step:
    """Return a step converted to the type it is widened to."""
    if step.kind is kind:
        return step
    convert, run = conversion(step.kind, kind), step.run
    if step.literal is not None:
        return literal_step(kind, fold(kind, convert, (step,)))
    return Step(kind, lambda frame: convert(run(frame)))


def written_moment(name: str, step: Step, kind: Kind) -> Step:
    """Return a string literal read as a date or a timestamp; another step as it is.

    Raises:
        SpecError: the literal is no date or timestamp.
    """
    if step.kind is not Kind.TEXT or step.literal is None or step.literal.bad is not None:
        return step
    column = fold(kind, casts_from_text.reader(kind), (step,))
    if column.bad is not None:
        raise SpecError(
            f"'{name}' must compare a {kind.value} with a {kind.value}, got "
            f"{plain_value(step)!r}; write it as {_FORMS[kind]}."
        )
    return literal_step(kind, column)


_FORMS = {Kind.DATE: "'2013-11-01'", Kind.TIME: "'2013-11-01 12:30:00'"}


def _same(value: Column) -> Column:
    return value


def _typed_null(to: Kind) -> Callable[[Column], Column]:
    missing = constant(to, None)

    def apply(value: Column) -> Column:
        size = np.shape(value.data)
        if not size:
            return missing
        if to is Kind.TEXT:
            return Column(casts_to_text.no_text(size[0]), np.ones(size, np.bool_), value.bad)
        return Column(np.zeros(size, DTYPES[to]), np.ones(size, np.bool_), value.bad)

    return apply


def _number_conversion(source: Kind, to: Kind) -> Callable[[Column], Column]:
    if to is Kind.BOOL:
        return lambda value: Column(value.data != 0, value.null, value.bad)
    if source is Kind.BOOL or to in FLOATS or _widens(source, to):
        dtype = DTYPES[to]
        return lambda value: Column(value.data.astype(dtype), value.null, value.bad)
    if source in INTEGERS:
        return _narrowed(to)
    return _truncated(to)


def _widens(source: Kind, to: Kind) -> bool:
    order = INTEGERS
    return source in order and to in order and order.index(source) <= order.index(to)


def _narrowed(to: Kind) -> Callable[[Column], Column]:
    dtype = DTYPES[to]

    def apply(value: Column) -> Column:
        short = value.data.astype(dtype)
        return fail(short, value.null, value.bad, short != value.data)

    return apply


def _truncated(to: Kind) -> Callable[[Column], Column]:
    dtype = DTYPES[to]
    bounds = np.iinfo(dtype)
    low, high = float(bounds.min), float(bounds.max)

    def apply(value: Column) -> Column:
        whole = np.trunc(value.data.astype(np.float64, copy=False))
        outside = ~((whole >= low) & (whole <= high))
        data = to_long(np.where(outside, 0.0, whole)).astype(dtype)
        return fail(data, value.null, value.bad, outside)

    return apply


def _moment_conversion(source: Kind, to: Kind) -> Callable[[Column], Column]:
    if source is Kind.DATE:
        return _date_to_time
    if to is Kind.DATE:
        return _time_to_date
    if source is Kind.TIME:
        return _time_to_number(to)
    return _seconds_to_time if source in INTEGERS else _fraction_to_time


def _date_to_time(value: Column) -> Column:
    days = value.data.astype(np.int64)
    over = np.abs(days) > _HIGHEST // DAY_US
    return fail(days * DAY_US, value.null, value.bad, over)


def _time_to_date(value: Column) -> Column:
    return Column((value.data // DAY_US).astype(np.int32), value.null, value.bad)


def _time_to_number(to: Kind) -> Callable[[Column], Column]:
    if to in FLOATS:
        dtype = DTYPES[to]
        return lambda value: Column(
            (value.data.astype(np.float64) / SECOND_US).astype(dtype), value.null, value.bad
        )
    narrow = _same if to is Kind.I64 else _narrowed(to)
    return lambda value: narrow(Column(value.data // SECOND_US, value.null, value.bad))


def _seconds_to_time(value: Column) -> Column:
    """Read whole seconds; like Java's TimeUnit the largest and smallest stay at the edge."""
    seconds = value.data.astype(np.int64)
    most = _HIGHEST // SECOND_US
    micros = np.clip(seconds, -most, most) * SECOND_US
    data = np.where(seconds > most, _HIGHEST, np.where(seconds < -most, _LOWEST, micros))
    return Column(data, value.null, value.bad)


def _fraction_to_time(value: Column) -> Column:
    micros = np.trunc(value.data.astype(np.float64) * SECOND_US)
    outside = ~(np.abs(micros) <= 2.0**63)
    data: Any = to_long(np.where(outside, 0.0, micros))
    return fail(data, value.null, value.bad, outside)
