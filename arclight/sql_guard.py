"""The wall before Spark SQL: a spec's text must be one SELECT over its own sources.

SQL text is power: it can read any path, run scripts and Java, and change the session. So the text
is parsed first, and Spark never sees what is not a SELECT of known tables. Functions are looked
for among the tokens, because a parser may rename a call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlglot import exp, parse
from sqlglot.dialects.spark import Spark
from sqlglot.tokenizer_core import TokenType

from arclight.errors import SpecError, nearest, printable
from arclight.expression.bounds import bounded_tokens, one_line, room_for_parsing, why_unread
from arclight.sql_order import find_unordered

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlglot.tokenizer_core import Token

LONGEST = 100_000
DEEPEST = 50

_CODE = "it runs code that is not SQL"
_REPLAY = "the same command must always give the same rows"
_HIDDEN = "it names a table or a function by a computed text"
_OUTSIDE = "it reads data that is not one of the sources"
_CALLS = {
    **dict.fromkeys(("reflect", "java_method", "try_reflect", "call_function"), _CODE),
    **dict.fromkeys(("identifier", "sql"), _HIDDEN),
    **dict.fromkeys(
        ("read_files", "read_kafka", "read_state_metadata", "read_statestore"), _OUTSIDE
    ),
    **dict.fromkeys(
        (
            "aes_encrypt",
            "curdate",
            "current_catalog",
            "current_database",
            "current_date",
            "current_schema",
            "current_time",
            "current_timestamp",
            "current_timezone",
            "current_user",
            "input_file_block_length",
            "input_file_block_start",
            "input_file_name",
            "localtimestamp",
            "monotonically_increasing_id",
            "now",
            "rand",
            "randn",
            "random",
            "randstr",
            "session_user",
            "shuffle",
            "spark_partition_id",
            "uniform",
            "user",
            "uuid",
            "version",
        ),
        _REPLAY,
    ),
}
# Spark evaluates these without brackets too
_BARE = frozenset(
    {
        "current_catalog",
        "current_database",
        "current_date",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtimestamp",
        "session_user",
    }
)
_NODES: dict[type[exp.Expr], tuple[str, str]] = {
    exp.QueryTransform: ("TRANSFORM", _CODE),
    exp.Into: ("SELECT INTO", "it writes a table"),
    exp.TableSample: ("TABLESAMPLE", _REPLAY),
    exp.Parameter: ("a parameter", "nothing fills it in"),
    exp.Placeholder: ("a parameter", "nothing fills it in"),
    exp.Version: ("a table version", "a source is read as it is"),
    exp.Command: ("a command", "only a SELECT is run"),
}
_STARTS = (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN, TokenType.FROM)
_MOVING = re.compile(r"\s*(now|today|tomorrow|yesterday)(\s+\S+)?\s*", re.IGNORECASE)
TIME_OF_DAY = re.compile(
    r"\s*(T\d{1,2}|T?\d{1,2}:\d{1,2}(:\d{1,2}([.,]\d*)?)?)"
    r"\s*(Z|(UTC|GMT|UT)?[-+]\S+|UTC|GMT|[A-Za-z]+/\S+)?\s*"
)
"""A text without a date; where it is made a time, Spark takes the day of the run."""
# A second net under the parser, which may take for a comment what Spark takes for code
_CODE_CALLS = re.compile(
    r"\b(reflect|java_method|try_reflect|call_function)`?\s*\(", re.IGNORECASE
)
_DIALECT = Spark()


def check_select(sql: str, sources: Collection[str]) -> None:
    """Prove that a text is exactly one SELECT over known tables.

    WITH, set operations, subqueries, joins, windows, aggregates, LATERAL VIEW and hints are
    allowed.

    Args:
        sql: The text, in Spark SQL.
        sources: The names of the tables it may read.

    Raises:
        SpecError: the text is too long or too deep, is not one SELECT, cannot be parsed, reads
            another table or a path, calls code outside SQL, or could give other rows next time.
    """
    tokens = bounded_tokens("SQL", sql, dialect=_DIALECT, longest=LONGEST, deepest=DEEPEST)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    _check_statement(sql, tokens)
    _check_calls(sql, tokens)
    query = _parsed(sql)
    for node in query.walk():
        _check_node(node, sources)
    for what, way in find_unordered(query):
        raise SpecError(f"The SQL must not use {what}, because {_REPLAY}; {way}.")


def check_all_read(sql: str, sources: Collection[str]) -> None:
    """Refuse a source that is read nowhere: a join was forgotten, and its rows are not counted.

    Args:
        sql: A text that `check_select` lets pass.
        sources: The names of the tables it may read.

    Raises:
        SpecError: there is one.
    """
    read = {
        table.name.lower()
        for table in _parsed(sql).find_all(exp.Table)
        if table.find_ancestor(exp.Hint) is None and table.name.lower() not in _ctes_for(table)
    }
    for source in sources:
        if source.lower() not in read:
            raise SpecError(
                f"The SQL must read every source, but reads '{printable(source, 80)}' nowhere; "
                "join it, or take it out of sources."
            )


def has_join(sql: str) -> bool:
    """Whether a text that `check_select` lets pass makes its rows by joins, and by no UNION."""
    query = _parsed(sql)
    return query.find(exp.Join) is not None and query.find(exp.SetOperation) is None


def refuse_moving(text: str) -> None:
    """Refuse a text, made a date or a time by the SQL, that the clock of the run decides.

    Raises:
        SpecError: it is `now` or its like, or a time of day.
    """
    if _MOVING.fullmatch(text) or TIME_OF_DAY.fullmatch(text):
        raise SpecError(
            f"The SQL must not use '{printable(text, 60)}' as a date or a time, because "
            f"{_REPLAY}; write out which day it is."
        )


def _check_statement(sql: str, tokens: Sequence[Token]) -> None:
    if any(token.token_type is TokenType.SEMICOLON for token in tokens):
        raise SpecError(
            f"The SQL '{one_line(sql, 60)}' must be exactly one statement, got several; "
            "keep the SELECT and drop what stands after ';'."
        )
    if not tokens or tokens[0].token_type not in _STARTS:
        word = tokens[0].text.upper() if tokens else ";"
        raise SpecError(
            f"The SQL must be a SELECT, got '{printable(word, 60)}'; "
            "write SELECT …, or WITH … SELECT …, over the sources."
        )


def _check_calls(sql: str, tokens: Sequence[Token]) -> None:
    found = _CODE_CALLS.search(sql)
    if found:
        raise _refused(found[1].lower(), _CODE)
    for index, token in enumerate(tokens):
        name = token.text.lower()
        following = tokens[index + 1 : index + 3]
        is_call = bool(following) and following[0].token_type is TokenType.L_PAREN
        if token.token_type is TokenType.STRING:
            continue
        if token.token_type is TokenType.RAW_STRING and "\\" in token.text:
            raise _refused("a raw string with a backslash", "parsers disagree on where it ends")
        if is_call and name in _CALLS:
            raise _refused(name, _CALLS[name])
        if is_call and name == "unix_timestamp" and following[-1].token_type is TokenType.R_PAREN:
            raise _refused("unix_timestamp()", _REPLAY)
        if name in _BARE and _stands_alone(sql, tokens, index):
            raise _refused(name, _REPLAY)


def _stands_alone(sql: str, tokens: Sequence[Token], index: int) -> bool:
    """Whether a word is neither quoted nor part of a qualified name."""
    around = (*tokens[max(index - 1, 0) : index], *tokens[index + 1 : index + 2])
    dotted = any(token.token_type is TokenType.DOT for token in around)
    return sql[tokens[index].start] != "`" and not dotted


def _parsed(sql: str) -> exp.Expr:
    try:
        with room_for_parsing():
            statements = [one for one in parse(sql, dialect=_DIALECT) if one is not None]
    except Exception as error:  # the parser raises anything where it knows SQL by half
        raise SpecError(
            f"The SQL cannot be parsed ({why_unread(error)}), and what cannot be read cannot be "
            "proven to be one SELECT; if Spark accepts it, write it another way or keep that part "
            "in a view outside."
        ) from error
    query = statements[0].unnest() if len(statements) == 1 else None
    if not isinstance(query, exp.Select | exp.SetOperation):
        raise SpecError(
            f"The SQL '{one_line(sql, 60)}' must be exactly one SELECT; "
            "write SELECT … FROM the sources."
        )
    return statements[0]


def _check_node(node: exp.Expr, sources: Collection[str]) -> None:
    refused = _NODES.get(type(node))
    if refused is not None:
        raise _refused(*refused)
    if isinstance(node, exp.DML | exp.DDL) and not isinstance(node, exp.Query):
        raise _refused(type(node).__name__.upper(), "only a SELECT is run")
    if isinstance(node, exp.Cast):
        _check_moving(node)
    if isinstance(node, exp.Table) and node.find_ancestor(exp.Hint) is None:
        _check_table(node, sources)


def _check_moving(node: exp.Expr) -> None:
    text = node.this
    is_text = isinstance(text, exp.Literal) and bool(text.args.get("is_string"))
    if is_text and not node.is_type("time"):
        refuse_moving(str(text.this))


def _check_table(table: exp.Expr, sources: Collection[str]) -> None:
    if not isinstance(table.this, exp.Identifier):
        raise _refused(f"the table function '{printable(_name_of(table.this), 60)}'", _OUTSIDE)
    if table.args.get("db") is not None or table.args.get("catalog") is not None:
        raise SpecError(
            f"The SQL must read its sources by their plain names, got "
            f"'{printable(_name_of(table), 80)}'; name the path under sources in the spec."
        )
    name = table.this.name.lower()
    if name not in {source.lower() for source in sources} and name not in _ctes_for(table):
        raise SpecError(
            f"The SQL must read only its sources ({printable(', '.join(sorted(sources)))}), got "
            f"'{printable(table.this.name, 80)}'; add it under sources in the spec."
            f"{nearest(name, sources)}"
        )


def _name_of(node: exp.Expr) -> str:
    return ".".join(part.name for part in node.parts) if isinstance(node, exp.Table) else node.name


def _ctes_for(table: exp.Expr) -> set[str]:
    """Return the names of the WITH parts that a table can see, in lower case."""
    return set(_visible(table))


def _visible(table: exp.Expr) -> Iterator[str]:
    child, parent = table, table.parent
    while parent is not None:
        if isinstance(parent, exp.With):
            parts = parent.expressions
            own = next(i for i, part in enumerate(parts) if part is child)
            last = own + 1 if parent.args.get("recursive") else own
            yield from (part.alias.lower() for part in parts[:last])
        else:
            defined = parent.args.get("with_")
            if defined is not None and defined is not child:
                yield from (part.alias.lower() for part in defined.expressions)
        child, parent = parent, parent.parent


def _refused(what: str, reason: str) -> SpecError:
    return SpecError(
        f"The SQL must not use {printable(what, 100)}, because {reason}; "
        "take it out, or compute it before and read it as a source."
    )
