"""Bounds a text must keep before a recursive parser may see it."""

from __future__ import annotations

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
        SpecError: the text is empty, too long, too deeply nested, or has no tokens.
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
            f"The {what} '{printable(text)}' cannot be read ({first_line(error)}); "
            "check its quotes and comments."
        ) from error
    if not tokens:
        raise SpecError(f"The {what} must not be empty, got {text!r}; write it or leave it out.")
    depth = _depth(tokens)
    if depth > deepest:
        raise SpecError(
            f"The {what} '{printable(text, 60)}' must be nested at most {deepest} deep, "
            f"got {depth:,}; split it into smaller ones."
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


def first_line(error: Exception) -> str:
    """Return an error's first line, safe for a terminal, without its full stop."""
    lines = str(error).splitlines() or [type(error).__name__]
    return printable(lines[0]).rstrip(". ")
