"""Bounds a text must keep before a recursive parser may see it."""

from __future__ import annotations

import itertools
import re
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from arclight.errors import SpecError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlglot.dialects.dialect import Dialect
    from sqlglot.tokenizer_core import Token

_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
_PREFIX = {TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE}
_PARSER_FRAMES = 20_000
# the parser reads what is in a call's brackets twice where the call is named as a type
_DEEPEST_TYPES = 8
_UNCLOSED = re.compile(r"Missing (\S+) from ")
_WORD = re.compile(r"[^\W\d]\w*$")
_KEYWORDS = frozenset(
    {
        "AND", "AS", "BETWEEN", "BY", "CASE", "CROSS", "DISTINCT", "ELSE", "END", "FROM", "FULL",
        "GROUP", "HAVING", "IN", "INNER", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "NOT", "NULL",
        "ON", "OR", "ORDER", "RIGHT", "SELECT", "THEN", "UNION", "USING", "WHEN", "WHERE", "WITH",
    }
)  # fmt: skip
_NOISE = (
    (re.compile(r"Invalid expression / Unexpected token"), "an unexpected word or sign"),
    (re.compile(r"Required keyword"), "a part is missing"),
    (re.compile(r"Expected table name"), "a table's name was expected"),
    (re.compile(r"Expected AS after CAST"), "AS and a type were expected inside CAST"),
    (re.compile(r"Expecting \)"), "a closing bracket was expected"),
    (re.compile(r"<class|<Token|TokenType"), "an unexpected word or sign"),
)
_stack_lock = threading.Lock()


def bounded_tokens(
    what: str, text: str, *, dialect: Dialect, longest: int, deepest: int
) -> list[Token]:
    """Return the tokens of a text that is short and flat enough to be parsed.

    Args:
        what: How an error names the text, for example `expression`.
        text: The text.
        dialect: Whose tokens they are.
        longest: Most characters allowed.
        deepest: Most open brackets, open CASEs and prefix operators at one place.

    Raises:
        SpecError: the text is empty, too long, too deeply nested, or has no tokens; calls named as
            types stand too deep inside one another.
    """
    if len(text) > longest:
        raise SpecError(
            f"The {what} must have at most {longest:,} characters, got {len(text):,}; "
            "split it into smaller ones."
        )
    try:
        tokens = dialect.tokenize(text)
    except SqlglotError as error:
        raise SpecError(
            f"The {what} '{one_line(text)}' cannot be read ({why_unread(error)}); "
            "check its quotes and comments."
        ) from error
    if not tokens:
        raise SpecError(f"The {what} must not be empty, got {text!r}; write it or leave it out.")
    depth = _depth(tokens)
    if depth > deepest:
        raise SpecError(
            f"The {what} '{one_line(text, 60)}' must be nested at most {deepest} deep, "
            f"got {depth:,}; split it into smaller ones."
        )
    depth = _type_depth(tokens, dialect)
    if depth > _DEEPEST_TYPES:
        raise SpecError(
            f"The {what} '{one_line(text, 60)}' must have at most {_DEEPEST_TYPES} calls named as "
            f"types, such as date() and int(), inside one another, got {depth:,}; write CAST."
        )
    return tokens


def _depth(tokens: list[Token]) -> int:
    deepest = opened = prefixes = 0
    for token in tokens:
        kind = token.token_type
        prefixes = prefixes + 1 if kind in _PREFIX else 0
        if kind in _OPENING:
            opened += 1
        elif kind in _CLOSING:
            opened = max(opened - 1, 0)
        deepest = max(deepest, opened + prefixes)
    return deepest


def _type_depth(tokens: list[Token], dialect: Dialect) -> int:
    deepest, opened = 0, list[bool]()
    for name, token in itertools.pairwise(tokens):
        if token.token_type is TokenType.L_PAREN:
            opened.append(name.token_type in dialect.parser_class.TYPE_TOKENS)
            deepest = max(deepest, sum(opened))
        elif token.token_type is TokenType.R_PAREN and opened:
            opened.pop()
    return deepest


@contextmanager
def room_for_parsing() -> Iterator[None]:
    """Let the recursive parser go as deep as the bounds allow; a bracket costs it 20 frames."""
    with _stack_lock:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, _PARSER_FRAMES))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)


def one_line(text: str, limit: int = 200) -> str:
    """Return a text as a message quotes it: on one line, safe for a terminal, cut at limit."""
    return printable(" ".join(text.split()), limit)


def why_unread(error: Exception) -> str:
    """Return what a parser met, in plain words and without its own names for things."""
    if not isinstance(error, SqlglotError):
        return "it is no SQL that the parser knows"
    found = (getattr(error, "errors", None) or [{}])[0]
    if not found:
        cause = _UNCLOSED.match(str(error.__cause__))
        return f"{cause[1]} is not closed" if cause else "a quote or a comment is not closed"
    said = one_line(str(found.get("description") or "it is no SQL")).rstrip(". ")
    said = next((plain for noise, plain in _NOISE if noise.search(said)), said)
    at, before = str(found.get("highlight") or ""), str(found.get("start_context") or "")
    where = f" at '{one_line(at, 40)}'" if at else " at the end"
    if int(found.get("line") or 1) > 1:
        where += f" in line {found['line']}"
    last = _WORD.search(before.rstrip()) if before[-1:].isspace() and _WORD.fullmatch(at) else None
    if last is None or {last[0].upper(), at.upper()} & _KEYWORDS:
        return f"{said}{where}"
    name = f"{last[0]} {at}"
    return f"{said}{where}; if '{name}' is one name, write it in backticks: `{name}`"
