"""Functions of strings: positions count characters, comparisons and matches are exact."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.errors import SpecError
from arclight.expression.columns import Column, flags_of, nulls_of, strict, union, values_of
from arclight.expression.kinds import Kind
from arclight.expression.letters import lower, upper
from arclight.expression.steps import (
    Built,
    Step,
    require,
    require_integer_literal,
    require_text_literal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.expression.steps import Builder

_TEXT = (Kind.TEXT,)


def _mapped(function: Callable[[pa.Array], pa.Array]) -> Builder:
    """Return the builder of a function from a string to a string."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], _TEXT)
        return Built(Kind.TEXT, _on_first(function))

    return build


def _on_first(function: Callable[[pa.Array], Any]) -> Callable[..., Column]:
    def apply(value: Column) -> Column:
        return Column(function(value.data), value.null, value.bad)

    return apply


def _length(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], _TEXT)
    return Built(Kind.I32, _on_first(lambda text: values_of(pc.utf8_length(text), np.int32)))


def _all_null(kind: Kind) -> Callable[..., Column]:
    def apply(value: Column) -> Column:
        size = len(value.data)
        data: Any = np.zeros(size, np.int32 if kind is Kind.I32 else np.bool_)
        if kind is Kind.TEXT:
            data = pa.nulls(size, pa.string())
        return Column(data, np.ones(size, np.bool_), value.bad)

    return apply


def _slice(start: int, stop: int | None) -> Callable[[pa.Array], pa.Array]:
    return lambda text: pc.utf8_slice_codeunits(text, start, stop)


def _emptied(text: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(text, 0, 0)


def _substring(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], _TEXT)
    start = require_integer_literal(name, steps[1], "position")
    length: int | None = 2**31 - 1
    if steps[2:]:
        length = require_integer_literal(name, steps[2], "length")
    if start is None or length is None:
        return Built(Kind.TEXT, _all_null(Kind.TEXT), steps[:1])
    return Built(Kind.TEXT, _on_first(_cut(start, length)), steps[:1])


def _cut(start: int, length: int) -> Callable[[pa.Array], pa.Array]:
    """Return Spark's substring: positions count from 1, negative ones from the end."""
    if length <= 0:
        return _emptied
    if start < 0:
        return _slice(start, start + length if start + length < 0 else None)
    return _slice(max(start - 1, 0), max(start - 1, 0) + length)


def _left(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], _TEXT)
    length = require_integer_literal(name, steps[1], "length")
    if length is None:
        return Built(Kind.TEXT, _all_null(Kind.TEXT), steps[:1])
    return Built(Kind.TEXT, _on_first(_cut(1, length)), steps[:1])


def _right(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], _TEXT)
    length = require_integer_literal(name, steps[1], "length")
    if length is None:
        return Built(Kind.TEXT, _all_null(Kind.TEXT), steps[:1])
    cut = _slice(-length, None) if length > 0 else _emptied
    return Built(Kind.TEXT, _on_first(cut), steps[:1])


def _concat(name: str, steps: Sequence[Step]) -> Built:
    for step in steps:
        require(name, step, _TEXT)
    if len(steps) == 1:
        return Built(Kind.TEXT, _on_first(lambda text: text))
    read = _read_all if name == "concat" else strict

    def apply(*columns: Column) -> Column:
        null, bad = read(columns)
        joined = pc.binary_join_element_wise(*(column.data for column in columns), "")
        return Column(joined, null, bad)

    return Built(Kind.TEXT, apply)


def _read_all(columns: Sequence[Column]) -> tuple[Any, Any]:
    """Return null and bad of a function that evaluates all its arguments, null or not."""
    null = bad = None
    for column in columns:
        null, bad = union(null, column.null), union(bad, column.bad)
    return null, bad


def _replace(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], _TEXT)
    search = require_text_literal(name, steps[1], "search text")
    new = require_text_literal(name, steps[2], "replacement") if steps[2:] else ""
    if search is None or new is None:
        return Built(Kind.TEXT, _all_null(Kind.TEXT), steps[:1])
    if not search:
        # Arrow would look for nothing without end
        return Built(Kind.TEXT, _on_first(lambda text: text), steps[:1])
    replaced = _on_first(lambda text: pc.replace_substring(text, search, new))
    return Built(Kind.TEXT, replaced, steps[:1])


def _matching(function: Callable[..., pa.Array]) -> Builder:
    """Return the builder of a test for a piece of text."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[0], _TEXT)
        piece = require_text_literal(name, steps[1], "second argument")
        if piece is None:
            return Built(Kind.BOOL, _all_null(Kind.BOOL), steps[:1])
        return Built(Kind.BOOL, _on_first(lambda text: flags_of(function(text, piece))), steps[:1])

    return build


def _like(name: str, steps: Sequence[Step]) -> Built:
    require(name, steps[0], _TEXT)
    pattern = require_text_literal(name, steps[1], "pattern")
    escape = require_text_literal(name, steps[2], "escape") if steps[2:] else "\\"
    if pattern is None or escape is None:
        return Built(Kind.BOOL, _all_null(Kind.BOOL), steps[:1])
    if len(escape) != 1:
        raise SpecError(f"LIKE must have one character as ESCAPE, got {escape!r}; write one.")
    match = _matcher(_pieces(pattern, escape))
    return Built(Kind.BOOL, _on_first(lambda text: flags_of(match(text))), steps[:1])


def _pieces(pattern: str, escape: str) -> list[str | bool | None]:
    """Return the pattern as plain characters, None for `_` and True for `%`."""
    found: list[str | bool | None] = []
    rest = iter(pattern)
    for letter in rest:
        if letter == escape:
            following = next(rest, "")
            if following not in ("_", "%", escape) or not following:
                raise SpecError(
                    f"The LIKE pattern {pattern!r} must have _, % or {escape!r} after "
                    f"{escape!r}, got {following!r}; write the escape twice to mean itself."
                )
            found.append(following)
        else:
            found.append({"_": None, "%": True}.get(letter, letter))
    return found


def _matcher(pieces: list[str | bool | None]) -> Callable[[pa.Array], pa.Array]:
    """Return the fastest exact test of a pattern; the regular one is linear in the text."""
    plain = "".join(piece for piece in pieces if isinstance(piece, str))
    if len(plain) == len(pieces):
        return lambda text: pc.equal(text, plain)
    if len(plain) == len(pieces) - 1 and pieces[-1] is True:
        return lambda text: pc.starts_with(text, plain)
    if len(plain) == len(pieces) - 1 and pieces[0] is True:
        return lambda text: pc.ends_with(text, plain)
    marks = {None: ".", True: ".*"}
    body = "".join(_quoted(p) if isinstance(p, str) else marks[p or None] for p in pieces)
    regular = rf"(?s)\A{body}\z"
    return lambda text: pc.match_substring_regex(text, regular)


def _quoted(letter: str) -> str:
    return f"\\x{{{ord(letter):x}}}" if ord(letter) < 128 else re.escape(letter)


def _position(text: int, piece: int) -> Builder:
    """Return the builder of instr and locate, which take their arguments the other way round."""

    def build(name: str, steps: Sequence[Step]) -> Built:
        require(name, steps[text], _TEXT)
        wanted = require_text_literal(name, steps[piece], "text to find")
        function = _all_null(Kind.I32) if wanted is None else _on_first(_finder(wanted))
        return Built(Kind.I32, function, (steps[text],))

    return build


def _finder(wanted: str) -> Callable[[pa.Array], Any]:
    def find(text: pa.Array) -> Any:
        if not wanted:
            return np.ones(len(text), np.int32)
        found = values_of(pc.find_substring(text, wanted), np.int32)
        return _characters_before(text, found) + np.int32(1)

    return find


def _characters_before(text: pa.Array, offsets: Any) -> Any:
    """Return byte offsets into strings as character offsets; -1 stays."""
    _, starts, values = text.buffers()
    size = len(text)
    missing = nulls_of(text)
    found = offsets >= 0 if missing is None else (offsets >= 0) & ~missing
    if size == 0 or not found.any():
        return np.full(size, -1, np.int32)
    first = np.frombuffer(starts, np.int32, size + text.offset)[text.offset :]
    letters = (np.frombuffer(values, np.uint8) & 0xC0) != 0x80
    counted = np.concatenate(([0], np.cumsum(letters)))
    begin = np.where(found, first, 0)
    count = counted[begin + np.where(found, offsets, 0)] - counted[begin]
    return np.where(found, count, -1).astype(np.int32)


BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(("lower", "lcase"), _mapped(lower)),
    **dict.fromkeys(("upper", "ucase"), _mapped(upper)),
    "trim": _mapped(lambda text: pc.utf8_trim(text, characters=" ")),
    "ltrim": _mapped(lambda text: pc.utf8_ltrim(text, characters=" ")),
    "rtrim": _mapped(lambda text: pc.utf8_rtrim(text, characters=" ")),
    **dict.fromkeys(("length", "len", "char_length", "character_length"), _length),
    "substring": _substring,
    "substr": _substring,
    "left": _left,
    "right": _right,
    "concat": _concat,
    "||": _concat,
    "replace": _replace,
    "contains": _matching(pc.match_substring),
    "startswith": _matching(pc.starts_with),
    "endswith": _matching(pc.ends_with),
    "like": _like,
    "instr": _position(0, 1),
    "locate": _position(1, 0),
}
