"""Proof that a model's record tells how it was made: trained again from it, and compared."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, ClassVar

from arclight.contract import Contract
from arclight.errors import IntegrityError, RefusedError
from arclight.lineage import code_digest, library_versions, python_version
from arclight.store import discard, make_folder, open_private, sha256_file
from arclight.train_section import Costs, Train
from cluster.machine import look_at_machine
from cluster.sizing import Crew
from ray_apps.finetune import check_init
from ray_apps.fit_files import REQUEST, FitRequest, read_outcome
from ray_apps.predictor import check_bundle_files
from ray_apps.train import check_request, run_crew
from ray_apps.trainers import load_trainer
from ray_apps.versions import CODE, LIBRARY, NUMBERS, versions_that_count

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import CrossValidation, ModelBundle, TrainSettings
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.progress import Tick

NEAR = 1e-3
"""How far a metric may be from the recorded one where other bytes are to be expected."""
IN_UNITS = ("rmse", "mae", "median_absolute_error", "log_loss")
FOLD = "fold "


class RetrainReport(Contract):
    """A model beside the one that its record gave again.

    Attributes:
        same_bytes: whether both model files are the same.
        changed: why they need not be: what is other than when the model was made.
        recorded: the metric of each split, and of each fold, in the record; `found`: now.
    """

    kind: ClassVar[str] = "retrain-report"

    model: str
    metric: str
    same_bytes: bool
    changed: tuple[str, ...]
    recorded: dict[str, float]
    found: dict[str, float]

    @property
    def ok(self) -> bool:
        """Whether the bytes are the same, or the metrics are near where they need not be."""
        if not self.changed:
            return self.same_bytes and self.recorded == self.found
        # an error or a loss is near by its size, a share by the difference
        near = {"rel_tol": NEAR, "abs_tol": 0.0 if self.metric in IN_UNITS else NEAR}
        # a fold is judged on few rows: other bytes move its figure further
        return self.recorded.keys() == self.found.keys() and all(
            math.isclose(value, self.found[name], **near)
            for name, value in self.recorded.items()
            if not name.startswith(FOLD)
        )


def retrain_model(
    catalog: Catalog, bundle: ModelBundle, *, folder: Path, tick: Tick
) -> RetrainReport:
    """Train a model again from its record, and publish nothing.

    One worker's training runs in this process, with as many threads as then; several workers
    need a Ray that is connected.

    Args:
        catalog: where model and dataset are.
        bundle: the model's record.
        folder: for the work, which is taken away again.
        tick: told about the progress.

    Raises:
        RefusedError: no trusted key signed the record, or it is of a release that did not keep
            what it takes.
        SpecError: a parameter of the record is none that a spec may set.
        IntegrityError: the model's files are not those recorded, or the dataset is not the one
            the model was trained on.
    """
    if catalog.trust is not None:
        catalog.trust.check(bundle, catalog.signatures(bundle))
    check_bundle_files(catalog.folder(bundle), bundle)
    settings = settings_of(bundle)
    manifest = catalog.dataset(bundle.dataset)
    if not manifest.has_content(bundle.dataset_digest):
        raise IntegrityError(
            f"dataset '{bundle.dataset}' must be the one that '{bundle.ref}' was trained on, but "
            "its record changed; restore it from a backup."
        )
    origin = _origin(catalog, bundle, settings)
    request = _request(catalog, bundle, manifest, origin)
    check_request(catalog, request, manifest, origin)
    _check_gpu(bundle, request)
    work = folder / f"retrain-{uuid.uuid4().hex[:8]}"
    make_folder(work)
    try:
        with open_private(work / REQUEST) as stream:
            stream.write(request.to_json().encode())
        crew = Crew(request.workers, request.threads, int(request.device == "cuda"))
        run_crew(request.train, crew, work, tick)
        outcome = read_outcome(work)
        digests = {file.path: file.sha256 for file in bundle.files}
        return RetrainReport(
            model=bundle.ref,
            metric=bundle.metric,
            same_bytes=sha256_file(work / outcome.model_file) == digests[bundle.model_file],
            changed=_changed(bundle, outcome.processor),
            recorded=_figures(bundle.train_metrics, bundle.cross_validation),
            found=_figures(outcome.train_metrics, outcome.cross_validation),
        )
    finally:
        discard(work)


def settings_of(bundle: ModelBundle) -> TrainSettings:
    """Return what a record says of its training.

    Raises:
        RefusedError: an older release made it, which did not keep all of it.
    """
    if bundle.settings is None or bundle.settings.params is None:
        raise RefusedError(
            f"the record of '{bundle.ref}' must have the parameters it was trained with, but an "
            "older release made it; train it again to be able to verify that."
        )
    return bundle.settings


# --------------------------------------------------------------------------------- inside


def _check_gpu(bundle: ModelBundle, request: FitRequest) -> None:
    """Refuse to train on cores what was trained on a GPU: its bytes would be others.

    Raises:
        RefusedError: there is none here, or none that the installed library can use.
    """
    if request.device != "cuda":
        return
    reason = load_trainer(bundle.trainer).why_no_gpu()
    if reason is None and request.workers == 1 and not look_at_machine().gpus:
        reason = "none is seen here"
    if reason is not None:
        raise RefusedError(
            f"'{bundle.ref}' was trained on a GPU and must be trained again on one: {reason}; "
            "verify it on a machine that has one."
        )


def _origin(catalog: Catalog, bundle: ModelBundle, settings: TrainSettings) -> ModelBundle | None:
    """Return the model that a training started from, as it was then."""
    if settings.init is None or bundle.transfer is None:
        return None
    found = catalog.model(settings.init.model)
    if found.model_digest != bundle.transfer.model_digest:
        raise IntegrityError(
            f"model '{settings.init.model}' must be the one that '{bundle.ref}' started from, but "
            "its record changed; restore it from a backup."
        )
    check_init(catalog, found)
    return found


def _request(
    catalog: Catalog, bundle: ModelBundle, manifest: DatasetManifest, origin: ModelBundle | None
) -> FitRequest:
    settings = settings_of(bundle)
    workers, init = settings.workers or 1, settings.init
    if init is not None:
        init = init.model_copy(update={"against_scratch": False})  # which is no part of the model
    return FitRequest(
        store=str(catalog.store.root),
        name=bundle.name,
        key=f"retrain-{uuid.uuid4().hex}",  # no checkpoint of the training itself is used
        dataset=bundle.dataset,
        dataset_digest=manifest.content_digest,  # a record of an older release has another one
        task=bundle.task,
        metric=bundle.metric,
        train=Train(
            trainer=bundle.trainer,
            rounds=settings.rounds,
            early_stopping=settings.early_stopping,
            params=settings.params or {},
            params_after=settings.params_after or {},
            init=init,
            imbalance=settings.imbalance,
            costs=None if settings.costs is None else Costs(**settings.costs),
            seed=settings.seed,
            workers=workers if workers > 1 else 0,
        ),
        keeps=False,
        init=origin.ref if origin else "",
        init_digest=origin.model_digest if origin else "",
        workers=workers,
        threads=settings.threads or 1,
        device=settings.device or "cpu",
        bins=settings.bins or "memory",
        folds=None if bundle.cross_validation is None else bundle.cross_validation.rule,
        versions=versions_that_count(bundle.trainer),
    )


def _figures(metrics: dict[str, float], folds: CrossValidation | None) -> dict[str, float]:
    """Return the metric of each split and of each fold that has one."""
    by_fold = {
        f"{FOLD}{number}": fold.value
        for number, fold in enumerate(folds.folds if folds else (), 1)
        if fold.value is not None
    }
    return {**metrics, **by_fold}


def _changed(bundle: ModelBundle, processor: str) -> tuple[str, ...]:
    """Return what makes other bytes likely, of a training on a processor now."""
    made, now = bundle.lineage, library_versions()
    found = [
        f"{name} {made.libraries.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in (*LIBRARY[bundle.trainer], *NUMBERS)
        if made.libraries.get(name) != now.get(name)
    ]
    was = bundle.settings.processor if bundle.settings is not None else None
    if was != processor:
        found.append(f"processor {was}, now {processor}")
    if made.python != python_version():
        found.append(f"Python {made.python}, now {python_version()}")
    if made.code_digest != code_digest(CODE):
        found.append("Arclight's own code")
    if bundle.settings is not None and bundle.settings.device == "cuda":
        found.append("a GPU adds up in an order of its own")
    if bundle.settings is not None and (bundle.settings.workers or 1) > 1:
        found.append("several workers add up in an order of their own")
    if not all(one.exact for one in bundle.resumed):
        found.append("the training went on after a loss")
    return tuple(found)
