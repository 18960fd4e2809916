"""The columns that the header of a CSV file names, where nothing about it is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import DataError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arclight.spec import Source

MOST_FILES = 200
_LINE_BYTES = 1 << 20
_UNREAD = frozenset(
    {".xz", ".br", ".zip", ".7z", ".lzma", ".tar", ".tgz", ".tbz2", ".rar", ".z", ".lz", ".lzo"}
)
_PACKED = frozenset({".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate"}) | _UNREAD
_WRITTEN_OUT = {
    r"\t": "\t", r"\r": "\r", r"\b": "\b", r"\f": "\f", r"\"": '"', r"\'": "'", r"\\": "\\",
}  # fmt: skip
"""How Spark takes a separator that is written with a backslash, as YAML leaves it without "…"."""


def header_names(source: Source, files: Sequence[Path]) -> tuple[str, ...] | None:
    """Return the names in the first line of each file; None where Spark may see other ones.

    That is: no header, packed files, several files that differ, another quote or comment sign,
    names in quotes, empty ones, or two that differ by case alone.
    """
    options = {name: str(value) for name, value in source.options.items()}
    plain = not {"quote", "escape", "comment", "lineSep"} & set(options)
    if options.get("header", "").lower() != "true" or not plain or len(files) > MOST_FILES:
        return None
    found = {_names(file, options) for file in files}
    return found.pop() if len(found) == 1 else None


def separator(options: Mapping[str, str]) -> str | None:
    """Return what stands between the fields of a line; None where Spark alone can tell."""
    named = options.get("sep", options.get("delimiter", ","))
    return _WRITTEN_OUT.get(named) if "\\" in named else named


def refuse_packed(name: str, source: Source, files: Sequence[Path]) -> None:
    """Refuse text that is packed in a way that Spark does not unpack: it reads it as it is.

    Raises:
        DataError: a file's name ends so.
    """
    if source.format not in ("csv", "json"):
        return
    for file in files:
        is_read = file.suffix.lower() in _PACKED - _UNREAD
        for ending in file.suffixes[-2:] if is_read else file.suffixes[-1:]:
            if ending.lower() in _UNREAD:
                raise DataError(
                    f"source '{name}': '{printable(file)}' must be text, or packed as one of "
                    f"{', '.join(sorted(_PACKED - _UNREAD))}, but is packed as {ending}, which "
                    "Spark does not unpack; unpack it, or write it as Parquet."
                )


# --------------------------------------------------------------------------------- inside


def _names(file: Path, options: dict[str, str]) -> tuple[str, ...] | None:
    sep = separator(options)
    if file.suffix.lower() in _PACKED or not sep:
        return None
    try:
        with file.open("rb") as stream:
            line = stream.readline(_LINE_BYTES)
        text = line.decode(options.get("encoding", "utf-8"))
    except (OSError, UnicodeError, LookupError):
        return None
    text = text.removeprefix("\ufeff").rstrip("\r\n")
    names = tuple(text.split(sep))
    if options.get("ignoreLeadingWhiteSpace", "").lower() == "true":
        names = tuple(name.lstrip() for name in names)
    if options.get("ignoreTrailingWhiteSpace", "").lower() == "true":
        names = tuple(name.rstrip() for name in names)
    different = len({name.lower() for name in names}) == len(names)
    is_plain = all(name.strip() for name in names) and not set(text) & {'"', "\\"}
    return names if is_plain and different else None
