"""What a source's files are, before any engine starts: their list, their sizes, a digest."""

from __future__ import annotations

import glob
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.contract import digest_of
from arclight.errors import DataError, MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.spec import Source
    from arclight.spec_file import LoadedSpec

_TAIL = 64 << 10
LOGGED = ("delta", "iceberg")
"""Formats whose reader takes a table's folder and finds its files by a log in there."""


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source.

    Attributes:
        path: absolute path or URI, None for jdbc.
        files: local files, sorted; empty for a source that is not on a mounted file system, or
            whose reader lists them itself.
        size_bytes: of all files, None when unknown.
        digest: of names, sizes, times of change and last bytes; None when it cannot be known,
            and then a dataset is built again each time.
    """

    path: str | None
    files: tuple[Path, ...]
    size_bytes: int | None
    digest: str | None

    @property
    def carried(self) -> tuple[Path, ...]:
        """The files in folders below the path that carry values: `year=2013/part-0.parquet`."""
        root = len(Path(str(self.path)).parts)
        return tuple(f for f in self.files if any("=" in part for part in f.parent.parts[root:]))


def look_at(name: str, source: Source, loaded: LoadedSpec) -> SourceFiles:
    """List a source's files and take their digest.

    The last 64 KiB are read of each file: in Parquet they hold the footer with every column's
    statistics, so a file changed in place is seen even when its size and time were kept. Of a
    table with a log every file counts, hidden or not: a commit may add to the log alone.

    Raises:
        MissingError: nothing lies at the path.
        DataError: the folder holds no data file, a file cannot be read or stands there by two
            names, or a link leads nowhere.
    """
    if source.path is None or "://" in source.path:
        return SourceFiles(path=source.path, files=(), size_bytes=None, digest=None)
    path = loaded.resolve(source.path)
    try:
        is_logged = source.format in LOGGED
        files = _list(Path(path), all_names=is_logged)
        if not is_logged:
            _refuse_twice(name, files)
        entries = [_entry(file) for file in files]
    except OSError as error:
        raise DataError(
            f"source '{name}': '{error.filename}' cannot be read: {error.strerror}; mend its "
            "rights or the source, and run again."
        ) from error
    if not files and not Path(path).exists():
        raise MissingError(
            f"{loaded.where('sources', name, 'path')}: source '{name}': '{path}' does not exist; "
            f"mend sources.{name}.path, which is relative to {loaded.folder}."
        )
    if not files:
        raise DataError(f"source '{name}': the folder '{path}' holds no file to read.")
    return SourceFiles(
        path=path,
        files=() if is_logged else tuple(files),
        size_bytes=sum(size for _, size, _, _ in entries),
        digest=digest_of(entries),
    )


def refuse_half_carried(name: str, found: SourceFiles) -> None:
    """Refuse files beside folders that carry values: Spark passes over their rows without a word.

    Raises:
        DataError: one is named.
    """
    carried = set(found.carried)
    beside = next((file for file in found.files if carried and file not in carried), None)
    if beside is not None:
        raise DataError(
            f"source '{name}': '{beside}' must lie in a folder that carries a value, as "
            f"'{min(carried)}' does, else its rows would be passed over; move it into one, or "
            "take it out."
        )


def is_unchanged(found: SourceFiles, name: str, source: Source, loaded: LoadedSpec) -> bool:
    """Say whether a source's rows are those that were found; a file more is none of them.

    Where folders carry values, or a log lists the files, the engine does so itself, and one more
    is read.
    """
    if found.digest is None:
        return True
    try:
        if not found.files or found.carried:
            return look_at(name, source, loaded).digest == found.digest
        return digest_of([_entry(file) for file in found.files]) == found.digest
    except (OSError, DataError, MissingError):
        return False


def _list(path: Path, *, all_names: bool = False) -> list[Path]:
    """Return data files at a file, below a folder, or matching a pattern; hidden ones left out.

    Args:
        path: where they lie.
        all_names: list hidden ones below a folder too.
    """
    if path.is_file():
        if _is_hidden(path.name):
            raise DataError(
                f"'{path}' must not have a name that begins with '_' or '.', since Spark passes "
                "over it; rename it."
            )
        return [path]
    if path.is_dir():
        return sorted(_below(path, all_names=all_names))
    if path.is_symlink():
        raise _leads_nowhere(path)
    if "**" in path.parts:
        raise DataError(
            f"'{path}' must not have '**', which means one folder only here; name the folder, "
            "whose files are read at any depth."
        )
    if any(c in str(path) for c in "*?["):
        matches = [Path(match) for match in glob.glob(str(path))]  # noqa: PTH207
        return sorted({f for m in matches if not _is_hidden(m.name) for f in _list(m)})
    return []


def _below(
    folder: Path, above: frozenset[Path] = frozenset(), *, all_names: bool
) -> Iterator[Path]:
    """Yield the files below a folder, through links too, but never round in a circle."""
    inside = above | {folder.resolve()}
    for path in folder.iterdir():
        if _is_hidden(path.name) and not all_names:
            continue
        if path.is_dir():
            if path.resolve() not in inside:
                yield from _below(path, inside, all_names=all_names)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            raise _leads_nowhere(path)


def _refuse_twice(name: str, files: list[Path]) -> None:
    """Refuse a file that stands in a source by a second name, whose rows would be read twice."""
    seen: dict[tuple[int, int], Path] = {}
    for file in files:
        found = file.stat()
        first = seen.setdefault((found.st_dev, found.st_ino), file)
        if first != file and first.resolve() == file.resolve():
            raise DataError(
                f"source '{name}': '{file}' must not be a second name of '{first}', whose rows "
                "would be read twice; take one of the two out."
            )


def _leads_nowhere(link: Path) -> DataError:
    return DataError(
        f"'{link}' must lead to a file or a folder, but is a link to nothing; mend it, or take it "
        "out."
    )


def _is_hidden(name: str) -> bool:
    """Whether engines pass a name over; a folder such as `_part=1` carries a value."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _entry(file: Path) -> tuple[str, int, int, int]:
    """Return a file's name, size, time of change and the checksum of its last bytes."""
    with file.open("rb") as stream:
        found = os.fstat(stream.fileno())
        stream.seek(max(0, found.st_size - _TAIL))
        return str(file), found.st_size, found.st_mtime_ns, zlib.crc32(stream.read())
