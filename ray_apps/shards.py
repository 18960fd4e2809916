"""The only reader of datasets: manifest -> row groups of one worker -> Arrow batches.

A row group is the unit of work; where the rows would not come out even, two workers read one
and each keeps its rows of it. A file is checked against the manifest before anything parses it,
and the rows that came out are proven against the rows that were published. Features are decoded
again by everybody who goes through them, so that a few row groups at a time are in memory, and
more only where they are few.
"""

from __future__ import annotations

import functools
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from arclight.errors import DataError, IntegrityError, LockedError, printable
from arclight.features import from_stored, level_names
from arclight.plan import Encoder, class_codes
from arclight.store import check_file
from cluster.machine import usable_memory_bytes
from ray_apps.memory import is_no_memory
from ray_apps.pipeline import run_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from arclight.beside import Opening
    from arclight.manifest import DataFile, DatasetManifest, Part
    from arclight.plan import FeaturePlan, Matrix

Doubles = npt.NDArray[np.float64]
VALUE_BYTES = 4
T = TypeVar("T")
HELD_BYTES = 1 << 30
"""Decoded rows up to this size are held while they are binned, which saves reading them again."""
HELD_SHARE = 16
"""And up to this part of the memory there is: other workers may be on the same machine."""
SAMPLED_PARTS = 8
"""Enough for rows that come in order of time to be of all times."""


@dataclass(frozen=True)
class Reader:
    """Who reads: worker `rank` of `world`, decoding on so many threads."""

    rank: int = 0
    world: int = 1
    threads: int = 1


ALONE = Reader()


@dataclass(frozen=True)
class Piece:
    """Rows of one row group that one worker keeps: `rows` of them from `start` on."""

    file: DataFile
    group: int
    start: int
    rows: int


class Tables(Protocol):
    """Encoded features part by part, as often as they are asked for."""

    def __len__(self) -> int:
        """Return how many parts there are."""

    def __getitem__(self, place: int, /) -> pa.Table:
        """Return one part."""

    def __iter__(self) -> Iterator[pa.Table]:
        """Go through all parts in order."""


@dataclass(frozen=True)
class Shard:
    """One worker's rows, encoded, one part per row group.

    Attributes:
        tables: features f0, f1, … in the plan's order, float32 and int32, null for unknown.
        labels: float64, one per row; the class index of a multiclass task.
        pieces: where each part is read.
        source: the files they are read from; None for rows in memory.
    """

    tables: Tables
    labels: tuple[Doubles, ...]
    pieces: tuple[Piece, ...] = ()
    source: _Source | None = None

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(len(part) for part in self.labels)

    @property
    def label(self) -> Doubles:
        """The labels of all parts in one array."""
        return np.concatenate(self.labels)

    @property
    def is_held(self) -> bool:
        """Whether all parts are in memory."""
        return isinstance(self.tables, tuple)

    def held(self) -> Shard:
        """Return these rows in memory where they are few (`HELD_BYTES`), else as they are."""
        if self.is_held or not self.labels:
            return self
        size = self.rows * self.tables[0].num_columns * VALUE_BYTES
        if size > min(HELD_BYTES, usable_memory_bytes() // HELD_SHARE):
            return self
        return replace(self, tables=tuple(self.tables))

    def matrix(self) -> Matrix:
        """Return the features of all rows as one matrix, as `dense` does."""
        out = np.empty((self.rows, self.tables[0].num_columns), dtype=np.float32)
        row = 0
        for table in self.tables:
            dense(table, out[row : row + table.num_rows])
            row += table.num_rows
        return out

    def stored(self, columns: Sequence[str], then: Callable[[pa.RecordBatch], T]) -> tuple[T, ...]:
        """Return `then` of some stored columns of each part.

        Raises:
            IntegrityError: a column is not there.
        """
        assert self.source is not None, "rows in memory have no other columns"
        return tuple(self.source.read(self.pieces, columns, then))

    def where(self, masks: Sequence[npt.NDArray[np.bool_]]) -> Shard:
        """Return the rows that a mask of each part chooses, without parts that have none."""
        kept = {place: mask for place, mask in enumerate(masks) if mask.any()}
        labels = tuple(self.labels[place][mask] for place, mask in kept.items())
        return Shard(_Chosen(self.tables, kept), labels)

    def sample(self, rows: int, seed: int) -> tuple[Matrix, npt.NDArray[np.int64]]:
        """Return about so many rows and their places, by chance out of a few parts.

        Not the first ones of a part: rows may lie in an order of time.
        """
        if rows >= self.rows:
            return self.matrix(), np.arange(self.rows)
        parts = len(self.labels)
        starts = np.cumsum([0, *map(len, self.labels)])
        count = min(parts, max(SAMPLED_PARTS, -(-rows * parts // self.rows)))
        found, places = [], []
        for part in (parts * i // count for i in range(count)):
            there = len(self.labels[part])
            rng, size = np.random.default_rng([seed, part]), min(there, -(-rows // count))
            chosen = np.sort(rng.choice(there, size, replace=False))
            found.append(dense(self.tables[part].take(pa.array(chosen))))
            places.append(starts[part] + chosen)
        return np.concatenate(found), np.concatenate(places)


class _Chosen:
    """Some rows of some parts, taken out of each when it is read."""

    def __init__(self, tables: Tables, masks: dict[int, npt.NDArray[np.bool_]]) -> None:
        self._tables, self._masks = tables, masks

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, place: int) -> pa.Table:
        found, mask = list(self._masks.items())[place]
        return self._tables[found].filter(pa.array(mask))

    def __iter__(self) -> Iterator[pa.Table]:
        for place, table in enumerate(self._tables):
            if place in self._masks:
                yield table.filter(pa.array(self._masks[place]))


def assign(files: Sequence[DataFile], rank: int, world: int) -> tuple[Piece, ...]:
    """Return what one worker reads, in file order: every row is one worker's, all have as many.

    The groups are dealt out like cards, so that each worker sees rows of the whole table, and
    the deck is cut where the shares end. Pure: every worker computes the same.
    """
    groups = [(file, i) for file in files for i, rows in enumerate(file.row_groups) if rows]
    whole = sum(file.row_groups[i] for file, i in groups)
    begin, end = whole * rank // world, whole * (rank + 1) // world
    mine: dict[int, Piece] = {}
    seen = 0
    for place in (p for first in range(world) for p in range(first, len(groups), world)):
        file, group = groups[place]
        rows = file.row_groups[group]
        low, high = max(begin - seen, 0), min(end - seen, rows)
        if low < high:
            mine[place] = Piece(file, group, low, high - low)
        seen += rows
    return tuple(mine[place] for place in sorted(mine))


def open_split(
    folder: Path,
    manifest: DatasetManifest,
    part: Part,
    *,
    columns: Sequence[str] | None = None,
    reader: Reader = ALONE,
    opening: Opening | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read a part of a dataset, one record batch per row group, in order.

    Args:
        folder: the dataset's folder (`Catalog.folder`).
        manifest: what was published.
        part: a split, the sample or the quarantine.
        columns: columns to read; None reads all.
        reader: who reads.
        opening: the record that opened the test split; needed for `test` only.

    Raises:
        LockedError: the test split without an opening of this very dataset.
        DataError: this worker would have no rows of a split.
        IntegrityError: bytes or rows are not those published (raised while reading).
    """
    pieces = _pieces(manifest, part, reader, opening)
    return _Source(folder, reader).read(pieces, columns, _as_batch)


def read_shard(
    folder: Path,
    manifest: DatasetManifest,
    part: Part,
    *,
    reader: Reader = ALONE,
    opening: Opening | None = None,
) -> Shard:
    """Check one worker's part of a split and read its labels; features are read when asked for.

    Raises:
        LockedError, DataError, IntegrityError: as `open_split`, the last one also while features
            are read.
    """
    pieces = _pieces(manifest, part, reader, opening)
    source = _Source(folder, reader)

    def label(stored: pa.RecordBatch) -> Doubles:
        return labels_of(stored, manifest)

    labels = tuple(source.read(pieces, (manifest.label,), label))
    return Shard(_Features(source, pieces, manifest.plan), labels, pieces, source)


def labels_of(stored: pa.RecordBatch, manifest: DatasetManifest) -> Doubles:
    """Return the labels of stored rows: 0/1, the class index, or the number; NaN for none."""
    values = stored.column(manifest.label)
    if manifest.task == "multiclass":
        return class_codes(level_names(values), manifest.plan.classes)
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def stored_features(stored: pa.RecordBatch, plan: FeaturePlan) -> dict[str, pa.Array]:
    """Return the features of stored rows as the encoder takes them.

    A feature that is also a carried column is stored once, with its raw type.
    """
    return {f.name: from_stored(f.type, stored.column(f.name)) for f in plan.features}


def dense(table: pa.Table, out: Matrix | None = None) -> Matrix:
    """Return encoded features as a C-ordered float32 matrix, NaN for null."""
    if out is None:
        out = np.empty((table.num_rows, table.num_columns), dtype=np.float32)
    for place, column in enumerate(table.columns):
        values = column.cast(pa.float32()) if pa.types.is_integer(column.type) else column
        out[: table.num_rows, place] = values.to_numpy()
    return out[: table.num_rows]


# --------------------------------------------------------------------------------- inside


def _pieces(
    manifest: DatasetManifest, part: Part, reader: Reader, opening: Opening | None
) -> tuple[Piece, ...]:
    if part == "test" and (opening is None or opening.dataset != manifest.ref):
        held = "none" if opening is None else f"one of {opening.dataset}"
        raise LockedError(
            f"the test split of '{manifest.ref}' must be opened by an evaluation, got the opening "
            f"record {held}; run `arclight evaluate`."
        )
    files = manifest.files_of(part)
    published = manifest.rows.get(part, 0)
    if sum(file.rows for file in files) != published:
        raise IntegrityError(
            f"the {part} files of '{manifest.ref}' must have {published:,} rows as published, but "
            f"their records add up to {sum(file.rows for file in files):,}; publish a new version."
        )
    pieces = assign(files, reader.rank, reader.world)
    if not pieces and part in ("train", "valid", "test"):
        raise DataError(
            f"worker {reader.rank + 1} of {reader.world} must get at least one row of the {part} "
            f"split of '{manifest.ref}', which has {published:,}; use fewer workers or split so "
            "that it has rows."
        )
    return pieces


class _Source:
    """Files of a dataset, as one worker reads them: each is hashed once, however often read."""

    def __init__(self, folder: Path, reader: Reader) -> None:
        self._folder, self._threads = folder, reader.threads
        self._checked: dict[str, Future[pq.FileMetaData]] = {}

    def read(
        self,
        pieces: Sequence[Piece],
        columns: Sequence[str] | None,
        then: Callable[[pa.RecordBatch], T],
    ) -> Iterator[T]:
        """Yield `then(row group)` of each piece; hashes run one file ahead of the decoding."""
        files = list(dict.fromkeys(piece.file for piece in pieces))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="hash") as hashing:

            def check(file: DataFile) -> None:
                if file.path not in self._checked:
                    path = self._folder / file.path
                    self._checked[file.path] = hashing.submit(_check, path, file)

            def tasks() -> Iterator[Callable[[], T]]:
                for place, file in enumerate(files):
                    for one in files[place : place + 2]:
                        check(one)
                    path, checked = self._folder / file.path, self._checked[file.path]
                    for piece in (p for p in pieces if p.file is file):
                        yield functools.partial(_decode, path, piece, columns, checked, then)

            yield from run_ahead(tasks(), self._threads)


class _Features:
    """Encoded features that are decoded anew each time; at most a few parts are in memory."""

    def __init__(self, source: _Source, pieces: Sequence[Piece], plan: FeaturePlan) -> None:
        self._source, self._pieces, self._plan = source, pieces, plan
        self._encoder = Encoder(plan)

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, place: int) -> pa.Table:
        return next(self._read([self._pieces[place]]))

    def __iter__(self) -> Iterator[pa.Table]:
        return self._read(self._pieces)

    def _read(self, pieces: Sequence[Piece]) -> Iterator[pa.Table]:
        columns = tuple(dict.fromkeys(self._plan.names))
        return self._source.read(pieces, columns, self._encode)

    def _encode(self, stored: pa.RecordBatch) -> pa.Table:
        return self._encoder.table(stored_features(stored, self._plan))


def _check(path: Path, file: DataFile) -> pq.FileMetaData:
    """Check a file's bytes, then its footer, against the manifest."""
    check_file(path, size_bytes=file.size_bytes, sha256=file.sha256)
    found = pq.read_metadata(path, memory_map=True)
    groups = tuple(found.row_group(i).num_rows for i in range(found.num_row_groups))
    if groups != file.row_groups or sum(groups) != file.rows:
        raise IntegrityError(
            f"'{path}' must have row groups of {file.row_groups} rows as published, got {groups}; "
            "publish a new version."
        )
    return found


def _decode(
    path: Path,
    piece: Piece,
    columns: Sequence[str] | None,
    checked: Future[pq.FileMetaData],
    then: Callable[[pa.RecordBatch], T],
) -> T:
    """Decode one row group once its file is checked, and hand it on."""
    metadata = checked.result()
    schema = metadata.schema.to_arrow_schema()
    missing = [name for name in columns or () if name not in schema.names]
    if missing:
        raise IntegrityError(
            f"'{path}' must have the column '{missing[0]}' as published; publish a new version."
        )
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    try:
        with pq.ParquetFile(
            path,
            metadata=metadata,
            memory_map=True,
            page_checksum_verification=True,
            read_dictionary=texts,
        ) as file:
            wanted = None if columns is None else list(columns)
            table = file.read_row_group(piece.group, columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if is_no_memory(error):
            raise  # the file is not to blame
        raise IntegrityError(
            f"'{path}' cannot be decoded in row group {piece.group} ({printable(error)}); restore "
            "it from a backup or publish a new version."
        ) from error
    published = piece.file.row_groups[piece.group]
    if table.num_rows != published:
        raise IntegrityError(
            f"'{path}' must give {published:,} rows in row group {piece.group}, gave "
            f"{table.num_rows:,}; publish a new version."
        )
    kept = table if wanted is None else table.select(wanted)
    return then(_one_batch(kept).slice(piece.start, piece.rows))


def _as_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.unify_dictionaries().combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
