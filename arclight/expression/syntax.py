"""From text to nodes: sqlglot reads the Spark dialect, and what is not listed here is refused."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, ClassVar

from sqlglot import exp, parse_one
from sqlglot.dialects.spark import Spark
from sqlglot.errors import SqlglotError
from sqlglot.parsers.spark import SparkParser
from sqlglot.tokenizer_core import TokenType

from arclight.errors import SpecError, printable
from arclight.expression.bounds import bounded_tokens, one_line, room_for_parsing, why_unread
from arclight.expression.convert import check_suffixed, columns_of, convert, height_of

if TYPE_CHECKING:
    from sqlglot.tokenizer_core import Token

    from arclight.expression.nodes import Node

LONGEST = 10_000
DEEPEST = 50
# evaluation takes two frames an operator, far from Python's own limit
HIGHEST = 100

_ESCAPES = re.compile(r"\\(.?)", re.DOTALL)
_KNOWN_ESCAPES = frozenset("\\'\"nrt%_")


class _RowDialect(Spark):
    """Spark without sqlglot's own reading of functions: a call keeps its name and arguments."""

    class Parser(SparkParser):
        """The parser of `_RowDialect`."""

        STRICT_CAST = True
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            "CAST": lambda self: self._parse_cast(True),
            "TRY_CAST": lambda self: self._parse_cast(False, safe=True),
        }


_DIALECT = _RowDialect()


def parse(text: str) -> Node:
    """Return the nodes of one row expression.

    Raises:
        SpecError: the text breaks a bound, is no expression, or uses what is not supported.
    """
    tokens = bounded_tokens("expression", text, dialect=_DIALECT, longest=LONGEST, deepest=DEEPEST)
    _check_tokens(text, tokens)
    try:
        with room_for_parsing():
            tree = parse_one(text, into=exp.Condition, dialect=_DIALECT)
            node = convert(tree)
            height = height_of(node)
    except SqlglotError as error:
        raise SpecError(
            f"The expression '{one_line(text)}' must be one Spark SQL expression, but it cannot "
            f"be parsed ({why_unread(error)}); docs/expressions.md lists what can be written."
        ) from error
    except RecursionError as error:
        raise SpecError(
            f"The expression '{one_line(text, 60)}' must be nested at most {DEEPEST} deep; "
            "split it into smaller ones."
        ) from error
    if height > HIGHEST:
        raise SpecError(
            f"The expression '{one_line(text, 60)}' must have at most {HIGHEST} operators inside "
            f"one another, got {height}; split it into smaller ones."
        )
    return node


def check_syntax(text: str) -> tuple[str, ...]:
    """Parse an expression without knowing any column's type.

    Args:
        text: One row expression in Spark SQL.

    Returns:
        The columns it names, in the order of first use.

    Raises:
        SpecError: the text is too long or too deep, is not one expression, or uses a construct or
            a function that is not supported.
    """
    return columns_of(parse(text))


def nearest_of(name: str, known: list[str]) -> str:
    """Return a suggestion for a mistyped column, blind to case."""
    folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return f" Did you mean '{folded[close[0]]}'?" if close else ""


def _check_tokens(text: str, tokens: list[Token]) -> None:
    for index, token in enumerate(tokens):
        if token.token_type is TokenType.SEMICOLON:
            raise SpecError(
                f"'{one_line(text)}' must be exactly one expression, got a semicolon; "
                "write one expression without it."
            )
        if token.token_type is TokenType.STRING:
            _check_escapes(text[token.start : token.end + 1])
        # sqlglot reads 300Y as 300::TINYINT, in which no colon stands in the text
        if token.token_type is TokenType.DCOLON and text[token.start] != ":":
            check_suffixed(tokens[index - 1].text, tokens[index + 1].text)


def _check_escapes(raw: str) -> None:
    for match in _ESCAPES.finditer(raw):
        if match[1] not in _KNOWN_ESCAPES:
            raise SpecError(
                f"The string literal {printable(raw)} must escape only \\\\ \\' \\\" \\n \\r \\t "
                f"\\% \\_, got '\\{printable(match[1])}'; write the character itself."
            )
