"""What a search may try for one parameter: a range of numbers, or a list of values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from arclight.contract import Contract

Param = str | int | float | bool


class IntRange(Contract):
    """Whole numbers from low to high, both included."""

    bounds: tuple[int, int] = Field(alias="int")
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(*self.bounds, log=self.log)
        return self


class FloatRange(Contract):
    """Numbers from low to high."""

    bounds: tuple[float, float] = Field(alias="float")
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(*self.bounds, log=self.log)
        return self


def _check_range(low: float, high: float, *, log: bool) -> None:
    if low >= high:
        raise ValueError(f"a range must rise, got {low} to {high}; write one value as a choice.")
    if log and low <= 0:
        raise ValueError(f"a range on a log scale must start above 0, got {low}.")


class Choice(Contract):
    """One of these values."""

    choice: tuple[Param, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.choice)) < len(self.choice):  # 1, 1.0 and true are one
            raise ValueError(f"the values of a choice must differ, got {list(self.choice)}.")
        return self


def _range_tag(value: Any) -> str | None:
    """Return which kind of range a value is, by the field that only this kind has."""
    if isinstance(value, dict):
        return next((tag for tag in ("int", "float", "choice") if tag in value), None)
    return _RANGE_TAGS.get(type(value))


_RANGE_TAGS: dict[type, str] = {IntRange: "int", FloatRange: "float", Choice: "choice"}
Range = Annotated[
    Annotated[IntRange, Tag("int")]
    | Annotated[FloatRange, Tag("float")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(
        _range_tag,
        custom_error_type="range",
        custom_error_message="a range must have one of the fields int, float or choice",
    ),
]


def chart_place(one: Range, value: str | float) -> float:
    """Return where in 0…1 of a range a value lies; of a choice, its number among the others."""
    if isinstance(one, Choice):
        return one.choice.index(value) / max(1, len(one.choice) - 1)
    low, high = (math.log(x) if one.log else float(x) for x in one.bounds)
    found = math.log(float(value)) if one.log else float(value)
    return min(1.0, max(0.0, (found - low) / (high - low)))


def ends_of(one: Range) -> tuple[Param, Param]:
    """Return the first and the last value of a range."""
    return (one.choice[0], one.choice[-1]) if isinstance(one, Choice) else one.bounds


def value_at(one: Range, place: float) -> Param:
    """Return the value at a place in [0, 1) of a range."""
    if isinstance(one, Choice):
        return one.choice[int(place * len(one.choice))]
    low, high = one.bounds
    # a whole number stands for half a step to both sides
    edge = 0.5 if isinstance(one, IntRange) else 0.0
    ends = (low - edge, high + edge)
    if one.log:
        begin, end = (math.log(max(x, 1e-300)) for x in ends)
        found = math.exp(begin + place * (end - begin))
    else:
        found = ends[0] + place * (ends[1] - ends[0])
    if isinstance(one, IntRange):
        return int(min(max(round(found), low), high))
    return min(max(found, low), high)


def unit_place(one: Range, value: Param) -> float:
    """Return the place in [0, 1) of a value in a range: `value_at` gives the value back."""
    if isinstance(one, Choice):
        return (one.choice.index(value) + 0.5) / len(one.choice)
    assert isinstance(value, int | float)
    low, high = one.bounds
    edge = 0.5 if isinstance(one, IntRange) else 0.0
    begin, end, at = low - edge, high + edge, float(value)
    if one.log:
        begin, end, at = (math.log(max(x, 1e-300)) for x in (begin, end, at))
    return min((at - begin) / (end - begin), math.nextafter(1.0, 0.0))
