"""What a training starts from, read back and checked, and what starting from it was worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from arclight.bundle import Transfer
from arclight.errors import ArclightError, DataError, DivergedError, RefusedError, printable
from arclight.finetune import check_kind, plan_from, shown_new, used_datasets
from arclight.metrics import measure_scores
from arclight.paired import difference, redraw
from arclight.thresholds import threshold_for
from ray_apps.gang.totals import to_first
from ray_apps.predictor import check_bundle_files, load_predictor
from ray_apps.shards import dense
from ray_apps.trainers import InitModel
from ray_apps.trainers.imbalance import even_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.spec import Spec
    from arclight.train_section import Init
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Model, Trainer, TrainJob
    from ray_apps.trainers.boosting import Watch

FILE = "scratch"


def find_init(catalog: Catalog, spec: Spec) -> ModelBundle | None:
    """Return the model that a spec's training starts from; None: from scratch.

    It is loaded once as any model that is used: in a process of its own, its files, its signature
    and the scores of its golden rows proven.

    Raises:
        MissingError: there is no such model.
        RefusedError: no trusted key signed it, or models are signed here and none is trusted.
        SpecError: it is of another trainer or task.
        IntegrityError: it is not the model that was published.
    """
    init = spec.train.init
    if init is None:
        return None
    bundle = catalog.model(init.model)
    check_kind(bundle, spec)
    if catalog.signer is not None and catalog.trust is None:
        raise RefusedError(
            f"train.init: '{bundle.ref}' must be signed by a trusted key, as the model that "
            "starts from it is signed here; name the keys to trust (ARCLIGHT_TRUSTED_KEYS)."
        )
    load_predictor(catalog, bundle, threads=1)
    return bundle


def check_init(catalog: Catalog, bundle: ModelBundle) -> None:
    """Check a model's signature and files again, where a training begins.

    Raises:
        RefusedError: no trusted key signed it.
        IntegrityError: its files are not those recorded.
    """
    if catalog.trust is not None:
        catalog.trust.check(bundle, catalog.signatures(bundle))
    check_bundle_files(catalog.folder(bundle), bundle)


def as_learned(
    manifest: DatasetManifest, bundle: ModelBundle | None, init: Init | None
) -> DatasetManifest:
    """Return a dataset as the model to train sees it: by the plan of the one it starts from.

    Raises:
        RefusedError: features or classes are not those of that model.
    """
    if bundle is None or init is None:
        return manifest
    return manifest.model_copy(update={"plan": plan_from(bundle, manifest, init)})


def init_model(catalog: Catalog, bundle: ModelBundle, init: Init) -> InitModel:
    """Return a trainer's view of what a training starts from."""
    return InitModel(
        path=catalog.folder(bundle) / bundle.model_file,
        freeze=init.freeze,
        has_new_head=init.head == "new",
        head_rate=init.head_learning_rate,
    )


@dataclass(frozen=True)
class Scores:
    """Labels and scores of valid on the first worker, none on the others."""

    label: Doubles
    scores: Doubles


@dataclass(frozen=True)
class Comparison:
    """What a trained model is compared with.

    Attributes:
        catalog: where the model and those before it lie.
        bundle: the model it started from.
        trainer: of all of them.
        job: as the model was trained.
        own: the dataset by its own plan, which a training from scratch has.
        shards: gives train and valid of a dataset as it is given.
        folder: for the file of the model from scratch.
    """

    catalog: Catalog
    bundle: ModelBundle
    trainer: Trainer
    job: TrainJob
    own: DatasetManifest
    shards: Callable[[DatasetManifest], tuple[Shard, Shard]]
    folder: Path


def what_it_was_worth(
    asked: Comparison, tuned: Scores, valid: Shard, gang: Gang, watch: Watch | None
) -> Transfer | None:
    """Measure the model a training started from, and the same training from scratch.

    Every worker goes through it with its own rows; the first one gets the answer. A training from
    scratch that fails costs its figure, not the model.

    Args:
        asked: what is compared.
        tuned: of the trained model.
        valid: this worker's rows, by the plan of the model.
        gang: the workers.
        watch: of the training from scratch; None: it is not asked for.
    """
    job, init = asked.job, asked.job.init
    assert init is not None
    before = None
    if not init.has_new_head:
        as_it_was = asked.trainer.load(init.path, threads=job.threads)
        before = _scored(as_it_was, valid, tuned.label, gang)
    scratch, rounds, reason = None, None, ""
    if watch is not None:
        try:
            scratch, rounds = _from_scratch(asked, tuned.label, gang, watch)
        except Exception as error:
            # of several workers only what all of them come to alike
            if gang.world > 1 and not isinstance(error, DataError | DivergedError):
                raise
            said = error.message if isinstance(error, ArclightError) else printable(error)
            reason = said or type(error).__name__
    if gang.rank:
        return None
    figure = partial(measure_scores, job.task, job.metric)
    is_valid_new, is_test_new = shown_new(asked.own, used_datasets(asked.catalog, asked.bundle))
    gain = None
    if scratch is not None:
        gain = difference(
            *(
                redraw(
                    job.task,
                    job.metric,
                    tuned.label,
                    scores,
                    threshold=threshold_for(job.task, job.metric, tuned.label, scores),
                )
                for scores in (tuned.scores, scratch.scores)
            )
        )
    return Transfer(
        metric=job.metric,
        model=asked.bundle.ref,
        model_digest=asked.bundle.model_digest,
        rounds=asked.bundle.rounds,
        is_valid_new=is_valid_new,
        is_test_new=is_test_new,
        weighting=asked.bundle.weighting,
        before=None if before is None else figure(before.label, before.scores),
        tuned=figure(tuned.label, tuned.scores),
        scratch=None if scratch is None else figure(scratch.label, scratch.scores),
        scratch_rounds=rounds,
        scratch_reason=reason,
        gain=gain,
    )


# --------------------------------------------------------------------------------- inside


def _scored(model: Model, valid: Shard, label: Doubles, gang: Gang) -> Scores:
    mine = np.concatenate([model.predict(dense(table)) for table in valid.tables])
    return Scores(label, to_first(gang, mine))


def _from_scratch(
    asked: Comparison, label: Doubles, gang: Gang, watch: Watch
) -> tuple[Scores, int]:
    """Train without the model to start from, by the dataset's own plan; return rounds as well."""
    train, valid = asked.shards(asked.own)
    plan = asked.own.plan
    job = replace(asked.trainer.from_scratch(asked.job), is_kept=False)
    job = replace(job, categorical=plan.categorical, codes=plan.codes, classes=len(plan.classes))
    evened, job = even_out(train, job, gang)
    data = asked.trainer.prepare(evened, valid, job, gang)
    fitted = asked.trainer.fit(data, job, gang, watch)
    path = asked.folder / f"{FILE}{gang.rank or ''}{asked.trainer.suffix}"
    path.write_bytes(fitted.model)
    model = asked.trainer.load(path, threads=job.threads)
    return _scored(model, valid, label, gang), fitted.rounds
