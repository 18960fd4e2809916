"""From sqlglot's tree to our own closed set of nodes; a table says what each class becomes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sqlglot import exp

from arclight.errors import SpecError, nearest, printable
from arclight.expression.kinds import FLOATS, INTEGERS, Kind
from arclight.expression.nodes import Call, Cast, Chain, Literal, Name, Node
from arclight.expression.signatures import ARITIES, REFUSED_FUNCTIONS, REFUSED_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHAINED: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.IntDiv: "div",
    exp.DPipe: "||",
    exp.And: "and",
    exp.Or: "or",
}
COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "<=>",
}
PREDICATES = (*COMPARISONS, exp.Is, exp.In, exp.Between, exp.Like)
_CAST_TYPES: dict[exp.DType, Kind] = {
    exp.DType.BOOLEAN: Kind.BOOL,
    exp.DType.TINYINT: Kind.I8,
    exp.DType.SMALLINT: Kind.I16,
    exp.DType.INT: Kind.I32,
    exp.DType.BIGINT: Kind.I64,
    exp.DType.FLOAT: Kind.F32,
    exp.DType.DOUBLE: Kind.F64,
    exp.DType.TEXT: Kind.TEXT,
    exp.DType.DATE: Kind.DATE,
    exp.DType.TIMESTAMP: Kind.TIME,
    exp.DType.TIMESTAMPTZ: Kind.TIME,
}
_SPANS = {Kind.I8: 2**7, Kind.I16: 2**15, Kind.I32: 2**31, Kind.I64: 2**63}
_SUFFIXES = {"Y": Kind.I8, "S": Kind.I16, "L": Kind.I64}
_LARGEST_FLOAT32 = 3.4028235677973366e38


def convert(tree: exp.Expr) -> Node:
    """Return the nodes of a parsed expression.

    Raises:
        SpecError: the tree holds something that is not supported.
    """
    if type(tree) in CHAINED:
        return _chain(tree)
    if type(tree) in COMPARISONS:
        return _comparison(tree)
    build = _BUILDERS.get(type(tree))
    if build is None:
        raise refused(tree)
    return build(tree)


def columns_of(node: Node) -> tuple[str, ...]:
    """Return the columns that nodes name, in the order of first use."""
    return tuple(dict.fromkeys(_names(node)))


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.column
        return
    for child in _children(node):
        yield from _names(child)


def _children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Call):
        return node.args
    if isinstance(node, Cast):
        return (node.value,)
    if isinstance(node, Chain):
        return (node.first, *(step for _, step in node.rest))
    return ()


def height_of(node: Node) -> int:
    """Return how many operators stand inside one another."""
    return 1 + max(map(height_of, _children(node)), default=0)


def refused(tree: exp.Expr) -> SpecError:
    """Return the error for a construct outside the closed set."""
    name = type(tree).__name__
    return SpecError(
        f"A row expression must not use '{printable(sql_of(tree), 80)}' ({name} is not "
        "supported); derive the column in etl.sql; docs/expressions.md lists what can be written."
    )


def sql_of(tree: exp.Expr) -> str:
    """Return a tree as SQL, for a message."""
    return str(tree.sql(dialect="spark"))


def _chain(tree: exp.Expr) -> Node:
    rest: list[tuple[str, Node]] = []
    while type(tree) in CHAINED:
        _refuse_mixed(tree)
        rest.append((CHAINED[type(tree)], convert(tree.expression)))
        tree = tree.this
    return Chain(convert(tree), tuple(reversed(rest)))


def _refuse_mixed(tree: exp.Expr) -> None:
    """Refuse `a || b + c`: there sqlglot binds tighter on the right and Spark on the left."""
    plain = (exp.Add, exp.Sub)
    sides = (tree.this, tree.expression)
    if isinstance(tree, exp.DPipe) and any(isinstance(side, plain) for side in sides):
        raise _ambiguous(tree)


def _comparison(tree: exp.Expr) -> Node:
    return Call(
        COMPARISONS[type(tree)], tuple(_operand(side) for side in (tree.this, tree.expression))
    )


def _operand(tree: exp.Expr) -> Node:
    """Convert one side of a predicate; a predicate there has no parentheses of its own."""
    if isinstance(tree, (*PREDICATES, exp.Not)):
        raise _ambiguous(tree.parent or tree)
    return convert(tree)


def _ambiguous(tree: exp.Expr) -> SpecError:
    return SpecError(
        f"'{printable(sql_of(tree), 80)}' must say what belongs together, because engines read a "
        "row of such operators differently; put one side in parentheses."
    )


def _column(tree: exp.Expr) -> Node:
    identifier = tree.this
    if tree.args.get("table") is not None or not isinstance(identifier, exp.Identifier):
        raise SpecError(
            f"'{printable(sql_of(tree), 80)}' must be a plain column name without a qualifier; "
            "a row expression sees one row, so leave out the table, or quote a name that holds a "
            "point with backquotes."
        )
    if not identifier.quoted and identifier.name.lower() in REFUSED_NAMES:
        raise SpecError(
            f"A row expression must not use '{identifier.name}', because the same row must always "
            "give the same value; quote it with backquotes if it is a column."
        )
    return Name(identifier.name)


def _literal(tree: exp.Expr) -> Node:
    if tree.args.get("is_string"):
        return Literal(str(tree.this), Kind.TEXT)
    return _number(str(tree.this), None)


def _number(text: str, kind: Kind | None) -> Literal:
    """Return a number literal; an integer is an int when it fits and else a bigint."""
    if kind in (Kind.F32, Kind.F64) or (kind is None and any(mark in text for mark in ".eE")):
        return _float_literal(text, kind or Kind.F64)
    if kind is None:
        kind = Kind.I32 if -(2**31) <= int(text) < 2**31 else Kind.I64
    if not -_SPANS[kind] <= int(text) < _SPANS[kind]:
        raise _out_of_range(text, kind)
    return Literal(int(text), kind)


def _float_literal(text: str, kind: Kind) -> Literal:
    value = float(text)
    if math.isinf(value) or (kind is Kind.F32 and abs(value) >= _LARGEST_FLOAT32):
        raise _out_of_range(text, kind)
    return Literal(value, kind)


def check_suffixed(number: str, suffix: str) -> None:
    """Refuse a number that does not fit the type its suffix names, such as 300Y.

    Raises:
        SpecError: it does not fit; the lowest one fits only behind a minus and is let through.
    """
    kind = _SUFFIXES.get(suffix.upper())
    if kind is not None and (not number.isdigit() or int(number) > _SPANS[kind]):
        raise _out_of_range(number, kind)


def _out_of_range(text: str, kind: Kind) -> SpecError:
    return SpecError(
        f"The number {printable(text, 60)} must fit a {kind.value}; "
        "write a smaller one, or a double such as 1e19."
    )


def _negative(tree: exp.Expr) -> Node:
    """Fold the sign into a number literal, as Spark's grammar does, so that -128Y is a tinyint."""
    inner = tree.this
    if isinstance(inner, exp.Literal) and not inner.args.get("is_string"):
        return _number(f"-{inner.this}", None)
    if _is_suffixed(inner) or _is_lowest(inner):
        return _number(f"-{inner.this.this}", _CAST_TYPES[inner.to.this])
    return Call("negative", (convert(inner),))


def _is_suffixed(tree: exp.Expr) -> bool:
    """Whether a cast is a number with its type: sqlglot reads 5L and CAST(5 AS bigint) alike."""
    if type(tree) is not exp.Cast or tree.to.expressions:
        return False
    number, kind = tree.this, _CAST_TYPES.get(tree.to.this)
    if not isinstance(number, exp.Literal) or number.args.get("is_string"):
        return False
    if kind in FLOATS:
        return True
    return kind in INTEGERS and str(number.this).isdigit() and int(number.this) < _SPANS[kind]


def _is_lowest(tree: exp.Expr) -> bool:
    """Whether this is the 128 of -128Y or its like, which fits only with its sign."""
    if type(tree) is not exp.Cast or not isinstance(tree.this, exp.Literal):
        return False
    kind, number = _CAST_TYPES.get(tree.to.this), str(tree.this.this)
    return kind in INTEGERS and number.isdigit() and int(number) == _SPANS[kind]


def _cast(tree: exp.Expr) -> Node:
    if _is_suffixed(tree):
        return _number(str(tree.this.this), _CAST_TYPES[tree.args["to"].this])
    return _plain_cast(tree, safe=False)


def _try_cast(tree: exp.Expr) -> Node:
    return _plain_cast(tree, safe=True)


def _plain_cast(tree: exp.Expr, *, safe: bool) -> Node:
    to = tree.args["to"]
    kind = _CAST_TYPES.get(to.this) if not to.expressions else None
    if kind is None or tree.args.get("format") is not None:
        raise SpecError(
            f"CAST must go to {', '.join(sorted({k.value for k in _CAST_TYPES.values()}))}, "
            f"got '{printable(sql_of(tree), 80)}'; cast to double or string instead."
        )
    return Cast(convert(tree.this), kind, safe)


def _call(tree: exp.Expr) -> Node:
    name = str(tree.this).lower()
    if tree.args.get("order") is not None or not isinstance(tree.this, str):
        raise refused(tree)
    if name not in ARITIES:
        reason = REFUSED_FUNCTIONS.get(name, "it is not one of the supported functions")
        raise SpecError(
            f"A row expression must not call '{printable(name, 60)}', because {reason}; "
            f"see docs/expressions.md, or derive the column in etl.sql.{nearest(name, ARITIES)}"
        )
    fewest, most = ARITIES[name]
    if not fewest <= len(tree.expressions) <= (most or len(tree.expressions)):
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most or 'any number of'}"
        raise SpecError(
            f"'{name}' must have {wanted} arguments, got {len(tree.expressions)} in "
            f"'{printable(sql_of(tree), 80)}'; see docs/expressions.md."
        )
    return Call(name, tuple(convert(arg) for arg in tree.expressions))


def _is(tree: exp.Expr) -> Node:
    value, test = _operand(tree.this), tree.expression
    if isinstance(test, exp.Null):
        return Call("isnull", (value,))
    if isinstance(test, exp.Boolean):
        return Call("<=>", (value, Literal(bool(test.this), Kind.BOOL)))
    raise refused(tree)


def _in(tree: exp.Expr) -> Node:
    if tree.args.get("query") or tree.args.get("unnest") or tree.args.get("field"):
        raise refused(tree)
    return Call("in", (_operand(tree.this), *(convert(item) for item in tree.expressions)))


def _between(tree: exp.Expr) -> Node:
    if tree.args.get("symmetric"):
        raise refused(tree)
    parts = (tree.this, tree.args["low"], tree.args["high"])
    return Call("between", tuple(_operand(part) for part in parts))


def _like(tree: exp.Expr) -> Node:
    node = Call("like", (_operand(tree.this), _operand(tree.expression)))
    return Call("not", (node,)) if tree.args.get("negate") else node


def _escape(tree: exp.Expr) -> Node:
    like = tree.this
    if not isinstance(like, exp.Like):
        raise refused(tree)
    parts = (like.this, like.expression, tree.expression)
    node = Call("like", tuple(_operand(part) for part in parts))
    return Call("not", (node,)) if like.args.get("negate") else node


def _case(tree: exp.Expr) -> Node:
    subject = tree.args.get("this")
    args: list[Node] = [] if subject is None else [convert(subject)]
    for branch in tree.args["ifs"]:
        args += [convert(branch.this), convert(branch.args["true"])]
    default = tree.args.get("default")
    args.append(Literal(None, Kind.NULL) if default is None else convert(default))
    return Call("case" if subject is None else "simple case", tuple(args))


def _if(tree: exp.Expr) -> Node:
    otherwise = tree.args.get("false")
    if otherwise is None:
        raise SpecError(
            f"'if' must have 3 arguments, got '{printable(sql_of(tree), 80)}'; "
            "write IF(condition, then, otherwise)."
        )
    return Call("case", (convert(tree.this), convert(tree.args["true"]), convert(otherwise)))


def _not(tree: exp.Expr) -> Node:
    return Call("not", (convert(tree.this),))


def _paren(tree: exp.Expr) -> Node:
    return convert(tree.this)


def _boolean(tree: exp.Expr) -> Node:
    return Literal(bool(tree.this), Kind.BOOL)


def _null(_: exp.Expr) -> Node:
    return Literal(None, Kind.NULL)


_BUILDERS: dict[type[exp.Expr], Callable[[exp.Expr], Node]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: _boolean,
    exp.Null: _null,
    exp.Paren: _paren,
    exp.Not: _not,
    exp.Neg: _negative,
    exp.Cast: _cast,
    exp.TryCast: _try_cast,
    exp.Anonymous: _call,
    exp.Is: _is,
    exp.In: _in,
    exp.Between: _between,
    exp.Like: _like,
    exp.Escape: _escape,
    exp.Case: _case,
    exp.If: _if,
}
