"""What a batch scoring writes: columns of scores, files of a bounded size, a record of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arclight.contract import Contract
from arclight.errors import SpecError, printable
from arclight.schema import ARROW_TYPES
from arclight.store import make_folder, sha256_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arclight.bundle import ModelBundle
    from ray_apps.predictor import Predictions, Scores

FILE_ROWS = 4_000_000
MODEL_TYPE = pa.dictionary(pa.int8(), pa.string())
REJECTED = "_rejected"
_OWN = ("file", "row", "reasons")


class ScoredFile(Contract):
    """One file of an output."""

    path: str
    rows: int
    size_bytes: int
    sha256: str


class ScoreColumns:
    """Makes output rows of kept columns and scores."""

    def __init__(self, bundle: ModelBundle, kept: pa.Schema) -> None:
        self._bundle, self._kept = bundle, kept
        outputs = [
            pa.field(column.name, ARROW_TYPES[column.type]) for column in bundle.signature.outputs
        ]
        own = [*outputs, pa.field("model", MODEL_TYPE)]
        _refuse_clash(kept.names, [field.name for field in own])
        _refuse_clash(kept.names, _OWN)
        self.schema = pa.schema([*kept, *own])
        self.rejected_schema = pa.schema(
            [
                *kept,
                pa.field("file", pa.string()),
                pa.field("row", pa.int64()),
                pa.field("reasons", pa.list_(pa.string())),
            ]
        )
        self._classes = pa.array(bundle.plan.classes, pa.string())

    def scored(self, kept: pa.RecordBatch, scores: Scores) -> pa.RecordBatch:
        """Return the output rows of scored rows."""
        rows = kept.num_rows
        version = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(rows, dtype=np.int8)), pa.array([self._bundle.ref])
        )
        arrays = [*kept.columns, *self._outputs(scores), version]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def rejected(
        self, kept: pa.RecordBatch, where: tuple[str, np.ndarray], why: Sequence[Sequence[str]]
    ) -> pa.RecordBatch:
        """Return the side rows of rows that cannot be scored: where they stood, and why."""
        file, places = where
        arrays = [
            *kept.columns,
            pa.array([file] * kept.num_rows, pa.string()),
            pa.array(places, pa.int64()),
            pa.array(why, pa.list_(pa.string())),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.rejected_schema)

    def _outputs(self, scores: Scores) -> list[pa.Array]:
        if self._bundle.task == "multiclass":
            columns = [pa.array(np.ascontiguousarray(line)) for line in scores.T]
            top = pa.array(scores.argmax(axis=1)) if len(scores) else pa.array([], pa.int64())
            return [*columns, self._classes.take(top)]
        if self._bundle.task == "binary":
            threshold = self._bundle.threshold if self._bundle.threshold is not None else 0.5
            return [pa.array(scores), pa.array(scores >= threshold)]
        return [pa.array(scores)]


def reasons_of(found: Predictions, rows: np.ndarray) -> list[list[str]]:
    """Return every reason that holds for each of some rejected rows."""
    return [[name for name, mask in found.rejected.items() if mask[row]] for row in rows.tolist()]


class PartWriter:
    """Writes batches into files part-00000.parquet, … of a folder, each of a bounded size."""

    def __init__(self, root: Path, schema: pa.Schema, folder: str = "") -> None:
        self._root, self._schema, self._folder = root, schema, folder
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self._files: list[tuple[Path, int]] = []

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._rows + sum(rows for _, rows in self._files)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        if self._writer is None:
            self._open()
        assert self._writer is not None
        self._writer.write_batch(batch)
        self._rows += batch.num_rows
        if self._rows >= FILE_ROWS:
            self.close()

    def finish(self, *, is_needed: bool) -> tuple[ScoredFile, ...]:
        """Close the last file and return all; without any row, one empty file if it is needed."""
        if self._writer is None and not self._files and is_needed:
            self._open()
        self.close()
        return tuple(
            ScoredFile(
                path=path.relative_to(self._root).as_posix(),
                rows=rows,
                size_bytes=path.stat().st_size,
                sha256=sha256_file(path),
            )
            for path, rows in self._files
        )

    def _open(self) -> None:
        folder = self._root / self._folder
        make_folder(folder)
        self._path = folder / f"part-{len(self._files):05d}.parquet"
        texts = [f.name for f in self._schema if not pa.types.is_floating(f.type)]
        self._writer = pq.ParquetWriter(
            self._path,
            self._schema,
            use_dictionary=texts,
            compression="snappy",
            write_page_checksum=True,
        )

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._writer is not None:
            self._writer.close()
            self._files.append((self._path, self._rows))
            self._writer, self._rows = None, 0


def _refuse_clash(kept: Sequence[str], own: Sequence[str]) -> None:
    for name in kept:
        if name in own:
            raise SpecError(
                f"column '{printable(name)}' cannot be kept: the output has a column of that "
                "name; keep others, or rename it in the input."
            )
