"""Dataset -> published model: one training, its bundle, the same answer to the same command."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.bundle import BundleFile, ModelBundle, Signature, TrainSettings
from arclight.catalog import now
from arclight.contract import digest_of
from arclight.errors import IntegrityError, MissingError, RefusedError
from arclight.folds import fold_rule
from arclight.lineage import (
    Lineage,
    code_digest,
    library_versions,
    python_version,
)
from arclight.progress import silent_tell
from arclight.schema import Column
from arclight.store import discard, flush_tree, make_folder, open_private, sha256_file
from arclight.train_section import ELSEWHERE
from arclight.workers import bounds_of
from cluster.sizing import Crew
from ray_apps.checkpoints import Checkpoints
from ray_apps.crews import check_device, first_crew, next_crew
from ray_apps.finetune import as_learned, find_init, init_model
from ray_apps.fit import run_fit
from ray_apps.fit_files import BINS, REQUEST, FitOutcome, FitRequest, job_of, read_outcome
from ray_apps.losses import go_on_after_losses
from ray_apps.trainers import load_trainer
from ray_apps.versions import CODE, LIBRARY, versions_that_count

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import SearchResult
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.progress import Tell, Tick
    from arclight.spec import Spec
    from arclight.train_section import Train
    from cluster.profiles import Profile


def model_key(manifest: DatasetManifest, spec: Spec, origin: ModelBundle | None = None) -> str:
    """Return what decides whether a model is there already: data, train section, code, library.

    The number of workers, threads and hosts is no part of it, nor what they compute on, nor how
    often it is saved.

    Args:
        manifest: the dataset.
        spec: what is trained.
        origin: the model that `train.init` names; what it is counts, not what it is called.
    """
    versions, folds = library_versions(), fold_rule(spec, manifest)
    left_out: dict[str, bool | set[str]] = dict.fromkeys(ELSEWHERE, True)
    left_out["init"] = {"model"}
    return digest_of(
        {
            "dataset": manifest.content_digest,
            "task": manifest.task,
            "train": spec.train.model_dump(mode="json", exclude=left_out),
            "init": origin and origin.model_digest,
            "metric": spec.metric,
            "folds": folds and folds.model_dump(mode="json"),
            "code": code_digest(CODE),
            "library": {n: versions.get(n) for n in LIBRARY[spec.train.trainer]},
        }
    )


def train_model(  # noqa: PLR0913 -- what of what, where, and who is told
    catalog: Catalog,
    manifest: DatasetManifest,
    spec: Spec,
    *,
    profile: Profile,
    run_folder: Path,
    tick: Tick,
    tell: Tell = silent_tell,
    origin: ModelBundle | None = None,
    found: SearchResult | None = None,
) -> ModelBundle:
    """Train a model and publish it, or return the one that the same inputs gave before.

    With workers Ray must be connected (`cluster.ray_session`); `train.workers: 0` trains here.

    Args:
        catalog: where dataset and model live.
        manifest: the dataset.
        spec: what to train.
        profile: how many cores.
        run_folder: the run's folder; holds the work until the model is published.
        tick: told about the rounds done.
        tell: told about losses, and checkpoints that could not be written.
        origin: the model that `train.init` names (`find_origin`).
        found: the search that the parameters come from; told in the record.

    Raises:
        SpecError: a parameter is wrong.
        RefusedError: more workers than cores or rows, or more rows than memory.
        LostWorkerError: workers were lost again and again; the same command goes on.
        ArclightError: the training failed; nothing is published.
    """
    assert (origin is None) == (spec.train.init is None), "found by `find_origin`"
    key = model_key(manifest, spec, origin)
    known = catalog.find_model(spec.name, key)
    if known is not None:
        return known
    check_training(catalog, manifest, spec, origin)
    discard(run_folder / "fit")  # what a killed process of this run left
    checkpoints = Checkpoints(catalog.store, spec.name, key)
    crew, work = first_crew(spec.train, manifest, profile, run_folder), run_folder

    def attempt(losses: int) -> None:
        nonlocal crew, work
        if losses:
            discard(work / BINS)  # of which a disk may not have room for two
        crew = next_crew(crew, spec.train, manifest, profile) if losses else crew
        request = fit_request(catalog, manifest, spec, crew, origin)
        check_request(catalog, request, manifest, origin)
        # its own: what was lost may still be there somewhere, and write
        work = run_folder / "fit" / f"{key[:12]}-{uuid.uuid4().hex[:8]}"
        make_folder(work)
        _put(work / REQUEST, request.to_json().encode())
        run_crew(spec.train, crew, work, tick)

    try:
        with checkpoints.in_use():
            if there := checkpoints.rounds():
                tell(f"Going on after round {there:,}, where an earlier command was.")
            go_on_after_losses(attempt, checkpoints, tell)
            outcome, learned = read_outcome(work), as_learned(manifest, origin, spec.train.init)
            made = _Made(work, outcome, crew, key, learned, origin, found)
            published = _publish(catalog, manifest, spec, made)
            checkpoints.clear()
        _tell_of(outcome, tell)
        return published
    finally:
        for left in (run_folder / "fit").glob("*"):
            discard(left)


def _tell_of(outcome: FitOutcome, tell: Tell) -> None:
    """Tell what went wrong in a training that gave a model."""
    if outcome.trouble:
        tell(f"training went on without its last checkpoints: {outcome.trouble}")
    if outcome.diverged:
        tell(
            f"training diverged in round {outcome.diverged:,}: the model is that of the best "
            "round before; lower the learning rate to train on"
        )


def find_origin(catalog: Catalog, manifest: DatasetManifest, spec: Spec) -> ModelBundle | None:
    """Return the model that a training on a dataset starts from; None: from scratch.

    Where an alias has moved to what this very training made, it is the model that one had started
    from: the same command ends in the same model.

    Raises:
        MissingError, RefusedError, SpecError, IntegrityError: as `find_init`.
    """
    found = find_init(catalog, spec)
    if found is None or found.transfer is None or found.name != spec.name:
        return found
    with contextlib.suppress(MissingError, IntegrityError):
        before = catalog.model(found.transfer.model)
        if model_key(manifest, spec, before) == found.key:
            return before
    return found


def check_training(
    catalog: Catalog, manifest: DatasetManifest, spec: Spec, origin: ModelBundle | None
) -> None:
    """Refuse what can be known to fail, before any engine starts.

    Raises:
        SpecError, RefusedError: as `check_request`.
    """
    check_device(spec.train)
    fewest = Crew(bounds_of(spec.train.workers).least, 1)
    check_request(catalog, fit_request(catalog, manifest, spec, fewest, origin), manifest, origin)


def fit_request(
    catalog: Catalog,
    manifest: DatasetManifest,
    spec: Spec,
    crew: Crew,
    origin: ModelBundle | None = None,
) -> FitRequest:
    """Return the request of one training."""
    return FitRequest(
        store=str(catalog.store.root),
        name=spec.name,
        key=model_key(manifest, spec, origin),
        dataset=manifest.ref,
        dataset_digest=manifest.content_digest,
        task=manifest.task,
        metric=spec.metric,
        train=spec.train,
        init=origin.ref if origin else "",
        init_digest=origin.model_digest if origin else "",
        workers=crew.workers,
        threads=crew.threads,
        device=crew.device,
        bins=crew.bins,
        folds=fold_rule(spec, manifest),
        versions=versions_that_count(spec.train.trainer),
    )


def check_request(
    catalog: Catalog,
    request: FitRequest,
    manifest: DatasetManifest,
    origin: ModelBundle | None = None,
) -> None:
    """Refuse what can be known to fail, before any engine starts.

    Raises:
        SpecError: a parameter is wrong, or the trainer is not there.
        RefusedError: more workers than rows, or features that are not those of the model that
            the training starts from.
    """
    check_workers(manifest, request.workers)
    init = request.train.init
    learned = as_learned(manifest, origin, init)
    start = init_model(catalog, origin, init) if origin and init else None
    load_trainer(request.train.trainer).check_params(job_of(request, learned, start))


def check_workers(manifest: DatasetManifest, workers: int) -> None:
    """Refuse more workers than there are rows for.

    Raises:
        RefusedError: with both.
    """
    fewest = min(manifest.rows["train"], manifest.rows["valid"])
    if workers > max(1, fewest):  # where there are none, the data say so
        raise RefusedError(
            f"train.workers must be at most {fewest:,}, the rows of the smaller of train and "
            f"valid in '{manifest.ref}', got {workers:,}; use fewer workers."
        )


def run_crew(train: Train, crew: Crew, work: Path, tick: Tick) -> None:
    """Run the fit of a folder's request once: in this process, in a Ray task, or on a gang.

    Raises:
        LostWorkerError: a worker is gone.
        ArclightError: the training failed.
    """
    if train.workers == 0:
        run_fit(work, tick)
        return
    if crew.workers == 1:
        from ray_apps.ray_task import fit_in_task  # noqa: PLC0415 -- workers=0 needs no Ray

        fit_in_task(work, tick, crew)
        return
    from ray_apps.ray_gang import fit_in_gang  # noqa: PLC0415

    fit_in_gang(work, tick, crew)


@dataclass(frozen=True)
class _Made:
    """What an attempt left, and who made it."""

    work: Path
    outcome: FitOutcome
    crew: Crew
    key: str
    learned: DatasetManifest
    """The dataset with the plan of the model."""
    origin: ModelBundle | None
    found: SearchResult | None


def _publish(
    catalog: Catalog,
    manifest: DatasetManifest,
    spec: Spec,
    made: _Made,
) -> ModelBundle:
    work, outcome = made.work, made.outcome
    stage = catalog.store.stage("models", spec.name)
    try:
        _put(stage / outcome.model_file, (work / outcome.model_file).read_bytes())
        _put(stage / "plan.json", made.learned.plan.to_json().encode())
        files = tuple(
            BundleFile(path=p.name, size_bytes=p.stat().st_size, sha256=sha256_file(p))
            for p in sorted(stage.iterdir())
        )
        flush_tree(stage)
        folder = stage.relative_to(catalog.store.root).as_posix()
        bundle = _bundle(manifest, spec, made, _Stored(folder, files))
    except BaseException:
        discard(stage)
        raise
    return catalog.publish_model(bundle)


@dataclass(frozen=True)
class _Stored:
    """Where a bundle's files lie, relative to the store, and what they are."""

    folder: str
    files: tuple[BundleFile, ...]


def _bundle(manifest: DatasetManifest, spec: Spec, made: _Made, stored: _Stored) -> ModelBundle:
    outcome, plan = made.outcome, made.learned.plan
    init = spec.train.init
    if init is not None and made.origin is not None:
        init = init.model_copy(update={"model": made.origin.ref})
    return ModelBundle(
        name=spec.name,
        number=0,
        key=made.key,
        folder=stored.folder,
        task=manifest.task,
        trainer=spec.train.trainer,
        model_file=outcome.model_file,
        files=stored.files,
        plan=plan,
        signature=Signature(
            inputs=plan.layout.inputs,
            outputs=outputs_of(manifest.task, plan.classes),
        ),
        threshold=outcome.threshold,
        rounds=outcome.rounds,
        metric=spec.metric,
        train_metrics=outcome.train_metrics,
        importance=outcome.importance,
        golden=outcome.golden,
        params=outcome.params,
        settings=TrainSettings(
            rounds=spec.train.rounds,
            early_stopping=spec.train.early_stopping,
            imbalance=spec.train.imbalance,
            seed=spec.train.seed,
            params=dict(spec.train.params),
            init=init,
            costs=None if spec.train.costs is None else spec.train.costs.model_dump(),
            workers=made.crew.workers,
            threads=made.crew.threads,
            device="cuda" if made.crew.gpus else None,
            bins="disk" if made.crew.bins == "disk" else None,
            params_after=dict(spec.train.params_after) or None,
            processor=outcome.processor,
        ),
        resumed=outcome.resumed,
        diverged=outcome.diverged or None,
        cross_validation=outcome.cross_validation,
        transfer=outcome.transfer,
        search=made.found,
        dataset=manifest.ref,
        dataset_digest=manifest.content_digest,
        lineage=Lineage(
            made_at=now(),
            spec_digest=spec.digest,
            code_digest=code_digest(CODE),
            inputs={
                "dataset": manifest.content_digest,
                **({"init": made.origin.model_digest} if made.origin else {}),
            },
            libraries=library_versions(),
            python=python_version(),
        ),
    )


def outputs_of(task: str, classes: tuple[str, ...]) -> tuple[Column, ...]:
    """Return the columns a model's scores have when they are written to a table."""
    if task == "multiclass":
        scores = tuple(Column(name=f"score_{name}", type="float64") for name in classes)
        return (*scores, Column(name="label", type="string"))
    score = Column(name="score", type="float64")
    return (score, Column(name="label", type="bool")) if task == "binary" else (score,)


def _put(path: Path, content: bytes) -> None:
    with open_private(path) as stream:
        stream.write(content)
