"""How many test rows a model has learned from, or was chosen by: counted by the keys of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arclight.errors import ArclightError
from arclight.finetune import shown_new
from arclight.keys import hash_rows
from arclight.layout import ROW_KEY
from ray_apps.shards import open_split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arclight.beside import Opening
    from arclight.catalog import Catalog
    from arclight.keys import Hashes
    from arclight.manifest import DatasetManifest, Part
    from arclight.progress import Tick
    from ray_apps.shards import Reader


def seen_test_rows(
    catalog: Catalog,
    opening: Opening,
    manifest: DatasetManifest,
    used: Sequence[DatasetManifest | None],
    *,
    reader: Reader,
    tick: Tick,
) -> int | None:
    """Return how many test rows of a dataset are train or valid rows of other ones.

    Rows are read only of datasets whose splits do not show that by themselves.

    Args:
        catalog: where all of them live.
        opening: the record that opened the test split.
        manifest: whose test rows are counted.
        used: the datasets; None for one that is not there any more.
        reader: who reads.
        tick: told about the rows compared.

    Returns:
        The rows, 0 where none is; None where none was found, but there may be some: of a dataset
        that cannot be read or has other key columns, and of rows without a key of their own, which
        are told by a digest of all their columns, whichever the spec selects.
    """
    unproven = [other for other in used if other is None or not shown_new(manifest, [other])[1]]
    alike = [other for other in unproven if other is not None and _has_same_key(manifest, other)]
    is_whole = len(alike) == len(unproven) and (not alike or ROW_KEY not in manifest.key_columns)
    if not alike:
        return 0 if is_whole else None
    first, second = _sorted(_hashes(catalog, manifest, "test", reader, opening))
    is_seen = np.zeros(len(first), dtype=np.bool_)
    total, done = sum(o.rows["train"] + o.rows["valid"] for o in alike), 0
    for other in alike:
        try:
            for one, two in _learned(catalog, other, reader):
                at = np.minimum(np.searchsorted(first, one), len(first) - 1)
                is_seen[at[(first[at] == one) & (second[at] == two)]] = True
                done += len(one)
                tick(done, total, "rows, compared with those of test")
        except (ArclightError, OSError):
            is_whole = False
    found = int(is_seen.sum())
    return found if found or is_whole else None


def _has_same_key(manifest: DatasetManifest, other: DatasetManifest) -> bool:
    types, others = ({c.name: c.type for c in m.columns} for m in (manifest, other))
    names = manifest.key_columns
    return names == other.key_columns and all(types[name] == others[name] for name in names)


def _learned(
    catalog: Catalog, other: DatasetManifest, reader: Reader
) -> Iterator[tuple[Hashes, Hashes]]:
    for part in ("train", "valid"):
        yield from _hashes(catalog, other, part, reader, None)


def _hashes(
    catalog: Catalog,
    manifest: DatasetManifest,
    part: Part,
    reader: Reader,
    opening: Opening | None,
) -> Iterator[tuple[Hashes, Hashes]]:
    """Yield two independent hashes of the key of each row, together 128 bits."""
    keys = manifest.key_columns
    folder = catalog.folder(manifest)
    for batch in open_split(folder, manifest, part, columns=keys, reader=reader, opening=opening):
        columns = [batch.column(name) for name in keys]
        yield hash_rows(columns, seed=0), hash_rows(columns, seed=1)


def _sorted(parts: Iterator[tuple[Hashes, Hashes]]) -> tuple[Hashes, Hashes]:
    first, second = (np.concatenate(hashes) for hashes in zip(*parts, strict=True))
    order = np.argsort(first)
    return first[order], second[order]
