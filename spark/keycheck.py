"""Keys of sorted rows: nulls, repeats, and the key that rows without one are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.keys import hash_rows, row_digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Mask = npt.NDArray[np.bool_]


def with_neighbours(
    batches: Iterable[pa.RecordBatch], key: Sequence[str]
) -> Iterator[tuple[pa.RecordBatch, Mask]]:
    """Yield each batch with a mask of rows whose key a neighbour shares, across batches too.

    Args:
        batches: rows sorted by key within the stream.
        key: the key columns.
    """
    held: pa.RecordBatch | None = None
    held_hash = np.empty(0, np.uint64)
    last: np.uint64 | None = None
    for batch in batches:
        if not batch.num_rows:
            continue
        hashes = hash_rows([batch.column(name) for name in key])
        if held is not None:
            yield held, _repeats(held_hash, last, hashes[0])
            last = held_hash[-1]
        held, held_hash = batch, hashes
    if held is not None:
        yield held, _repeats(held_hash, last, None)


def _repeats(hashes: npt.NDArray[np.uint64], before: object, after: object) -> Mask:
    equal_next = np.zeros(len(hashes), dtype=bool)
    equal_next[:-1] = hashes[1:] == hashes[:-1]
    repeats = equal_next.copy()
    repeats[1:] |= equal_next[:-1]
    repeats[0] |= before is not None and hashes[0] == before
    repeats[-1] |= after is not None and hashes[-1] == after
    return repeats


def with_row_keys(
    batches: Iterable[pa.RecordBatch], name: str
) -> Iterator[tuple[pa.RecordBatch, Mask]]:
    """Yield batches with a key column added: the row's digest and its occurrence number.

    Equal rows stand next to each other, so the number counts them, across batches too; the mask
    is empty, since no such key repeats.
    """
    last, count = "", 0
    for batch in batches:
        if not batch.num_rows:
            continue
        digests = row_digests(batch.columns).to_numpy(zero_copy_only=False)
        starts = np.ones(len(digests), dtype=bool)
        starts[1:] = digests[1:] != digests[:-1]
        first = np.maximum.accumulate(np.where(starts, np.arange(len(digests)), 0))
        numbers = np.arange(len(digests)) - first
        if digests[0] == last:
            run = int(np.argmax(starts[1:])) + 1 if starts[1:].any() else len(digests)
            numbers[:run] += count
        last, count = digests[-1], int(numbers[-1]) + 1
        keys = pa.array([f"{d}-{n}" for d, n in zip(digests, numbers.tolist(), strict=True)])
        yield batch.append_column(name, keys), np.zeros(len(digests), dtype=bool)
