"""What in a SELECT hangs on the order in which rows happen to come, which no engine promises.

Spark gives rows of a shuffle in the order in which its tasks end. A value that hangs on it may be
another one when the same command is run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Iterator

_ONE = "use min, max, min_by or max_by, or write it OVER (PARTITION BY … ORDER BY …)"
_LIST = "write sort_array(…) around it"
_TEXT = "add WITHIN GROUP (ORDER BY …)"
_RANK = "add ORDER BY with columns to its window"
_NEAR = "use percentile or median, which are exact"
_SKETCH = "compute it before and read it as a source"
_CUT = "add ORDER BY, at the same level, with columns that tell all rows apart"

# The parser's name of a function, or its own where the parser knows none -> how to name it, and
# what to write instead
UNORDERED: dict[str, tuple[str, str]] = {
    "first": ("first", _ONE),
    "first_value": ("first_value", _ONE),
    "last": ("last", _ONE),
    "last_value": ("last_value", _ONE),
    "any_value": ("any_value", _ONE),
    "nth_value": ("nth_value", _RANK),
    "array_agg": ("collect_list or array_agg", _LIST),
    "collect_list": ("collect_list", _LIST),
    "array_unique_agg": ("collect_set", _LIST),
    "collect_set": ("collect_set", _LIST),
    "group_concat": ("listagg or string_agg", _TEXT),
    "listagg": ("listagg", _TEXT),
    "string_agg": ("string_agg", _TEXT),
    "mode": ("mode", _TEXT),
    "approx_quantile": ("percentile_approx or approx_percentile", _NEAR),
    "percentile_approx": ("percentile_approx", _NEAR),
    "approx_percentile": ("approx_percentile", _NEAR),
    "approx_top_k": ("approx_top_k", _SKETCH),
    "histogram_numeric": ("histogram_numeric", _SKETCH),
    "kll_sketch_agg_bigint": ("kll_sketch_agg_bigint", _SKETCH),
    "kll_sketch_agg_double": ("kll_sketch_agg_double", _SKETCH),
    "kll_sketch_agg_float": ("kll_sketch_agg_float", _SKETCH),
    "row_number": ("row_number", _RANK),
    "rank": ("rank", _RANK),
    "dense_rank": ("dense_rank", _RANK),
    "percent_rank": ("percent_rank", _RANK),
    "cume_dist": ("cume_dist", _RANK),
    "ntile": ("ntile", _RANK),
    "lag": ("lag", _RANK),
    "lead": ("lead", _RANK),
}
_LISTS = ("array_agg", "array_unique_agg")
# Around a list they give one value, whatever its order
_FORGETS = (exp.ArraySort, exp.ArraySize, exp.ArrayMax, exp.ArrayMin)
_AROUND = (exp.IgnoreNulls, exp.RespectNulls, exp.Filter)


def find_unordered(query: exp.Expr) -> Iterator[tuple[str, str]]:
    """Yield what hangs on the order of rows, and what to write instead."""
    for node in query.walk():
        if isinstance(node, exp.Query) and _cuts(node) and not node.args.get("order"):
            yield "LIMIT or OFFSET without ORDER BY", _CUT
        if isinstance(node, exp.Window) and _is_part(node) and not _has_order(node):
            yield "a window of ROWS or RANGE without ORDER BY", _RANK
        found = UNORDERED.get(_name(node))
        if found is not None and not _is_ordered(node):
            yield found


def _cuts(query: exp.Query) -> bool:
    return bool(query.args.get("limit") or query.args.get("offset"))


def _name(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return node.name.lower()
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


def _is_ordered(node: exp.Expr) -> bool:
    if isinstance(node.this, exp.Order) or node.args.get("deterministic") == exp.true():
        return True
    holder = node.parent
    while isinstance(holder, _AROUND):
        holder = holder.parent
    if isinstance(holder, exp.WithinGroup):
        return True
    if isinstance(holder, exp.Window):
        return _has_order(holder)
    return _name(node) in _LISTS and isinstance(holder, _FORGETS)


def _has_order(window: exp.Window) -> bool:
    """Whether a window is ordered by a column, itself or by the named window it starts from."""
    order = window.args.get("order")
    if order is not None and order.find(exp.Column) is not None:
        return True
    name = window.args.get("alias")
    select = window.find_ancestor(exp.Select)
    if name is None or select is None:
        return False
    named = select.args.get("windows") or ()
    return any(
        _has_order(one)
        for one in named
        if one is not window and one.this.name.lower() == name.name.lower()
    )


def _is_part(window: exp.Window) -> bool:
    spec = window.args.get("spec")
    if spec is None:
        return False
    return not (spec.args.get("start") == "UNBOUNDED" and spec.args.get("end") == "UNBOUNDED")
