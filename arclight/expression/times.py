"""Functions of dates and timestamps: the proleptic Gregorian calendar, in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.errors import SpecError, nearest
from arclight.expression.casts import DAY_US, SECOND_US, conversion
from arclight.expression.columns import Column, fail, strict
from arclight.expression.kinds import MOMENTS, Kind
from arclight.expression.steps import Built, Step, require, require_text_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.expression.steps import Builder

# 1970-01-01 was a Thursday
_MONDAY_FIRST = 3


def _months(days: Any) -> Any:
    return days.astype("M8[D]").astype("M8[M]").astype(np.int64)


def _year(days: Any) -> Any:
    return days.astype("M8[D]").astype("M8[Y]").astype(np.int64) + 1970


def _month(days: Any) -> Any:
    return _months(days) % 12 + 1


def _quarter(days: Any) -> Any:
    return _months(days) % 12 // 3 + 1


def _day(days: Any) -> Any:
    return days - _start(days, "M") + 1


def _day_of_year(days: Any) -> Any:
    return days - _start(days, "Y") + 1


def _day_of_week(days: Any) -> Any:
    return (days + _MONDAY_FIRST + 1) % 7 + 1


def _weekday(days: Any) -> Any:
    return (days + _MONDAY_FIRST) % 7


def _week_of_year(days: Any) -> Any:
    """Return the ISO week: the one that holds the week's Thursday."""
    thursday = days - _weekday(days) + 3
    return (thursday - _start(thursday, "Y")) // 7 + 1


def _start(days: Any, unit: str) -> Any:
    """Return the first day of the year or month."""
    return days.astype("M8[D]").astype(f"M8[{unit}]").astype("M8[D]").astype(np.int64)


def _of_date(function: Callable[[Any], Any]) -> Builder:
    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], MOMENTS)
        to_date = conversion(steps[0].kind, Kind.DATE)

        def apply(value: Column) -> Column:
            data, null, bad = to_date(value)
            return Column(function(data.astype(np.int64)).astype(np.int32), null, bad)

        return Built(Kind.I32, apply)

    return build


def _of_clock(unit_s: int, units: int) -> Builder:
    """Return the builder of hour, minute or second."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], MOMENTS)
        to_time = conversion(steps[0].kind, Kind.TIME)

        def apply(value: Column) -> Column:
            data, null, bad = to_time(value)
            return Column((data // (unit_s * SECOND_US) % units).astype(np.int32), null, bad)

        return Built(Kind.I32, apply)

    return build


def _to_date(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], (Kind.TEXT, *MOMENTS))
    return Built(Kind.DATE, conversion(steps[0].kind, Kind.DATE))


def _date_difference(name: str, steps: Sequence[Step]) -> Built:
    for step in steps:
        require(name, step, MOMENTS)
    to_end, to_start = (conversion(step.kind, Kind.DATE) for step in steps)

    def apply(end: Column, start: Column) -> Column:
        end, start = to_end(end), to_start(start)
        null, bad = strict((end, start))
        return Column(end.data - start.data, null, bad)

    return Built(Kind.I32, apply)


def _moved(direction: int) -> Builder:
    """Return the builder of date_add or date_sub."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], MOMENTS)
        require(name, steps[1], (Kind.I8, Kind.I16, Kind.I32))
        to_date = conversion(steps[0].kind, Kind.DATE)

        def apply(value: Column, count: Column) -> Column:
            value = to_date(value)
            null, bad = strict((value, count))
            days = value.data.astype(np.int64) + direction * count.data.astype(np.int64)
            short = days.astype(np.int32)
            return fail(short, null, bad, short != days)

        return Built(Kind.DATE, apply)

    return build


def _unix_seconds(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], (Kind.TIME,))

    def apply(value: Column) -> Column:
        return Column(value.data // SECOND_US, value.null, value.bad)

    return Built(Kind.I64, apply)


def _unix_timestamp(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], MOMENTS)
    to_time = conversion(steps[0].kind, Kind.TIME)

    def apply(value: Column) -> Column:
        data, null, bad = to_time(value)
        # Java's division: towards zero, unlike unix_seconds
        return Column((data - np.fmod(data, SECOND_US)) // SECOND_US, null, bad)

    return Built(Kind.I64, apply)


def _calendar(unit: str) -> Callable[[Any], Any]:
    return lambda time: _start(time // DAY_US, unit) * DAY_US


def _quarter_start(time: Any) -> Any:
    months = _months(time // DAY_US)
    return (months - months % 3).astype("M8[M]").astype("M8[D]").astype(np.int64) * DAY_US


def _week_start(time: Any) -> Any:
    days = time // DAY_US
    return (days - _weekday(days)) * DAY_US


def _multiple(unit_us: int) -> Callable[[Any], Any]:
    return lambda time: time - time % unit_us


_UNITS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("year", "yyyy", "yy"), _calendar("Y")),
    "quarter": _quarter_start,
    **dict.fromkeys(("month", "mon", "mm"), _calendar("M")),
    "week": _week_start,
    **dict.fromkeys(("day", "dd"), _multiple(DAY_US)),
    "hour": _multiple(3600 * SECOND_US),
    "minute": _multiple(60 * SECOND_US),
    "second": _multiple(SECOND_US),
    "millisecond": _multiple(1000),
    "microsecond": _multiple(1),
}


def _date_trunc(name: str, steps: Sequence[Step]) -> Built:
    unit = (require_text_literal(name, steps[0], "unit") or "").lower()
    require(name, steps[1], MOMENTS)
    if unit not in _UNITS:
        raise SpecError(
            f"'date_trunc' must have one of {', '.join(_UNITS)} as its unit, got {unit!r}; "
            f"write one of them.{nearest(unit, _UNITS)}"
        )
    cut, to_time = _UNITS[unit], conversion(steps[1].kind, Kind.TIME)

    def apply(value: Column) -> Column:
        data, null, bad = to_time(value)
        return Column(cut(data), null, bad)

    return Built(Kind.TIME, apply, steps[1:])


BUILDERS: dict[str, Builder] = {
    "year": _of_date(_year),
    "quarter": _of_date(_quarter),
    "month": _of_date(_month),
    **dict.fromkeys(("day", "dayofmonth"), _of_date(_day)),
    "dayofweek": _of_date(_day_of_week),
    "weekday": _of_date(_weekday),
    "dayofyear": _of_date(_day_of_year),
    "weekofyear": _of_date(_week_of_year),
    "hour": _of_clock(3600, 24),
    "minute": _of_clock(60, 60),
    "second": _of_clock(1, 60),
    "date_trunc": _date_trunc,
    "to_date": _to_date,
    **dict.fromkeys(("datediff", "date_diff"), _date_difference),
    **dict.fromkeys(("date_add", "dateadd"), _moved(1)),
    "date_sub": _moved(-1),
    "unix_timestamp": _unix_timestamp,
    "unix_seconds": _unix_seconds,
}
