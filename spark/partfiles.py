"""The parts a task writes: three splits with their summaries, the quarantine and the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.keys import hash_rows
from arclight.schema import TIMESTAMP
from arclight.split import TEST, TRAIN, VALID
from arclight.summary import Builder, ColumnSummary, make_builder
from spark.files import PartWriter
from spark.taskresult import pack_hashes

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.features import Built
    from arclight.layout import TableLayout
    from arclight.manifest import DataFile, Part
    from arclight.spec import Spec

SPLIT_NAMES: dict[Part, int] = {"train": TRAIN, "valid": VALID, "test": TEST}
SAMPLE_ROWS = 256
"""Raw rows a task keeps for golden rows and for `verify`, of train and valid together."""

REASONS = "reasons"
"""The quarantine's column of reasons; a source's column of this name is not kept there."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """What the files of a task hold."""

    files: tuple[DataFile, ...]
    summaries: dict[str, tuple[ColumnSummary, ...]]
    class_rows: dict[str, dict[str, int]]
    groups: dict[str, str]
    times: dict[str, tuple[int, int]]


def stored_schema(spec: Spec, layout: TableLayout) -> pa.Schema:
    """Return the columns of the split files: carried, label, features not carried already."""
    label = pa.string() if spec.task == "multiclass" else pa.float64()
    carried = [(name, _carried_type(layout, name)) for name in layout.carried]
    features = [
        (f.name, pa.float32() if f.type == "number" else pa.string())
        for f in layout.features.features
        if f.name not in layout.carried
    ]
    return pa.schema([*carried, (spec.etl.label, label), *features])


def _sample_schema(layout: TableLayout) -> pa.Schema:
    inputs = layout.features.input_schema
    keys = [(k, _carried_type(layout, k)) for k in layout.key if k not in inputs.names]
    return pa.schema([*inputs, *(pa.field(name, kind) for name, kind in keys)])


def _carried_type(layout: TableLayout, name: str) -> pa.DataType:
    found = layout.schema.get_field_index(name)
    return pa.string() if found < 0 else layout.schema.field(found).type


class PartFiles:
    """Takes in judged batches and keeps files, summaries and proofs."""

    def __init__(self, folder: Path, spec: Spec, layout: TableLayout, partition: int) -> None:
        self.spec, self.layout = spec, layout
        self.schema = stored_schema(spec, layout)
        self._folder, self._partition = folder, partition
        self._splits = {name: _Split(self, name) for name in SPLIT_NAMES}
        raw = pa.schema([f for f in layout.schema if f.name != REASONS])
        self._quarantine_schema = raw.append(pa.field(REASONS, pa.list_(pa.string())))
        self._quarantine = self.writer("quarantine", self._quarantine_schema)
        self._sample = _Sample(_sample_schema(layout), layout.key)

    @property
    def rows(self) -> dict[str, int]:
        """Split -> rows taken in."""
        return {name: split.rows for name, split in self._splits.items()}

    def writer(self, part: Part, schema: pa.Schema) -> PartWriter:
        """Return a writer for this task's file of a part."""
        return PartWriter(self._folder, part, schema, self._partition)

    def add(
        self, batch: pa.RecordBatch, built: Built, label: pa.Array, codes: npt.NDArray[np.int8]
    ) -> None:
        """Take in a batch's rows, each into the split its code says; other codes are left out."""
        arrays = [
            batch.column(f.name)
            if f.name in self.layout.carried
            else label
            if f.name == self.spec.etl.label
            else built.columns[f.name]
            for f in self.schema
        ]
        stored = pa.record_batch(arrays, schema=self.schema)
        for name, code in SPLIT_NAMES.items():
            rows = np.flatnonzero(codes == code)
            if len(rows):
                self._splits[name].add(_Rows(rows, batch.num_rows), stored, built)
        self._sample.add(batch, (codes == TRAIN) | (codes == VALID))

    def quarantine(
        self, batch: pa.RecordBatch, bad: Mask, reasons: list[tuple[str, Mask]]
    ) -> None:
        """Write the bad rows as they came, each with every reason that holds for it."""
        rows = np.flatnonzero(bad)
        if not len(rows):
            return
        names = [[name for name, mask in reasons if mask[row]] for row in rows.tolist()]
        picked = batch.select(self._quarantine_schema.names[:-1]).take(pa.array(rows))
        column = pa.array(names, type=pa.list_(pa.string()))
        self._quarantine.add(
            pa.record_batch([*picked.columns, column], schema=self._quarantine_schema)
        )

    def close(self) -> Found:
        """Close every file and return what was found."""
        sample = self.writer("sample", self._sample.schema)
        sample.add(self._sample.rows())
        writers = [*(s.writer for s in self._splits.values()), self._quarantine, sample]
        files = tuple(file for w in writers if (file := w.close()) is not None)
        filled = {name: split for name, split in self._splits.items() if split.rows}
        return Found(
            files=files,
            summaries={name: split.summaries() for name, split in filled.items()},
            class_rows={n: s.class_rows() for n, s in filled.items() if s.has_classes},
            groups={n: pack_hashes(s.groups) for n, s in filled.items() if self.group},
            times={n: s.times for n, s in filled.items() if s.times is not None},
        )

    @property
    def group(self) -> tuple[str, ...]:
        """The group columns of the split, if it has any."""
        split = self.spec.etl.split
        return split.group if split.by == "hash" else ()


class _Rows:
    """Some rows of a batch, in order; all of them cost no copy."""

    def __init__(self, index: npt.NDArray[np.int64], whole: int) -> None:
        self.index = index
        self._taken = None if len(index) == whole else pa.array(index)

    def of(self, values: Any) -> Any:
        """Return these rows of an array or a batch."""
        return values if self._taken is None else values.take(self._taken)


class _Split:
    """One split of a task."""

    def __init__(self, parts: PartFiles, name: Part) -> None:
        self._parts, self._label = parts, parts.spec.etl.label
        self.has_classes = parts.spec.task != "regression"
        self.writer = parts.writer(name, parts.schema)
        self.rows = 0
        self.groups = np.empty(0, np.uint64)
        self.times: tuple[int, int] | None = None
        self._builders: list[Builder] = [
            make_builder(f.name, f.type) for f in parts.layout.features.features
        ]
        is_class = parts.spec.task == "multiclass"
        self._label_builder = make_builder(self._label, "category" if is_class else "number")

    def add(self, rows: _Rows, stored: pa.RecordBatch, built: Built) -> None:
        stored = rows.of(stored)
        self.rows += stored.num_rows
        self.writer.add(stored)
        label = stored.column(self._label)
        if pa.types.is_string(label.type):
            y = np.zeros(len(label))
        else:
            y = label.to_numpy(zero_copy_only=False)
            label = label.cast(pa.float32())
        self._label_builder.add(label, y)
        for builder in self._builders:
            mask = built.nans.get(builder.name)
            nans = 0 if mask is None else int(np.count_nonzero(mask[rows.index]))
            builder.add(rows.of(built.columns[builder.name]), y, nans=nans)
        self._note_groups(stored)
        self._note_times(stored)

    def _note_groups(self, stored: pa.RecordBatch) -> None:
        if self._parts.group:
            hashes = hash_rows([stored.column(name) for name in self._parts.group])
            known = np.ones(len(hashes), dtype=bool)
            for name in self._parts.group:
                known &= stored.column(name).is_valid().to_numpy(zero_copy_only=False)
            self.groups = np.unique(np.concatenate([self.groups, hashes[known]]))

    def _note_times(self, stored: pa.RecordBatch) -> None:
        if self._parts.spec.etl.time is None:
            return
        column = stored.column(self._parts.spec.etl.time).drop_null()
        if len(column):
            at = column.cast(TIMESTAMP).view(pa.int64()).to_numpy(zero_copy_only=False)
            low, high = self.times or (int(at[0]), int(at[0]))
            self.times = (min(low, int(at.min())), max(high, int(at.max())))

    def summaries(self) -> tuple[ColumnSummary, ...]:
        return tuple(b.freeze() for b in (*self._builders, self._label_builder))

    def class_rows(self) -> dict[str, int]:
        label = self._label_builder.freeze()
        if label.type == "category":
            return {level.value: level.count for level in label.levels}
        ones = round(label.moments.mean * label.moments.count)
        return {"0": label.rows - ones, "1": ones}


class _Sample:
    """The raw rows with the smallest key hashes: the same rows whatever the batches were."""

    def __init__(self, schema: pa.Schema, key: tuple[str, ...]) -> None:
        self.schema = schema
        self._key = key
        self._kept: pa.RecordBatch | None = None

    def add(self, batch: pa.RecordBatch, wanted: Mask) -> None:
        rows = np.flatnonzero(wanted)
        hashes = hash_rows([batch.column(name) for name in self._key], seed=1)[rows]
        rows = rows[np.argsort(hashes, kind="stable")[:SAMPLE_ROWS]]
        picked = batch.select(self.schema.names).take(pa.array(rows))
        if self._kept is None:
            self._kept = picked
            return
        both = pa.Table.from_batches([self._kept, picked]).combine_chunks()
        order = np.argsort(hash_rows([both.column(n) for n in self._key], seed=1), kind="stable")
        kept = both.take(pa.array(order[:SAMPLE_ROWS])).combine_chunks().to_batches()
        self._kept = kept[0] if kept else None

    def rows(self) -> pa.RecordBatch:
        if self._kept is None:
            return pa.RecordBatch.from_pylist([], schema=self.schema)
        return self._kept.cast(self.schema)
