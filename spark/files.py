"""Parquet files as the reader wants them: balanced row groups, checksums, hashes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from arclight.errors import IntegrityError
from arclight.manifest import DataFile, Part
from arclight.store import flush_file, make_folder, sha256_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CODEC = "lz4"
GROUP_ROWS = 128 << 10
GROUP_BYTES = 64 << 20


class PartWriter:
    """Writes one part of a dataset in one task: a single file, made when the first row comes."""

    def __init__(self, folder: Path, part: Part, schema: pa.Schema, partition: int) -> None:
        make_folder(folder / part)
        # another attempt of the same task writes another file; only the listed one counts
        name = f"part-{partition:05d}-{uuid.uuid4().hex[:8]}.parquet"
        self.part: Part = part
        self.path = f"{part}/{name}"
        self._file = folder / part / name
        self._schema = schema
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._groups: list[int] = []
        self._group_rows = min(GROUP_ROWS, max(1024, GROUP_BYTES // (8 * len(schema))))

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows; whole row groups are written at once."""
        if batch.num_rows:
            self._held.append(batch)
            self._held_rows += batch.num_rows
            while self._held_rows >= self._group_rows:
                self._write(self._group_rows)

    def close(self) -> DataFile | None:
        """Write what is held, flush to disk, and return the file; None when no row came."""
        if self._held_rows:
            self._write(self._held_rows)
        if self._writer is None:
            return None
        self._writer.close()
        flush_file(self._file)
        return DataFile(
            part=self.part,
            path=self.path,
            rows=sum(self._groups),
            size_bytes=self._file.stat().st_size,
            sha256=sha256_file(self._file),
            row_groups=tuple(self._groups),
        )

    def _write(self, rows: int) -> None:
        table = pa.Table.from_batches(self._held, schema=self._schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._file,
                self._schema,
                compression=CODEC,
                use_dictionary=_dictionary_columns(self._schema),
                write_page_checksum=True,
                store_schema=False,
            )
        self._writer.write_table(table.slice(0, rows), row_group_size=rows)
        self._groups.append(rows)
        rest = table.slice(rows)
        self._held = rest.to_batches() if rest.num_rows else []
        self._held_rows = rest.num_rows


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Return the category columns: a dictionary makes floats of many values larger."""
    return [field.name for field in schema if pa.types.is_string(field.type)]


def check_files(folder: Path, files: Sequence[DataFile]) -> None:
    """Open every file again and compare size, rows and row groups with what was recorded.

    Raises:
        IntegrityError: a file is not what its task wrote.
    """
    for file in files:
        path = folder / file.path
        with pq.ParquetFile(path) as parquet:
            meta = parquet.metadata
            groups = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        if (path.stat().st_size, groups) != (file.size_bytes, file.row_groups):
            raise IntegrityError(
                f"'{path}' must have {file.size_bytes:,} bytes in row groups of "
                f"{file.row_groups}, got {path.stat().st_size:,} in {groups}; nothing was "
                "published: run again."
            )


def remove_strays(folder: Path, files: Sequence[DataFile]) -> int:
    """Remove files of failed task attempts; return how many there were."""
    listed = {file.path for file in files}
    strays = [
        path
        for path in folder.rglob("*.parquet")
        if path.relative_to(folder).as_posix() not in listed
    ]
    for path in strays:
        path.unlink()
    return len(strays)
