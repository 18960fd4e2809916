"""What a batch scoring reads: Parquet files of raw rows, checked by their footers first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from arclight.errors import (
    ArclightError,
    DataError,
    MissingError,
    SchemaError,
    SpecError,
    nearest,
    printable,
)
from arclight.layout import ROW_KEY
from ray_apps.rows import check_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH_ROWS = 1 << 17
READ_BYTES = 1 << 20
"""Of a column at once: a row group may be larger than memory."""
_MAGIC = b"PAR1"
_PASSED_OVER = (".", "_")
TEXTS = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson"})
Stamp = tuple[int, ...]
"""What differs of a file that was written into or replaced."""


@dataclass(frozen=True)
class RawRows:
    """The input of a scoring.

    Attributes:
        files: Parquet files, sorted by path, each by its path in the input.
        stamps: of each, from before its footer was read.
        rows: by their footers.
        inputs: the columns the model takes.
        kept: the columns that stand beside the scores, with their types in the files.
    """

    files: dict[str, Path]
    stamps: dict[str, Stamp]
    rows: int
    inputs: pa.Schema
    kept: pa.Schema

    def batches(self) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        """Yield (file's name, first row of the batch in it, batch) over all files, in order.

        Raises:
            DataError: a file cannot be decoded, or is not the one whose footer was read.
        """
        columns = list(dict.fromkeys((*self.inputs.names, *self.kept.names)))
        for name, path in self.files.items():
            first = 0
            try:
                with _opened(path) as file:
                    self._refuse_changed(name)  # or its columns may be other ones
                    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                        yield name, first, _without_views(batch)
                        first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                self._refuse_changed(name)
                raise _unreadable(path, error) from error
        for name in self.files:
            self._refuse_changed(name)

    def _refuse_changed(self, name: str) -> None:
        """Refuse rows of a file that somebody writes: they may be of two tables, or of none."""
        try:
            is_same = _stamp(self.files[name]) == self.stamps[name]
        except OSError:
            is_same = False
        if not is_same:
            raise DataError(
                f"'{printable(name)}' must stay as it is while its rows are scored, but was "
                "written, replaced or removed; nothing is kept of them: run again when the input "
                "is whole."
            )


def open_raw_rows(
    source: Path, inputs: pa.Schema, *, keep: Sequence[str] | None, keys: Sequence[str]
) -> RawRows:
    """Look at every footer below a path, before any row is read.

    Args:
        source: a Parquet file, or a folder of them.
        inputs: the columns a model takes.
        keep: columns to keep beside the scores; all of them must be there.
        keys: kept where `keep` is None; every file must have them, but for `row_key`.

    Raises:
        MissingError: nothing is at the path.
        DataError: there is no Parquet file, or something else beside them; a file or folder
            cannot be read.
        SchemaError: columns are missing or of another kind, all named; or files disagree; or a
            key is missing.
        SpecError: a column to keep is not there.
    """
    files = _list(source)
    schemas: list[pa.Schema] = []
    stamps: dict[str, Stamp] = {}
    rows = 0
    problems = []
    for name, path in files.items():
        schema, count, stamps[name] = _footer(path)
        schemas.append(schema)
        rows += count
        try:
            check_columns(schemas[-1], inputs, where=f"'{printable(name)}'")
        except SchemaError as error:
            problems.append(error.message)
    if problems:
        more = f" ({len(problems) - 1} more files differ likewise)" if len(problems) > 1 else ""
        raise SchemaError(problems[0] + more)
    # a digest that the dataset made of whole rows, where its spec names no key
    keys = [key for key in keys if key != ROW_KEY]
    if keep is None:
        _refuse_without_keys(list(files), schemas, keys)
    names = list(dict.fromkeys(keys if keep is None else keep))
    return RawRows(files, stamps, rows, inputs, _kept(list(files), schemas, names))


def _refuse_without_keys(
    files: Sequence[str], schemas: Sequence[pa.Schema], keys: Sequence[str]
) -> None:
    """Refuse rows whose scores nothing but their order would tie to them."""
    for file, schema in zip(files, schemas, strict=True):
        for key in keys:
            if key not in schema.names:
                raise SchemaError(
                    f"'{printable(file)}' must have the key column '{printable(key)}', which "
                    "stands beside each score, but has not; add it, or name other columns to keep "
                    "with --keep."
                )


def _kept(files: Sequence[str], schemas: Sequence[pa.Schema], names: Sequence[str]) -> pa.Schema:
    for file, schema in zip(files, schemas, strict=True):
        for name in names:
            if len(schema.get_all_field_indices(name)) != 1:
                raise SpecError(
                    f"column '{printable(name)}' cannot be kept: '{printable(file)}' does "
                    f"not have it once.{nearest(name, schema.names)}"
                )
            first = _plain(schemas[0].field(name).type)
            if _plain(schema.field(name).type) != first:
                raise SchemaError(
                    f"column '{printable(name)}' must have one type in all files to be kept, is "
                    f"{first} in '{printable(files[0])}' and {_plain(schema.field(name).type)} in "
                    f"'{printable(file)}'; write the files with one schema."
                )
    # a file may say that it has no nulls where the next one has some
    return pa.schema([pa.field(name, _plain(schemas[0].field(name).type)) for name in names])


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return texts and bytes as Arrow can take some rows of them, which it cannot of views."""
    for place, field in enumerate(batch.schema):
        if _plain(field.type) != field.type:
            values = batch.column(place).cast(_plain(field.type))
            batch = batch.set_column(place, field.name, values)
    return batch


def _plain(kind: pa.DataType) -> pa.DataType:
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def _list(source: Path) -> dict[str, Path]:
    """Return the input's files by name; rows are never passed over without a word."""
    if source.is_file():
        return {source.name: source}
    if not source.is_dir():
        raise MissingError(f"input '{printable(source)}' does not exist; give a file or folder.")
    found: list[Path] = []
    seen: dict[Path, Path] = {}
    for folder, inner, names in os.walk(source, onerror=_refuse_folder, followlinks=True):
        here = Path(folder)
        _refuse_twice(here, seen)
        inner[:] = [name for name in inner if not name.startswith(_PASSED_OVER)]
        found += [here / name for name in names if not name.startswith(_PASSED_OVER)]
    for path in sorted(found, key=lambda one: (one.is_symlink(), one)):
        if not _may_be_parquet(path):
            raise DataError(
                f"'{printable(path)}' must be a Parquet file, as all that lies in the input; "
                "write its rows as Parquet, take it out, or let its name begin with '_'."
            )
        _refuse_twice(path, seen)
    if not found:
        raise DataError(
            f"input '{printable(source)}' must hold Parquet files (*.parquet), has none; to score "
            "nothing, give a Parquet file without rows."
        )
    return {path.relative_to(source).as_posix(): path for path in sorted(found)}


def _refuse_twice(path: Path, seen: dict[Path, Path]) -> None:
    first = seen.setdefault(path.resolve(), path)
    if first != path:
        raise DataError(
            f"'{printable(path)}' must not be a second name of '{printable(first)}', whose rows "
            "would be scored twice; take one of the two out of the input."
        )


def _refuse_folder(error: OSError) -> None:
    raise DataError(
        f"'{printable(error.filename)}' must be readable, since its rows are of the input, but "
        f"{error.strerror}; mend its rights or take it out."
    ) from error


def _may_be_parquet(path: Path) -> bool:
    """Say whether a file is Parquet by its name or, as any is written, by its first bytes."""
    if not path.is_file():  # such as a link to nothing
        return False
    if path.suffix.lower() == ".parquet":
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise _unreadable(path, error) from error


def _opened(path: Path) -> pq.ParquetFile:
    """Open a file.

    Not mapped into memory: where it is cut meanwhile, the system would end this process. As
    nanoseconds, INT96 times before 1678 and after 2262 would be other ones.
    """
    return pq.ParquetFile(
        path,
        buffer_size=READ_BYTES,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit="us",
    )


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _footer(path: Path) -> tuple[pa.Schema, int, Stamp]:
    """Return a file's columns, as they are read, its rows, and what it was before that."""
    try:
        stamp = _stamp(path)
        with _opened(path) as file:
            return file.schema_arrow, file.metadata.num_rows, stamp
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArclightError:
    if path.suffix.lower() in TEXTS:
        return DataError(
            f"'{printable(path)}' must be a Parquet file, got one of text; write it as Parquet, "
            "or let `arclight rows SPEC OUTPUT` write the rows of a spec's sources."
        )
    return DataError(
        f"'{printable(path)}' must be a whole Parquet file, but cannot be read "
        f"({printable(error)}); restore it or take it out of the input."
    )
