"""Quoted text of a CSV that does not end on its line: the parser takes what there is of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import DataError, printable
from spark.badrecord import LONGEST, QUOTING
from spark.csv_header import separator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from arclight.spec import Source

LOOKED_AT_BYTES = 1 << 20
PACKED = frozenset({".gz", ".bz2", ".deflate", ".lz4", ".snappy", ".zst"})
"""What Spark unpacks by itself."""
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
    sep, is_whole = separator(options), options.get("multiLine", "").lower() == "true"
    if sep is None or is_whole or len(quote) != 1 or "lineSep" in options:
        return
    for line in lines:
        is_comment = comment and line.startswith(comment)
        if quote in line and not is_comment and _ends_open(line, sep, quote, escape):
            raise DataError(
                f"source '{name}' (csv at '{source.path}') has a quoted text that does not end on "
                f"its line: its line reads '{printable(line, LONGEST)}'; {QUOTING}"
            )


def refuse_other_bytes(name: str, files: Sequence[Path]) -> None:
    """Refuse bytes that are not UTF-8, of which Spark would make one and the same sign.

    Args:
        name: of the source.
        files: of which the beginnings are looked at; packed ones are passed over.

    Raises:
        DataError: one has such bytes.
    """
    for file in files:
        if file.suffix.lower() in PACKED:
            continue
        with file.open("rb") as stream:
            start = stream.read(LOOKED_AT_BYTES)
        try:
            start.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and len(start) == LOOKED_AT_BYTES:
                continue  # a sign that was cut
            line = start[start.rfind(b"\n", 0, error.start) + 1 :].split(b"\n", 1)[0]
            raise DataError(
                f"source '{name}': '{printable(file)}' must be UTF-8, but has other bytes, all of "
                "which would become one sign: a line reads "
                f"'{printable(line.decode(errors='replace'), LONGEST)}'; write it in UTF-8, or "
                f"say that it is Latin-1: sources.{name}.options: {{encoding: iso-8859-1}}"
            ) from error


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
