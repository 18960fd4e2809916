"""JSON as RFC 8259 means it: no NaN, no repeated names, bounded depth; at the speed of orjson."""

from __future__ import annotations

import json
from typing import Any

import orjson

from arclight.errors import printable
from ray_apps.serving.problem import Problem

MAX_DEPTH = 32


def parse_json(body: bytes) -> Any:
    """Parse a document.

    orjson refuses NaN, infinities and deep nesting, but keeps the last of two equal names without
    a word. A repeated name leaves a colon too many in the text: every kept name has one, and the
    others stand in strings, where they can be counted unless a backslash hides them. Only when
    the count does not come out is the text parsed again, by a parser that shows each name.

    Raises:
        Problem: `not-json`, with the place.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("not-json", f"The body must be JSON, but: {printable(error)}.") from error
    if not _proven_unrepeated(body, value):
        _refuse_repeated(body)
    return value


def _proven_unrepeated(body: bytes, value: Any) -> bool:
    colons = body.count(b":")
    names, in_strings = _count(value)
    return colons == names or (b"\\" not in body and colons == names + in_strings)


def _count(value: Any) -> tuple[int, int]:
    """Return how many names a document holds and how many colons its strings hold."""
    names = in_strings = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                names += len(item)
                in_strings += "".join(item).count(":")
                below.extend(v for v in item.values() if type(v) in _HOLDERS)
            elif type(item) is list:
                below.extend(v for v in item if type(v) in _HOLDERS)
            else:
                in_strings += item.count(":") if type(item) is str else 0
        if not below:
            return names, in_strings
        level = below
    raise Problem("not-json", f"The body must be nested at most {MAX_DEPTH} deep.")


_HOLDERS = frozenset({dict, list, str})


def _refuse_repeated(body: bytes) -> None:
    try:
        json.loads(body, object_pairs_hook=_unique)
    except RecursionError as error:  # it stands under a name that is repeated
        raise Problem("not-json", f"The body must be nested at most {MAX_DEPTH} deep.") from error


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise Problem(
                "not-json", f"The name '{printable(name)}' must not stand twice in one object."
            )
        seen.add(name)
