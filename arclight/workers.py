"""How many processes train one model: a number, a range, or one a node."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Discriminator, Field, Tag, model_validator

from arclight.contract import Contract


class WorkerRange(Contract):
    """At least and at most so many; a training that loses some goes on with the others."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not exceed max ({self.max}).")
        return self


def _tag(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return "number"
    return (
        "range" if isinstance(value, dict | WorkerRange) else "auto" if value == "auto" else None
    )


Workers = Annotated[
    Annotated[int, Field(ge=0), Tag("number")]
    | Annotated[Literal["auto"], Tag("auto")]
    | Annotated[WorkerRange, Tag("range")],
    Discriminator(
        _tag,
        custom_error_type="workers",
        custom_error_message="workers must be auto, a whole number or a range",
    ),
]


class Bounds(NamedTuple):
    """The fewest and the most workers that may train; no most where nodes alone decide."""

    least: int
    most: int | None


def bounds_of(workers: int | Literal["auto"] | WorkerRange) -> Bounds:
    """Return the bounds that a spec's `train.workers` stands for; 0 trains in one process."""
    if isinstance(workers, WorkerRange):
        return Bounds(workers.min, workers.max)
    return Bounds(1, None) if workers == "auto" else Bounds(max(1, workers), max(1, workers))
