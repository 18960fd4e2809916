"""The evidence: a model read back from the store, scored on the test split, once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from arclight.bundle import Evaluation
from arclight.catalog import now
from arclight.contract import digest_of
from arclight.errors import RefusedError, SpecError, nearest, printable
from arclight.features import level_names
from arclight.finetune import label_of, used_datasets
from arclight.keys import hash_rows
from arclight.lineage import code_digest
from arclight.report import evaluate_predictions
from cluster.machine import look_at_machine
from ray_apps.predictor import load_predictor
from ray_apps.seen_rows import seen_test_rows
from ray_apps.shards import Reader, labels_of, open_split, stored_features
from ray_apps.versions import CODE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arclight.beside import Opening
    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.progress import Tick
    from ray_apps.predictor import Predictor, Scores
    from ray_apps.shards import Doubles

SEED = 0


def evaluation_key(bundle: ModelBundle, manifest: DatasetManifest, segments: Sequence[str]) -> str:
    """Return what decides whether an evaluation is there already."""
    return digest_of(
        {
            "model": bundle.model_digest,
            "metric": bundle.metric,
            "dataset": manifest.content_digest,
            "segments": list(segments),
            "code": code_digest(CODE),
        }
    )


def evaluate_model(
    catalog: Catalog,
    bundle: ModelBundle,
    manifest: DatasetManifest,
    *,
    segments: Sequence[str],
    run: str,
    tick: Tick,
) -> Evaluation:
    """Evaluate a published model on the test split of a dataset and publish the evidence.

    The opening of the split is recorded before a row of it is read. The same model, data and
    segments give the evaluation that was published before, and open nothing.

    Args:
        catalog: where both live.
        bundle: the model.
        manifest: the dataset, with features of the model's layout.
        segments: carried columns or category features to break the figures down by.
        run: who asks, for the record.
        tick: told about the rows done.

    Raises:
        SpecError: a segment is not a column the split files have.
        RefusedError: the dataset's features, task or label are not those of the model.
        IntegrityError: the model or the data are not what was published.
    """
    key = evaluation_key(bundle, manifest, segments)
    for known in catalog.evaluations(bundle.name, bundle.number):
        if known.key == key:
            return known
    _check(catalog, bundle, manifest, segments)
    threads = look_at_machine(catalog.store.root).cores
    predictor = load_predictor(catalog, bundle, threads=threads)
    opening = catalog.open_test(manifest, bundle, run=run)
    read = _TestRows(catalog, manifest, tuple(segments), opening)
    reader = Reader(threads=threads)
    rows = _score(predictor, read, reader, tick)
    used = used_datasets(catalog, bundle)
    seen = seen_test_rows(catalog, opening, manifest, used, reader=reader, tick=tick)
    report = evaluate_predictions(
        bundle.task,
        rows.label,
        rows.scores,
        seed=SEED,
        dataset=manifest.ref,
        classes=bundle.plan.classes,
        threshold=bundle.threshold,
        segments=rows.segments,
        metric=bundle.metric,
        model=bundle.ref,
        opening=f"{opening.dataset} opening {opening.number}",
        keys=rows.keys,
    )
    evaluation = Evaluation(
        model=bundle.ref,
        model_digest=bundle.model_digest,
        dataset=manifest.ref,
        dataset_digest=manifest.content_digest,
        opening=opening.number,
        report=report,
        key=key,
        made_at=now(),
        is_test_new=seen == 0,
        test_rows_seen=seen,
    )
    return catalog.publish_evaluation(bundle.name, bundle.number, evaluation)


@dataclass(frozen=True)
class _TestRows:
    """The test split of a dataset, opened, and the columns wanted of it."""

    catalog: Catalog
    manifest: DatasetManifest
    segments: tuple[str, ...]
    opening: Opening

    def batches(self, features: Sequence[str], reader: Reader) -> Iterator[pa.RecordBatch]:
        columns = dict.fromkeys(
            (*features, self.manifest.label, *self.manifest.key_columns, *self.segments)
        )
        return open_split(
            self.catalog.folder(self.manifest),
            self.manifest,
            "test",
            columns=tuple(columns),
            reader=reader,
            opening=self.opening,
        )


@dataclass
class _Scored:
    label: Doubles
    scores: Scores
    keys: bytes
    """Digest of the rows' keys, in their order."""
    segments: dict[str, pa.Array] = field(default_factory=dict)


def _score(predictor: Predictor, test: _TestRows, reader: Reader, tick: Tick) -> _Scored:
    plan, total = predictor.bundle.plan, test.manifest.rows["test"]
    labels, scores, keys = [], [], hashlib.sha256()
    parts: dict[str, list[pa.Array]] = {name: [] for name in test.segments}
    done = 0
    for batch in test.batches(plan.names, reader):
        labels.append(labels_of(batch, test.manifest))
        scores.append(predictor.predict_features(stored_features(batch, plan)))
        keys.update(
            hash_rows([batch.column(name) for name in test.manifest.key_columns], seed=0).tobytes()
        )
        for name, kept in parts.items():
            kept.append(level_names(batch.column(name)))
        done += batch.num_rows
        tick(done, total, "rows")
    segments = {name: pa.chunked_array(kept).combine_chunks() for name, kept in parts.items()}
    return _Scored(np.concatenate(labels), np.concatenate(scores), keys.digest(), segments)


def _check(
    catalog: Catalog, bundle: ModelBundle, manifest: DatasetManifest, segments: Sequence[str]
) -> None:
    if manifest.plan.layout != bundle.plan.layout or manifest.plan.classes != bundle.plan.classes:
        raise RefusedError(
            f"the features of dataset '{manifest.ref}' must be those of model '{bundle.ref}', but "
            "their columns, derived features or classes differ; train a model on this dataset."
        )
    if manifest.task != bundle.task:
        raise RefusedError(
            f"the label of dataset '{manifest.ref}' must be of the task of model '{bundle.ref}', "
            f"{bundle.task}, but is of {manifest.task}; train a model on this dataset."
        )
    label = label_of(catalog, bundle)
    if label not in (None, manifest.label):
        raise RefusedError(
            f"the label of dataset '{manifest.ref}' must be what model '{bundle.ref}' predicts, "
            f"'{printable(label)}', but is '{printable(manifest.label)}'; if the two are the same "
            "thing, name it alike in etl.sql, else train a model on this dataset."
        )
    numbers = {f.name for f in manifest.plan.features if f.type == "number"}
    known = [c.name for c in manifest.columns if c.name != manifest.label]
    allowed = [n for n in known if n not in numbers]
    for name in segments:
        if name not in allowed:
            raise SpecError(
                f"evaluate.segments: '{printable(name)}' must be a key, time or segment column or "
                f"a category feature: {', '.join(map(printable, allowed))}."
                f"{nearest(name, allowed)}"
            )
