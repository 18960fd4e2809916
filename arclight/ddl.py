"""The schema of a source in Spark's DDL, read without Spark: names, and the words of their types.

Only what is certainly wrong is refused here; Spark, which reads the text too, has the last word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from arclight.errors import nearest, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TYPES = frozenset(
    {
        "array", "bigint", "binary", "boolean", "byte", "char", "character", "date", "dec",
        "decimal", "double", "float", "geography", "geometry", "int", "integer", "interval",
        "long", "map", "numeric", "real", "short", "smallint", "string", "struct", "time",
        "timestamp", "timestamp_ltz", "timestamp_ntz", "tinyint", "varchar", "variant", "void",
    }
)  # fmt: skip
# words that may follow a type; what comes after one of them is Spark's to judge
TAILS = frozenset(
    {
        "collate", "comment", "day", "default", "generated", "hour", "minute", "month", "not",
        "precision", "second", "with", "without", "year",
    }
)  # fmt: skip
TOKEN = re.compile(r"`(?:[^`]|``)*`|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[\w.]+|\S")
OPENING, CLOSING = frozenset("(<"), frozenset(")>")


class DdlColumn(NamedTuple):
    """A column as the text names it: its name, and the first word of its type in lower case."""

    name: str
    type: str


def check_ddl(text: str) -> str:
    """Return a schema as it is, after it was found to name columns with types.

    Raises:
        ValueError: a column has no type or none of Spark's, or stands twice.
    """
    parse_ddl(text)
    return text


def parse_ddl(text: str) -> tuple[DdlColumn, ...] | None:
    """Return the columns of a schema, None when it is written as one struct type.

    Raises:
        ValueError: as `check_ddl`.
    """
    tokens = TOKEN.findall(text)
    if [token.lower() for token in tokens[:2]] == ["struct", "<"]:
        return None
    columns = tuple(_column(part) for part in _parts(tokens))
    names = [column.name.lower() for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the column '{printable(name)}' stands twice; name it once.")
    return columns


def _parts(tokens: Sequence[str]) -> Iterator[list[str]]:
    """Yield the tokens of each column: commas inside brackets belong to a type."""
    part: list[str] = []
    depth = 0
    for word in tokens:
        depth += (word in OPENING) - (word in CLOSING)
        if word == "," and depth == 0:
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _column(part: Sequence[str]) -> DdlColumn:
    said = printable(" ".join(part), 60)
    rest = part[2:] if part[1:2] == [":"] else part[1:]
    if not rest:
        raise ValueError(f"'{said}' must be a column's name and its type, as in x double.")
    kind = rest[0].lower()
    if kind not in TYPES:
        is_type_next = len(rest) > 1 and rest[1].lower() in TYPES
        way_out = (
            f" A name that holds a blank stands in backticks: `{part[0]} {rest[0]}`."
            if is_type_next
            else nearest(kind, TYPES)
        )
        raise ValueError(f"'{printable(rest[0], 60)}' in '{said}' is no type of Spark.{way_out}")
    after = _after_type(rest)
    if after and after.lower() not in TAILS:
        raise ValueError(
            f"'{said}' must be one column, but '{printable(after)}' follows its "
            "type; put a comma between columns."
        )
    return DdlColumn(_unquoted(part[0]), kind)


def _after_type(rest: Sequence[str]) -> str:
    """Return the token after a type and its brackets, empty when there is none."""
    depth = 0
    for token in rest[1:]:
        if depth == 0 and token not in OPENING:
            return token
        depth += (token in OPENING) - (token in CLOSING)
    return ""


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name
