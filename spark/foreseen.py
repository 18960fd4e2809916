"""The joined table's columns before any engine runs, as far as footers and schemas tell.

Spark's own reading is the truth; this one only says what is certain of it. Where SQL could make a
column that is not foreseen here (generators, pivots, fields of structs), nothing is said at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
from sqlglot import exp, parse_one

from arclight.ddl import parse_ddl
from arclight.errors import SpecError, nearest, printable
from arclight.expression.bounds import room_for_parsing
from arclight.inputs import LOGGED
from arclight.schema import ARROW_TYPES
from spark.columns import nested_refused
from spark.csv_header import header_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from arclight.inputs import SourceFiles
    from arclight.spec import Source
    from spark.footers import Footers


class Seen(NamedTuple):
    """A column: its name, and its type in the footers, None when it cannot be told."""

    name: str
    type: pa.DataType | None


Columns = tuple[Seen, ...]
Tables = dict[str, Columns | None]
"""Name in lower case -> columns, None for a table whose columns are not known."""


class _From(NamedTuple):
    """What a SELECT reads: tables in order, the names that USING merged, any outer join."""

    tables: list[tuple[str, Columns]]
    merged: set[str]
    is_outer: bool

    def find(self, node: exp.Expr) -> list[Seen]:
        """Return the columns that a name may mean."""
        return [
            column
            for name, columns in self.tables
            for column in columns
            if column.name.lower() == node.name.lower()
            and node.text("table").lower() in ("", name)
        ]


_OPAQUE = (
    exp.UDTF, exp.Explode, exp.Pivot, exp.Values, exp.Dot, exp.Lambda, exp.Inline, exp.Stack,
    exp.MatchRecognize, exp.QueryTransform,
)  # fmt: skip
_GENERATORS = frozenset(
    {"inline", "inline_outer", "json_tuple", "stack", "posexplode", "variant_explode"}
)
# bare words that need be no column: units of time, and what Spark names by itself
_WORDS = frozenset(
    f"{unit}{end}"
    for unit in (
        *("year", "quarter", "month", "week", "day", "hour", "minute", "second"),
        *("millisecond", "microsecond", "yearofweek", "dayofweek", "dayofweek_iso", "dayofyear"),
        *("doy", "dow", "window", "session_window", "window_time", "grouping__id", "_metadata"),
    )
    for end in ("", "s")
)
_EXACT: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_int8, "int8"),
    (pa.types.is_int16, "int16"),
    (pa.types.is_uint8, "int16"),
    (pa.types.is_int32, "int32"),
    (pa.types.is_uint16, "int32"),
    (pa.types.is_int64, "int64"),
    (pa.types.is_uint32, "int64"),
    (pa.types.is_float32, "float32"),
    (pa.types.is_float64, "float64"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "string"),
    (pa.types.is_binary, "binary"),
    (pa.types.is_large_binary, "binary"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "timestamp"),
)

# formats whose files have the columns that a schema names, and no other
_WITH_SCHEMA = frozenset({"csv", "json", "orc", "parquet"})
_OF_DDL: dict[str, pa.DataType] = {
    **dict.fromkeys(("bigint", "long"), pa.int64()),
    **dict.fromkeys(("int", "integer"), pa.int32()),
    **dict.fromkeys(("smallint", "short"), pa.int16()),
    **dict.fromkeys(("tinyint", "byte"), pa.int8()),
    **dict.fromkeys(("float", "real"), pa.float32()),
    **dict.fromkeys(("decimal", "dec", "numeric"), pa.decimal128(38)),
    **dict.fromkeys(("timestamp", "timestamp_ltz", "timestamp_ntz"), pa.timestamp("us")),
    **dict.fromkeys(("string", "varchar", "char", "character"), pa.string()),
    "boolean": pa.bool_(),
    "double": pa.float64(),
    "binary": pa.binary(),
    "date": pa.date32(),
}


def source_columns(source: Source, files: SourceFiles, footers: Footers | None) -> Columns | str:
    """Return a source's columns, or why Spark alone knows them.

    Args:
        source: as the spec has it.
        files: where it lies.
        footers: of its files, None when their format has none or they are on no file system.
    """
    outside = _outside(source, files)
    if outside:
        return outside
    columns = None if source.ddl is None else parse_ddl(source.ddl)
    if columns is not None:
        return tuple(Seen(column.name, _OF_DDL.get(column.type)) for column in columns)
    if footers is None and source.format == "csv":
        return _of_header(source, files)
    if footers is None:
        return f"{source.format} without schema"
    if source.options:
        return f"{source.format} with {', '.join(source.options)}"
    return tuple(Seen(field.name, field.type) for field in footers.schema)


def _of_header(source: Source, files: SourceFiles) -> Columns | str:
    """Return the columns of CSV files: text, or of types that Spark will infer."""
    names = header_names(source, files.files)
    if names is None:
        return "csv without schema, whose header alone does not tell"
    inferred = str(source.options.get("inferSchema", False)).lower() == "true"
    return tuple(Seen(name, None if inferred else pa.string()) for name in names)


def _outside(source: Source, files: SourceFiles) -> str:
    """Return why neither footers nor a schema hold a source's columns, empty when they do."""
    if source.format in LOGGED:
        return f"{source.format}, whose log names them"
    if not files.files:
        return f"{source.format} that is not on a file system of this machine"
    if files.carried:
        return "folders that carry values"
    if source.ddl is not None and (
        source.format not in _WITH_SCHEMA or parse_ddl(source.ddl) is None
    ):
        return f"{source.format} with a schema that Spark reads its own way"
    return ""


def joined_columns(sql: str, sources: Mapping[str, Columns | None]) -> Columns | None:
    """Return the columns that a SELECT gives, None when they cannot be told.

    Args:
        sql: one SELECT over the sources; proven to be one.
        sources: source -> its columns.

    Raises:
        SpecError: the SQL names a column that no source has.
    """
    with room_for_parsing():
        query = parse_one(sql, dialect="spark")
        made = {node.name.lower() for node in query.find_all(exp.Anonymous)}
        if query.find(*_OPAQUE) is not None or made & _GENERATORS:
            return None
        tables: Tables = {name.lower(): found for name, found in sources.items()}
        _refuse_unknown(query, tables)
        return _outputs(query, tables)


def raw_columns(
    columns: Columns, *, key: Collection[str], drop: Collection[str]
) -> list[tuple[str, pa.DataType | None]]:
    """Return columns with their raw types, as the join casts them; dropped nested ones left out.

    Raises:
        SchemaError: a column is nested and not dropped.
    """
    found = []
    for name, kind in columns:
        is_nested = kind is not None and pa.types.is_nested(kind)
        if is_nested and name not in drop:
            raise nested_refused(name, str(kind))
        if not is_nested:
            found.append((name, None if kind is None else _raw(kind, is_key=name in key)))
    return found


def _raw(kind: pa.DataType, *, is_key: bool) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_decimal(kind) or pa.types.is_uint64(kind):  # which Spark reads as a decimal
        return ARROW_TYPES["string" if is_key else "float64"]
    return next((ARROW_TYPES[name] for fits, name in _EXACT if fits(kind)), None)


def _refuse_unknown(query: exp.Expr, tables: Tables) -> None:
    """Refuse a name that nothing in the query can have: neither a source nor an alias."""
    known = [column for columns in tables.values() for column in columns or ()]
    is_open = any(columns is None for columns in tables.values())
    if is_open or any(c.type is None or pa.types.is_nested(c.type) for c in known):
        return
    names = _WORDS | {column.name.lower() for column in known} | set(tables)
    # aliases, tables, windows, and texts, which name the column of a subquery
    for node in query.find_all(exp.Identifier, exp.Literal, exp.Var):
        if not isinstance(node.parent, exp.Column):
            names |= {node.name.lower()}
    for column in query.find_all(exp.Column):
        name = column.name
        is_plain = not column.table and name.replace("_", "a").isalnum()
        if is_plain and name.lower() not in names:
            shown = sorted({c.name for c in known})
            raise SpecError(
                f"etl.sql: no source has a column '{printable(name)}'.{nearest(name, shown)} "
                f"They have: {printable(', '.join(shown), 400)}."
            )
    _refuse_unknown_of_table(query, tables)


def _refuse_unknown_of_table(query: exp.Expr, tables: Tables) -> None:
    """Refuse `t.name` where every table called t is a source that has no such column."""
    meant: dict[str, set[str]] = {}
    # WITH parts, subqueries, and what may be a struct of a table's name
    unsure = {part.alias.lower() for part in query.find_all(exp.CTE, exp.Subquery, exp.Alias)}
    for table in query.find_all(exp.Table):
        columns = tables.get(table.name.lower())
        called = table.alias_or_name.lower()
        if columns is None or table.name.lower() in unsure or _renames(table):
            unsure.add(called)
        meant.setdefault(called, set()).update(c.name for c in columns or ())
    for column in query.find_all(exp.Column):
        called, shown = column.table.lower(), sorted(meant.get(column.table.lower(), ()))
        is_known = column.name.lower() in {name.lower() for name in shown}
        is_sure = called in meant and called not in unsure and not column.args.get("db")
        if is_sure and not is_known and not isinstance(column.this, exp.Star):
            raise SpecError(
                f"etl.sql: '{printable(column.table)}' has no column '{printable(column.name)}'."
                f"{nearest(column.name, shown)} It has: {printable(', '.join(shown), 400)}."
            )


def _renames(table: exp.Expr) -> bool:
    alias = table.args.get("alias")
    return alias is not None and bool(alias.args.get("columns"))


def _outputs(query: exp.Expr, tables: Tables) -> Columns | None:
    """Return what a query gives; its own WITH parts are tables that it and they see."""
    inner = dict(tables)
    with_ = query.args.get("with_")
    is_recursive = with_ is not None and with_.args.get("recursive")
    for part in with_.expressions if with_ is not None else ():
        is_plain = not (is_recursive or part.args["alias"].columns)
        inner[part.alias.lower()] = _outputs(part.this, inner) if is_plain else None
    if isinstance(query, exp.Subquery):
        return _outputs(query.this, inner)
    if isinstance(query, exp.SetOperation):
        return _of_both(query, inner)
    if not isinstance(query, exp.Select) or query.args.get("laterals"):
        return None
    return _selected(query, inner)


def _of_both(query: exp.SetOperation, tables: Tables) -> Columns | None:
    """Return the left side's names; a type only where both sides have it."""
    left, right = _outputs(query.left, tables), _outputs(query.right, tables)
    if left is None or right is None or len(left) != len(right) or query.args.get("by_name"):
        return None
    return tuple(
        Seen(a.name, a.type if a.type == b.type else None)
        for a, b in zip(left, right, strict=True)
    )


def _selected(query: exp.Select, tables: Tables) -> Columns | None:
    nodes = [query.args.get("from_"), *query.args.get("joins", ())]
    read: list[tuple[str, Columns]] = []
    merged: set[str] = set()
    for node in nodes:
        found = None if node is None else _table(node.this, tables)
        if node is None or found is None or node.args.get("method"):  # NATURAL
            return None
        using = {column.name.lower() for column in node.args.get("using") or ()}
        if str(node.args.get("kind", "")) not in ("SEMI", "ANTI"):
            read.append((found[0], tuple(c for c in found[1] if c.name.lower() not in using)))
        merged |= using
    is_outer = any(node is not None and node.args.get("side") for node in nodes)
    items = [_item(item, _From(read, merged, is_outer)) for item in query.expressions]
    if any(columns is None for columns in items):
        return None
    return tuple(column for columns in items for column in columns or ())


def _table(node: exp.Expr, tables: Tables) -> tuple[str, Columns] | None:
    """Return what a table in FROM is called and has, None when that cannot be told."""
    if _renames(node) or node.args.get("joins") or node.args.get("laterals"):
        return None
    columns: Columns | None = None
    if isinstance(node, exp.Table):
        columns = tables.get(node.name.lower())
    elif isinstance(node, exp.Subquery):
        columns = _outputs(node, tables)
    return None if columns is None else ((node.alias_or_name).lower(), columns)


def _item(item: exp.Expr, read: _From) -> list[Seen] | None:
    """Return the columns of one item of a SELECT, None when their names cannot be told."""
    if isinstance(item, exp.Alias):
        return [Seen(item.alias, _type_of(item.this, read))]
    if isinstance(item, exp.Star):
        return _all(item, "", read)
    if not isinstance(item, exp.Column):
        return None
    if isinstance(item.this, exp.Star):
        # a column that USING merged belongs to both tables, one of which holds it here
        return None if read.merged else _all(item.this, item.table.lower(), read)
    if any(column.name != item.name for column in read.find(item)):
        return None  # written in another case: the engine decides how it is called
    return [Seen(item.name, _type_of(item, read))]


def _all(star: exp.Expr, table: str, read: _From) -> list[Seen] | None:
    if star.args.get("replace") or star.args.get("rename"):
        return None
    if table and table not in {name for name, _ in read.tables}:
        return None  # the fields of a struct
    left_out = {column.name.lower() for column in star.args.get("except_") or ()}
    unsure = read.merged if read.is_outer else set()
    return [
        Seen(column.name, None) if column.name.lower() in unsure else column
        for name, columns in read.tables
        for column in columns
        if table in ("", name) and column.name.lower() not in left_out
    ]


def _type_of(node: exp.Expr, read: _From) -> pa.DataType | None:
    """Return the type of a plain column that stands in one table, None for all else."""
    if not isinstance(node, exp.Column) or (read.is_outer and node.name.lower() in read.merged):
        return None
    found = read.find(node)
    return found[0].type if len(found) == 1 else None
