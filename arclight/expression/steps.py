"""What the type analysis works on: typed steps, and the builders that turn steps into one more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from arclight.errors import SpecError
from arclight.expression.columns import Column
from arclight.expression.kinds import DTYPES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

Frame: TypeAlias = list[Column]
Run: TypeAlias = Callable[[Frame], Column]


@dataclass(frozen=True, slots=True)
class Step:
    """A compiled part: its type, how to compute it, and its value when that is a constant."""

    kind: Kind
    run: Run
    literal: Column | None = None


class Built(NamedTuple):
    """The result type of a function, the function over computed columns, and its arguments.

    `steps` are the arguments to compute when they differ from those given: converted, mostly.
    """

    kind: Kind
    apply: Callable[..., Column]
    steps: Sequence[Step] | None = None


Builder: TypeAlias = Callable[[str, Sequence[Step]], Built]


def literal_step(kind: Kind, column: Column) -> Step:
    """Return the step of a constant."""

    def run(_: Frame) -> Column:
        return column

    return Step(kind, run, column)


def constant(kind: Kind, value: Any) -> Column:
    """Return the column of a constant; None is null."""
    null = np.array(True) if value is None else None
    if kind is Kind.TEXT:
        return Column(pa.scalar(value, pa.string()), null, None)
    return Column(DTYPES[kind].type(0 if value is None else value), null, None)


def plain_value(step: Step) -> Any:
    """Return the Python value of a constant step that did not fail; None is null."""
    assert step.literal is not None
    data, null, _ = step.literal
    if null is not None and null.any():
        return None
    return data.as_py() if isinstance(data, pa.Scalar) else data.item()


def names(kinds: Iterable[Kind]) -> str:
    """Return types as a message names them."""
    return ", ".join(kind.value for kind in kinds)


def require(name: str, step: Step, accepted: Sequence[Kind]) -> None:
    """Refuse an argument of a type the function does not take.

    Raises:
        SpecError: the type is not accepted.
    """
    if step.kind in accepted:
        return
    if step.kind is Kind.NULL:
        raise SpecError(
            f"'{name}' must know the type of its argument, got a bare NULL; "
            f"write CAST(NULL AS type) with one of {names(accepted)}."
        )
    raise SpecError(
        f"'{name}' must take {names(accepted)}, got {step.kind.value}; "
        "convert the argument with CAST(… AS type)."
    )


def require_text_literal(name: str, step: Step, what: str) -> str | None:
    """Return the value of an argument that must be a string written in the expression.

    Raises:
        SpecError: it is a column, or of another type.
    """
    if (
        step.kind not in (Kind.TEXT, Kind.NULL)
        or step.literal is None
        or step.literal.bad is not None
    ):
        raise SpecError(
            f"'{name}' must have a string literal as its {what}, got {_described(step)}; "
            "write the text in quotes, or derive the column in etl.sql."
        )
    value = plain_value(step)
    return None if value is None else str(value)


def require_integer_literal(name: str, step: Step, what: str) -> int | None:
    """Return the value of an argument that must be an integer written in the expression.

    Raises:
        SpecError: it is a column, or of another type.
    """
    accepted = (Kind.I8, Kind.I16, Kind.I32, Kind.NULL)
    if step.kind not in accepted or step.literal is None or step.literal.bad is not None:
        raise SpecError(
            f"'{name}' must have an integer literal as its {what}, got {_described(step)}; "
            "write the number, or derive the column in etl.sql."
        )
    value = plain_value(step)
    return None if value is None else int(value)


def _described(step: Step) -> str:
    return (
        f"a column of type {step.kind.value}" if step.literal is None else f"a {step.kind.value}"
    )


def fold(kind: Kind, apply: Callable[..., Column], steps: Sequence[Step]) -> Column:
    """Return the constant that a function makes of constants, computed on a batch of one row."""
    rows = [_one_row(step.literal) for step in steps if step.literal is not None]
    with np.errstate(all="ignore"):
        data, null, bad = apply(*rows)
    is_null = null is not None and bool(np.any(null))
    first = data if isinstance(data, pa.Scalar) or np.ndim(data) == 0 else data[0]
    if kind is Kind.TEXT and is_null:
        first = pa.scalar(None, pa.string())
    is_bad = bad is not None and bool(np.any(bad))
    return Column(first, np.array(True) if is_null else None, np.array(True) if is_bad else None)


def _one_row(column: Column) -> Column:
    data, null, bad = column
    spread = pa.repeat(data, 1) if isinstance(data, pa.Scalar) else np.full(1, data)
    one = np.ones(1, np.bool_)
    return Column(spread, None if null is None else one, None if bad is None else one)
