"""What a batch scoring reads: Parquet files of raw rows, checked by their footers first."""

from __future__ import annotations

from dataclasses import dataclass
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
    from pathlib import Path

BATCH_ROWS = 1 << 17
TEXTS = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson"})


@dataclass(frozen=True)
class RawRows:
    """The input of a scoring.

    Attributes:
        files: Parquet files, sorted by path.
        rows: by their footers.
        inputs: the columns the model takes.
        kept: the columns that stand beside the scores, with their types in the files.
    """

    files: tuple[Path, ...]
    rows: int
    inputs: pa.Schema
    kept: pa.Schema

    def batches(self) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        """Yield (file, first row of the batch in it, batch) over all files, in order.

        Raises:
            DataError: a file cannot be decoded.
        """
        columns = list(dict.fromkeys((*self.inputs.names, *self.kept.names)))
        for path in self.files:
            first = 0
            try:
                with pq.ParquetFile(
                    path, memory_map=True, page_checksum_verification=True
                ) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                        yield path.name, first, batch
                        first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error


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
        DataError: there is no Parquet file, or one cannot be read.
        SchemaError: columns are missing or of another kind, all named; or files disagree; or a
            key is missing.
        SpecError: a column to keep is not there.
    """
    files = _list(source)
    schemas: list[pa.Schema] = []
    rows = 0
    problems = []
    for path in files:
        footer = _footer(path)
        schemas.append(footer.schema.to_arrow_schema())
        rows += footer.num_rows
        try:
            name = path.relative_to(source) if path != source else path.name
            check_columns(schemas[-1], inputs, where=f"'{printable(name)}'")
        except SchemaError as error:
            problems.append(error.message)
    if problems:
        more = f" ({len(problems) - 1} more files differ likewise)" if len(problems) > 1 else ""
        raise SchemaError(problems[0] + more)
    # a digest that the dataset made of whole rows, where its spec names no key
    keys = [key for key in keys if key != ROW_KEY]
    if keep is None:
        _refuse_without_keys(files, schemas, keys)
    names = list(dict.fromkeys(keys if keep is None else keep))
    return RawRows(files, rows, inputs, _kept(files, schemas, names))


def _refuse_without_keys(
    files: Sequence[Path], schemas: Sequence[pa.Schema], keys: Sequence[str]
) -> None:
    """Refuse rows whose scores nothing but their order would tie to them."""
    for path, schema in zip(files, schemas, strict=True):
        for key in keys:
            if key not in schema.names:
                raise SchemaError(
                    f"'{printable(path.name)}' must have the key column '{printable(key)}', which "
                    "stands beside each score, but has not; add it, or name other columns to keep "
                    "with --keep."
                )


def _kept(files: Sequence[Path], schemas: Sequence[pa.Schema], names: Sequence[str]) -> pa.Schema:
    for path, schema in zip(files, schemas, strict=True):
        for name in names:
            if len(schema.get_all_field_indices(name)) != 1:
                raise SpecError(
                    f"column '{printable(name)}' cannot be kept: '{printable(path.name)}' does "
                    f"not have it once.{nearest(name, schema.names)}"
                )
            first = schemas[0].field(name).type
            if schema.field(name).type != first:
                raise SchemaError(
                    f"column '{printable(name)}' must have one type in all files to be kept, is "
                    f"{first} in '{printable(files[0].name)}' and {schema.field(name).type} in "
                    f"'{printable(path.name)}'; write the files with one schema."
                )
    return pa.schema([schemas[0].field(name).remove_metadata() for name in names])


def _list(source: Path) -> tuple[Path, ...]:
    if source.is_file():
        return (source,)
    if not source.is_dir():
        raise MissingError(f"input '{printable(source)}' does not exist; give a file or folder.")
    found = [
        path
        for path in source.rglob("*.parquet")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(source).parts)
    ]
    if not found:
        raise DataError(
            f"input '{printable(source)}' must hold Parquet files (*.parquet), has none; to score "
            "nothing, give a Parquet file without rows."
        )
    return tuple(sorted(found))


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path, memory_map=True)
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
