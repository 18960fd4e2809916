"""Three-valued logic and choices; a failure counts only where Spark would have evaluated it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.expression.columns import Column, Flags, Mask, arrow_flags, chosen, union
from arclight.expression.kinds import DTYPES, FLOATS, NUMBERS, Kind, common_kind
from arclight.expression.steps import Built, Step, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arclight.expression.steps import Builder

_TRUTH = (Kind.BOOL, Kind.NULL)


def select(kind: Kind, take: Flags, yes: Any, no: Any) -> Any:
    """Return the data of a choice between two columns of one type."""
    if kind is Kind.TEXT:
        return pc.if_else(arrow_flags(take), yes, no)
    return np.where(take, yes, no)


def both(left: Column, right: Column) -> Column:
    """Return left AND right; the right side is not evaluated where the left one is false."""
    return _shortcut(left, right, ends=False)


def either(left: Column, right: Column) -> Column:
    """Return left OR right; the right side is not evaluated where the left one is true."""
    return _shortcut(left, right, ends=True)


def _shortcut(left: Column, right: Column, *, ends: bool) -> Column:
    data = left.data | right.data if ends else left.data & right.data
    if left.null is None and right.null is None:
        return Column(data, None, None)
    left_ends, right_ends = _is(left, ends), _is(right, ends)
    bad = left.bad
    if right.bad is not None:
        bad = union(bad, right.bad & ~left_ends if bad is None else right.bad & ~left_ends & ~bad)
    null = union(left.null, right.null)
    assert null is not None
    null = null & ~left_ends & ~right_ends
    result = left_ends | right_ends
    return Column(result if ends else ~result, union(null, bad), bad)


def _is(column: Column, value: Any) -> Flags:
    """Return where a condition is known to be the value."""
    data: Flags = column.data if value else ~column.data
    return data if column.null is None else data & ~column.null


def choose(
    kind: Kind, conditions: Iterable[Column], values: Sequence[Column], default: Column
) -> Column:
    """Return, for each row, the value beside the first condition that is true."""
    open_: Any = np.True_
    bad: Mask = None
    takes: list[Flags] = []
    for condition in conditions:
        if condition.bad is not None:
            bad = union(bad, open_ & condition.bad)
            open_ = open_ & ~condition.bad
        take = open_ & _is(condition, value=True)
        takes.append(take)
        open_ = open_ & ~take
    data, null, fails = default
    for take, value in zip(reversed(takes), reversed(values), strict=True):
        data = select(kind, take, value.data, data)
        null = chosen(take, value.null, null)
        fails = chosen(take, value.bad, fails)
    if bad is None:
        return Column(data, null, fails)
    fails = bad if fails is None else np.where(bad, True, fails)
    return Column(data, union(null, fails), fails)


def first_present(kind: Kind, found: Column, other: Column) -> Column:
    """Return the first column where it is not null, else the other one."""
    if found.null is None and not _is_single(found.data):
        return found
    take: Any = np.False_ if found.null is None else found.null
    if found.bad is not None:
        take = take & ~found.bad
    bad = found.bad if other.bad is None else union(found.bad, take & other.bad)
    null = bad if other.null is None else union(bad, take & other.null)
    return Column(select(kind, take, other.data, found.data), null, bad)


def _is_single(data: Any) -> bool:
    return isinstance(data, pa.Scalar) or np.ndim(data) == 0


def _connective(connect: Callable[[Column, Column], Column]) -> Builder:
    def build(name: str, steps: Sequence[Step]) -> Built:
        for step in steps:
            require(name.upper(), step, _TRUTH)
        return Built(Kind.BOOL, connect)

    return build


def _not(name: str, steps: Sequence[Step]) -> Built:
    require(name.upper(), steps[0], _TRUTH)

    def apply(value: Column) -> Column:
        return Column(~value.data, value.null, value.bad)

    return Built(Kind.BOOL, apply)


def _rows_of(column: Column) -> int:
    return len(column.data)


def _is_null(_: str, __: Sequence[Step]) -> Built:
    def apply(value: Column) -> Column:
        if value.null is None:
            return Column(np.zeros(_rows_of(value), np.bool_), None, None)
        return Column(value.null, value.bad, value.bad)

    return Built(Kind.BOOL, apply)


def _is_not_null(_: str, __: Sequence[Step]) -> Built:
    def apply(value: Column) -> Column:
        if value.null is None:
            return Column(np.ones(_rows_of(value), np.bool_), None, None)
        return Column(~value.null, value.bad, value.bad)

    return Built(Kind.BOOL, apply)


def _is_nan(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], NUMBERS)

    def apply(value: Column) -> Column:
        found = np.isnan(value.data)
        if value.null is not None:
            found = found & ~value.null
        return Column(found, value.bad, value.bad)

    return Built(Kind.BOOL, apply)


def _nan_else(name: str, steps: Sequence[Step]) -> Built:
    for step in steps:
        require(name, step, NUMBERS)
    common = common_kind(steps[0].kind, steps[1].kind)
    kind = common if common in FLOATS else Kind.F64
    assert kind is not None
    dtype = DTYPES[kind]

    def apply(value: Column, other: Column) -> Column:
        take = np.isnan(value.data)
        if value.null is not None:
            take = take & ~value.null
        data = np.where(take, other.data, value.data).astype(dtype, copy=False)
        null, bad = chosen(take, other.null, value.null), chosen(take, other.bad, value.bad)
        return Column(data, null, bad)

    return Built(kind, apply)


BUILDERS: dict[str, Builder] = {
    "and": _connective(both),
    "or": _connective(either),
    "not": _not,
    "isnull": _is_null,
    "isnotnull": _is_not_null,
    "isnan": _is_nan,
    "nanvl": _nan_else,
}
