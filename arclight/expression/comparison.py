"""Comparing values as Spark does: NaN equals NaN and is above every number, strings by bytes."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.errors import SpecError
from arclight.expression.casts import conversion, widen, written_moment
from arclight.expression.columns import Column, Flags, flags_of, strict, union
from arclight.expression.kinds import DTYPES, FLOATS, MOMENTS, Kind, common_kind_of
from arclight.expression.logic import both, choose, first_present, select
from arclight.expression.steps import Built, Step, names, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.expression.steps import Builder

_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TEXT: dict[str, Callable[[Any, Any], pa.Array]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _equal(left: Any, right: Any) -> Any:
    return (left == right) | (np.isnan(left) & np.isnan(right))


def _less(left: Any, right: Any) -> Any:
    return ~(left >= right) & ~np.isnan(left)


def _less_equal(left: Any, right: Any) -> Any:
    return ~(left > right) & (~np.isnan(left) | np.isnan(right))


_NAN_LAST: dict[str, Callable[[Any, Any], Any]] = {
    "=": _equal,
    "<>": lambda left, right: ~_equal(left, right),
    "<": _less,
    "<=": _less_equal,
    ">": lambda left, right: _less(right, left),
    ">=": lambda left, right: _less_equal(right, left),
}


def written(name: str, steps: Sequence[Step]) -> list[Step]:
    """Return the steps with a string literal beside a date or timestamp read as one, as in Spark.

    Raises:
        SpecError: the literal is no date.
    """
    moment = common_kind_of(step.kind for step in steps if step.kind in MOMENTS)
    if moment not in MOMENTS:
        return list(steps)
    return [written_moment(name, step, moment) for step in steps]


def aligned(name: str, steps: Sequence[Step]) -> tuple[Kind, list[Step]]:
    """Return the common type of the arguments, and the arguments widened to it.

    Raises:
        SpecError: they have no common type.
    """
    steps = written(name, steps)
    kind = _common(name, steps)
    return kind, [widen(step, kind) for step in steps]


def _common(name: str, steps: Sequence[Step]) -> Kind:
    kind = common_kind_of(step.kind for step in steps)
    if kind is None:
        raise SpecError(
            f"'{name}' must compare or combine values of one type, got "
            f"{names(step.kind for step in steps)}; convert one side with CAST(… AS type)."
        )
    return kind


def comparator(name: str, kind: Kind, steps: Sequence[Step] = ()) -> Callable[[Any, Any], Flags]:
    """Return the comparison of two arrays of one type, or of an array and a literal."""
    if kind is Kind.TEXT:
        function = _TEXT[name]
        return lambda left, right: flags_of(function(left, right))
    if kind not in FLOATS or (name in ("=", "<>") and any(_is_number(step) for step in steps)):
        return _PLAIN[name]
    return _NAN_LAST[name]


def _is_number(step: Step) -> bool:
    """Whether a step is a literal other than NaN, beside which = and <> need no care for NaN."""
    return step.literal is not None and not np.isnan(step.literal.data)


def _comparison(name: str, steps: Sequence[Step]) -> Built:
    kind, wide = aligned(name, steps)
    if kind is Kind.NULL:
        return Built(Kind.BOOL, _always_null)
    compare = comparator(name, kind, wide)

    def apply(left: Column, right: Column) -> Column:
        null, bad = strict((left, right))
        return Column(compare(left.data, right.data), null, bad)

    return Built(Kind.BOOL, apply, wide)


def _pair(name: str, left: Step, right: Step) -> Callable[[Column, Column], Column]:
    """Return a comparison of two columns that are widened for it alone."""
    kind = _common(name, (left, right))
    if kind is Kind.NULL:
        return _always_null
    compare = comparator(name, kind)
    widen_left, widen_right = conversion(left.kind, kind), conversion(right.kind, kind)

    def apply(left: Column, right: Column) -> Column:
        left, right = widen_left(left), widen_right(right)
        null, bad = strict((left, right))
        return Column(compare(left.data, right.data), null, bad)

    return apply


def _always_null(*columns: Column) -> Column:
    size = np.broadcast_shapes(*(np.shape(column.data) for column in columns))
    return Column(np.zeros(size, np.bool_), np.ones(size, np.bool_), None)


def _null_safe_equal(name: str, steps: Sequence[Step]) -> Built:
    kind, wide = aligned(name, steps)
    compare = operator.eq if kind is Kind.NULL else comparator("=", kind, wide)

    def apply(left: Column, right: Column) -> Column:
        bad = union(left.bad, right.bad)
        same = compare(left.data, right.data)
        if left.null is None and right.null is None:
            return Column(same, None, None)
        left_null = np.False_ if left.null is None else left.null
        right_null = np.False_ if right.null is None else right.null
        return Column((same & ~left_null & ~right_null) | (left_null & right_null), bad, bad)

    return Built(Kind.BOOL, apply, wide)


def _between(name: str, steps: Sequence[Step]) -> Built:
    steps = written(name, steps)
    above, below = _pair(">=", steps[0], steps[1]), _pair("<=", steps[0], steps[2])

    def apply(value: Column, low: Column, high: Column) -> Column:
        return both(above(value, low), below(value, high))

    return Built(Kind.BOOL, apply, steps)


def _in(name: str, steps: Sequence[Step]) -> Built:
    if any(step.literal is None or step.literal.bad is not None for step in steps[1:]):
        raise SpecError(
            "'in' must have valid literals in its list, got a column or a failing CAST; "
            "write x = a OR x = b instead."
        )
    kind, wide = aligned(name, steps)
    listed = [step.literal for step in wide[1:] if step.literal is not None]
    some_null = any(item.null is not None for item in listed)
    member = _membership(kind, [item.data for item in listed if item.null is None])

    def apply(value: Column, *_: Column) -> Column:
        found = member(value.data)
        return Column(found, union(value.null, ~found) if some_null else value.null, value.bad)

    return Built(Kind.BOOL, apply, wide)


def _membership(kind: Kind, items: list[Any]) -> Callable[[Any], Flags]:
    if kind is Kind.NULL or not items:
        return lambda data: np.zeros(len(data), np.bool_)
    if kind is Kind.TEXT:
        listed = pa.array([item.as_py() for item in items], pa.string())
        return lambda data: flags_of(pc.is_in(data, value_set=listed))
    if len(items) <= 8:
        equal = comparator("=", kind)
        return lambda data: reduce(operator.or_, [equal(data, item) for item in items])
    values = np.array(items, DTYPES[kind])
    if kind in (Kind.F32, Kind.F64) and np.isnan(values).any():
        return lambda data: np.isin(data, values) | np.isnan(data)
    return lambda data: np.isin(data, values)


def _extreme(name: str, steps: Sequence[Step]) -> Built:
    kind, wide = aligned(name, steps)
    if kind is Kind.NULL:
        return Built(kind, _always_null)
    better = comparator(">" if name == "greatest" else "<", kind)

    def pick(best: Column, other: Column) -> Column:
        take = better(other.data, best.data)
        if best.null is not None:
            take = take | best.null
        if other.null is not None:
            take = take & ~other.null
        null = None if best.null is None or other.null is None else best.null & other.null
        data = select(kind, take, other.data, best.data)
        return Column(data, null, union(best.bad, other.bad))

    def apply(*columns: Column) -> Column:
        data, null, bad = reduce(pick, columns)
        return Column(data, union(null, bad), bad)

    return Built(kind, apply, wide)


def _null_if(name: str, steps: Sequence[Step]) -> Built:
    left, right = written(name, steps)
    equal = _pair("=", left, right)

    def apply(value: Column, other: Column) -> Column:
        same, null, bad = equal(value, other)
        emptied = same if null is None else same & ~null
        data = select(left.kind, same, value.data, value.data)
        return Column(data, union(union(value.null, bad), emptied), bad)

    return Built(left.kind, apply, (left, right))


def _simple_case(name: str, steps: Sequence[Step]) -> Built:
    """Build `CASE x WHEN a THEN b … ELSE c END`; the steps are x, a, b, …, c."""
    subject, *tests = written("=", (steps[0], *steps[1:-1:2]))
    kind, values = aligned(name, (*steps[2:-1:2], steps[-1]))
    equal = [_pair("=", subject, test) for test in tests]

    def apply(subject: Column, *columns: Column) -> Column:
        conditions = (
            test(subject, value) for test, value in zip(equal, columns[:-1:2], strict=True)
        )
        return choose(kind, conditions, columns[1::2], columns[-1])

    return Built(kind, apply, (subject, *_interleaved(tests, values)))


def _case(name: str, steps: Sequence[Step]) -> Built:
    """Build `CASE WHEN a THEN b … ELSE c END`; the steps are a, b, …, c."""
    conditions = list(steps[:-1:2])
    for condition in conditions:
        require("CASE WHEN", condition, (Kind.BOOL, Kind.NULL))
    kind, values = aligned(name, (*steps[1::2], steps[-1]))

    def apply(*columns: Column) -> Column:
        return choose(kind, columns[:-1:2], columns[1::2], columns[-1])

    return Built(kind, apply, _interleaved(conditions, values))


def _interleaved(tests: Sequence[Step], values: Sequence[Step]) -> list[Step]:
    """Return test, value, test, value, …, and the last value alone."""
    pairs = [step for pair in zip(tests, values[:-1], strict=True) for step in pair]
    return [*pairs, values[-1]]


def _coalesce(name: str, steps: Sequence[Step]) -> Built:
    kind, wide = aligned(name, steps)

    def apply(*columns: Column) -> Column:
        return reduce(lambda found, other: first_present(kind, found, other), columns)

    return Built(kind, apply, wide)


BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(_PLAIN, _comparison),
    "<=>": _null_safe_equal,
    "between": _between,
    "in": _in,
    "greatest": _extreme,
    "least": _extreme,
    "nullif": _null_if,
    "case": _case,
    "simple case": _simple_case,
    "coalesce": _coalesce,
    "ifnull": _coalesce,
    "nvl": _coalesce,
}
