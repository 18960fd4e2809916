"""Proof that a model sees the same numbers everywhere: at training, in a batch, behind HTTP.

The dataset keeps some of its raw rows. They are put through the builder again and compared with
what the ETL stored for the same keys; then every way to score them must give the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.contract import Contract
from arclight.errors import DataError
from arclight.features import FeatureBuilder, level_names
from arclight.keys import hash_rows
from cluster.machine import look_at_machine
from ray_apps.predictor import TOLERANCE, load_predictor, tolerance_of
from ray_apps.rows import conform, to_json_rows, with_json
from ray_apps.shards import Reader, open_split, stored_features

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest, Part
    from arclight.progress import Tick
    from ray_apps.predictor import Scores

ENDPOINT_ROWS = 100  # of one call: a served model may take no more


class VerifyCheck(Contract):
    """One comparison of two ways to the same numbers."""

    name: str
    rows: int
    differing: int
    """Rows with a difference above the tolerance."""
    worst: float
    """The largest difference; for a category or a null on one side only, infinity is 1e308."""
    worst_row: str | None = None
    """Key of the row with the largest difference."""
    worst_column: str | None = None


class VerifyReport(Contract):
    """Every comparison of a verification."""

    kind: ClassVar[str] = "verify-report"

    model: str
    dataset: str
    tolerance: float
    checks: tuple[VerifyCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether no row differs anywhere."""
        return all(check.differing == 0 for check in self.checks)


@dataclass(frozen=True)
class _Rows:
    """Sample rows and what the dataset stores for the same keys, row by row."""

    raw: pa.RecordBatch
    stored: Mapping[str, pa.Array]
    keys: tuple[str, ...]


def verify_model(
    catalog: Catalog,
    bundle: ModelBundle,
    *,
    endpoint: Callable[[list[dict[str, Any]]], Sequence[Any]] | None,
    tick: Tick,
) -> VerifyReport:
    """Replay the dataset's sample rows through every way to a score.

    Args:
        catalog: where model and dataset are.
        bundle: the model.
        endpoint: takes JSON rows and gives one score, or one list of class scores, for each; None
            leaves this way out.
        tick: told about the checks done.

    Raises:
        MissingError: the model's dataset is gone.
        DataError: no sample row is in the dataset's splits.
        IntegrityError: model or data are not what was published.
    """
    manifest = catalog.dataset(bundle.dataset)
    threads = look_at_machine(catalog.store.root).cores
    predictor = load_predictor(catalog, bundle, threads=threads)
    total = 2 if endpoint is None else 3
    tick(0, total, "matching sample rows")
    rows = _matched(catalog, bundle, manifest, Reader(threads=threads))
    checks = [_check_features(bundle, rows)]
    tick(1, total, "features")
    batch = predictor.predict(rows.raw).scores
    stored = predictor.predict_features(rows.stored)
    near = tolerance_of(bundle, stored)
    name = "batch scores against stored features"
    checks.append(_check_scores(name, batch, stored, rows.keys, near))
    tick(2, total, "batch scores")
    if endpoint is not None:
        answers = _ask(endpoint, rows.raw)
        name = "served scores against batch"
        checks.append(_check_scores(name, answers, batch, rows.keys, near))
        tick(3, total, "served scores")
    return VerifyReport(
        model=bundle.ref, dataset=manifest.ref, tolerance=near, checks=tuple(checks)
    )


def _ask(endpoint: Callable[[list[dict[str, Any]]], Sequence[Any]], raw: pa.RecordBatch) -> Scores:
    rows = to_json_rows(raw)
    answers: list[Any] = []
    for first in range(0, len(rows), ENDPOINT_ROWS):
        answers.extend(endpoint(rows[first : first + ENDPOINT_ROWS]))
    if len(answers) != len(rows):
        raise DataError(
            f"the endpoint must answer every row, but gave {len(answers)} answers to {len(rows)} "
            "rows; look at its log."
        )
    return np.asarray(answers, dtype=np.float64)


def _matched(
    catalog: Catalog, bundle: ModelBundle, manifest: DatasetManifest, reader: Reader
) -> _Rows:
    """Return sample rows that a request can hold whose key is in train or valid, with features."""
    home = catalog.folder(manifest)
    sample = _joined(list(open_split(home, manifest, "sample")))
    sample = sample if sample is None else with_json(sample)
    wanted = _hashes(sample, manifest) if sample is not None else np.empty(0, np.uint64)
    found_hashes, found = [], []
    columns = tuple(dict.fromkeys((*manifest.key_columns, *manifest.plan.names)))
    parts: tuple[Part, ...] = ("train", "valid")
    for part in parts:
        for batch in open_split(home, manifest, part, columns=columns, reader=reader):
            hashes = _hashes(batch, manifest)
            places = np.flatnonzero(np.isin(hashes, wanted))
            if len(places):
                found_hashes.append(hashes[places])
                found.append(batch.take(pa.array(places)))
    stored = _joined(found)
    if sample is None or stored is None:
        raise DataError(
            f"dataset '{manifest.ref}' must have sample rows whose keys are in its splits, has "
            "none; build it again."
        )
    where = {value: place for place, value in enumerate(np.concatenate(found_hashes).tolist())}
    pairs = [(i, where[h]) for i, h in enumerate(wanted.tolist()) if h in where]
    mine, theirs = (pa.array(list(side)) for side in zip(*pairs, strict=True))
    taken = sample.take(mine)
    raw = conform(taken, bundle.plan.layout.input_schema, where=f"sample of {manifest.ref}")
    features = stored_features(stored.take(theirs), manifest.plan)
    return _Rows(raw, features, tuple(_key_texts(taken, manifest)))


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch | None:
    if not batches:
        return None
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return table.to_batches()[0] if table.num_rows else None


def _hashes(batch: pa.RecordBatch, manifest: DatasetManifest) -> np.ndarray:
    return hash_rows([batch.column(name) for name in manifest.key_columns])


def _key_texts(batch: pa.RecordBatch, manifest: DatasetManifest) -> list[str]:
    columns = [batch.column(name).to_pylist() for name in manifest.key_columns]
    names = manifest.key_columns
    return [
        ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        for values in zip(*columns, strict=True)
    ]


_APART = 1e308  # JSON has no infinity


def _check_features(bundle: ModelBundle, rows: _Rows) -> VerifyCheck:
    built = FeatureBuilder(bundle.plan.layout).build(rows.raw)
    names = list(built.columns)
    gaps = np.stack([_gaps(built.columns[name], rows.stored[name]) for name in names])
    return _verdict("features built from raw rows against stored", gaps, names, rows.keys)


def _gaps(built: pa.Array, stored: pa.Array) -> np.ndarray:
    """Return how far two columns lie apart, row by row."""
    if pa.types.is_floating(built.type):
        mine, theirs = built.cast(pa.float64()), stored.cast(pa.float64())
        gap = pc.abs(pc.subtract(mine, theirs))
    else:
        gap = pc.if_else(pc.equal(level_names(built), level_names(stored)), 0.0, _APART)
    both_null = pc.and_(built.is_null(), stored.is_null())
    found = pc.if_else(both_null, 0.0, pc.fill_null(gap, _APART))
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _check_scores(
    name: str, found: Scores, wanted: Scores, keys: Sequence[str], near: float
) -> VerifyCheck:
    rows = len(keys)
    mine, theirs = found.reshape(rows, -1), wanted.reshape(rows, -1)
    if mine.shape != theirs.shape:
        raise DataError(
            f"{name}: both must have {theirs.shape[1]} scores a row, got {mine.shape[1]}."
        )
    gaps = np.nan_to_num(np.abs(mine - theirs), nan=_APART, posinf=_APART).T
    return _verdict(name, gaps, [f"score {i}" for i in range(len(gaps))], keys, near)


def _verdict(
    name: str,
    gaps: np.ndarray,
    columns: Sequence[str],
    keys: Sequence[str],
    near: float = TOLERANCE,
) -> VerifyCheck:
    """Return a check from differences [columns, rows]."""
    column, row = divmod(int(np.argmax(gaps)), gaps.shape[1])
    worst = float(gaps[column, row])
    is_bad = worst > near
    return VerifyCheck(
        name=name,
        rows=len(keys),
        differing=int(np.count_nonzero((gaps > near).any(axis=0))),
        worst=worst,
        worst_row=keys[row] if is_bad else None,
        worst_column=columns[column] if is_bad else None,
    )
