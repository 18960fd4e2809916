"""What a source's files are, before any engine starts: their list, their sizes, a digest."""

from __future__ import annotations

import glob
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.contract import digest_of
from arclight.errors import DataError, MissingError

if TYPE_CHECKING:
    from arclight.spec import Source
    from arclight.spec_file import LoadedSpec

_TAIL = 64 << 10


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source.

    Attributes:
        path: absolute path or URI, None for jdbc.
        files: local files, sorted; empty for a source that is not on a mounted file system.
        size_bytes: of all files, None when unknown.
        digest: of names, sizes, times of change and last bytes; None when it cannot be known,
            and then a dataset is built again each time.
    """

    path: str | None
    files: tuple[Path, ...]
    size_bytes: int | None
    digest: str | None


def look_at(name: str, source: Source, loaded: LoadedSpec) -> SourceFiles:
    """List a source's files and take their digest.

    The last 64 KiB are read of each file: in Parquet they hold the footer with every column's
    statistics, so a file changed in place is seen even when its size and time were kept.

    Raises:
        MissingError: nothing lies at the path.
        DataError: the folder holds no data file.
    """
    if source.path is None or "://" in source.path:
        return SourceFiles(path=source.path, files=(), size_bytes=None, digest=None)
    path = loaded.resolve(source.path)
    files = _list(Path(path))
    if not files and not Path(path).exists():
        raise MissingError(
            f"source '{name}': '{path}' does not exist; mend sources.{name}.path, which is "
            f"relative to {loaded.folder}."
        )
    if not files:
        raise DataError(f"source '{name}': the folder '{path}' holds no file to read.")
    entries = [[str(f), f.stat().st_size, f.stat().st_mtime_ns, _tail_crc(f)] for f in files]
    return SourceFiles(
        path=path,
        files=tuple(files),
        size_bytes=sum(f.stat().st_size for f in files),
        digest=digest_of(entries),
    )


def _list(path: Path) -> list[Path]:
    """Return data files at a file, below a folder, or matching a pattern; hidden ones left out."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [f for f in path.rglob("*") if f.is_file() and not _is_hidden(f, path)]
        return sorted(found)
    if any(c in str(path) for c in "*?["):
        return sorted(Path(f) for f in glob.glob(str(path)) if Path(f).is_file())  # noqa: PTH207
    return []


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def _tail_crc(file: Path) -> int:
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _TAIL))
        return zlib.crc32(stream.read())
