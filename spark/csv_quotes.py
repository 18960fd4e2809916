"""Quoted text of a CSV that does not end on its line: the parser takes what there is of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import DataError, printable
from spark.badrecord import LONGEST, QUOTING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arclight.spec import Source

LOOKED_AT = 10_000
"""Lines of a source that are looked through; elsewhere a wrong number of fields tells."""


def refuse_open_quotes(name: str, source: Source, lines: Iterable[str]) -> None:
    """Refuse a quoted text that goes on in the next line, or ends by another sign than is said.

    Spark's parser raises for a quote in the middle of a quoted text, and for lines of too few
    fields, but takes a last field without an end as it is.

    Args:
        name: of the source.
        source: how it is read.
        lines: some of it.

    Raises:
        DataError: a line ends inside a quoted text.
    """
    options = {key: str(value) for key, value in source.options.items()}
    quote = options.get("quote", '"')
    escape, comment = options.get("escape", quote), options.get("comment", "")
    sep = options.get("sep", options.get("delimiter", ","))
    if options.get("multiLine", "").lower() == "true" or len(quote) != 1 or "lineSep" in options:
        return
    for line in lines:
        if "\ufffd" in line:
            raise DataError(
                f"source '{name}' (csv at '{source.path}') holds bytes that are not UTF-8, which "
                f"would all become one sign: its line reads '{printable(line, LONGEST)}'; "
                f"write it in UTF-8, or say that it is Latin-1: sources.{name}.options: "
                "{encoding: iso-8859-1}"
            )
        is_comment = comment and line.startswith(comment)
        if quote in line and not is_comment and _ends_open(line, sep, quote, escape):
            raise DataError(
                f"source '{name}' (csv at '{source.path}') has a quoted text that does not end on "
                f"its line: its line reads '{printable(line, LONGEST)}'; {QUOTING}"
            )


# --------------------------------------------------------------------------------- inside


def _ends_open(line: str, sep: str, quote: str, escape: str) -> bool:
    """Say whether a line ends inside a quoted text; unquoted ones may hold quotes."""
    at = 0
    while True:
        if line.startswith(quote, at):
            at = _end_of(line, at + 1, quote, escape)
            if at < 0:
                return True
        place = line.find(sep, at) if sep else -1
        if place < 0:
            return False
        at = place + len(sep)


def _end_of(line: str, at: int, quote: str, escape: str) -> int:
    """Return the place after the quote that ends a text, -1 where none does."""
    while at < len(line):
        is_pair = at + 1 < len(line) and line[at + 1] in {quote, escape}
        if line[at] == escape and is_pair and (escape != quote or line[at + 1] == quote):
            at += 2
        elif line[at] == quote:
            return at + 1
        else:
            at += 1
    return -1
