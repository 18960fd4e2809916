"""One training, start to end, wherever it runs: request file -> model file and outcome file.

The same function runs in this process, in a Ray task, and in a test; it reads its request
from a folder and leaves its results there, so nothing but paths travels through an engine.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from arclight.bundle import MEASURED_TRAIN_ROWS, CrossValidation, Resumed, Transfer
from arclight.catalog import Catalog
from arclight.errors import DivergedError, IntegrityError
from arclight.lineage import library_versions, processor_name
from arclight.spec_field import parse_duration_s
from arclight.store import Store, replace_file
from ray_apps.checkpoints import CheckpointRecord, Checkpoints, Keeper
from ray_apps.finetune import (
    Comparison,
    Scores,
    as_learned,
    check_init,
    init_model,
    what_it_was_worth,
)
from ray_apps.fit_files import (
    BINS,
    MODEL,
    OUTCOME,
    REQUEST,
    FitOutcome,
    FitRequest,
    job_of,
    read_request,
)
from ray_apps.folds import FoldJob, check_folds, deal, fold_figures, told_until
from ray_apps.gang import Alone
from ray_apps.gang.proofs import (
    check_versions,
    prove_rows,
    prove_same_model,
    prove_same_versions,
)
from ray_apps.golden import golden_rows
from ray_apps.judgement import judge_model, valid_scores
from ray_apps.memory import memory_named
from ray_apps.shards import Reader, read_shard
from ray_apps.trainers import TrainJob, load_trainer
from ray_apps.trainers.boosting import BEGINNING, Snapshot
from ray_apps.trainers.imbalance import even_out
from ray_apps.trainers.labels import check_labels
from ray_apps.versions import versions_of_code, versions_that_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.bundle import ModelBundle
    from arclight.manifest import DatasetManifest
    from arclight.plan import Matrix
    from arclight.progress import Tick
    from ray_apps.folds import Deal
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Fitted


def run_fit(folder: Path, tick: Tick, gang: Gang | None = None) -> None:
    """Train what a folder's request asks for and leave model and outcome there, outcome last.

    The training goes on from its newest checkpoint and leaves new ones in the store.

    Args:
        folder: holds the request; of several workers the first one leaves the results.
        tick: told about the progress.
        gang: the workers that train together, None for one alone.

    Raises:
        ArclightError: data, labels or the library said no.
    """
    gang = gang or Alone()
    request = read_request(FitRequest, folder / REQUEST, f"training worker {gang.rank + 1}")
    pa.set_cpu_count(max(1, request.threads))
    catalog = Catalog(Store(Path(request.store)))
    prove_same_versions(gang, {**versions_of_code(), **library_versions()})
    check_versions(request.versions, versions_that_count(request.train.trainer))
    place = _place(folder, catalog, request)
    with memory_named(place.manifest, gang.rank, gang.world):
        _fit(folder, place, gang, tick)


# --------------------------------------------------------------------------------- inside


@dataclass(frozen=True)
class _Measured:
    """Rows a model is measured on: some of train, all of valid."""

    train: Matrix
    train_label: Doubles
    valid: Shard
    whole: Shard
    """All of train, as folds are made of it."""
    dealt: Deal | None
    """How; None without folds."""


@dataclass(frozen=True)
class _Begun:
    """Where a training begins: after how many rounds, how often before, and what it leaves."""

    start: Snapshot
    resumed: tuple[Resumed, ...]
    keeper: Keeper


@dataclass(frozen=True)
class _Place:
    """A dataset, and what is to be done with it.

    Attributes:
        folder: of the request; bins that memory has no room for are put into it.
        catalog: where it lies.
        own: its record.
        manifest: the same with the plan of the model to train.
        request: what to train.
        origin: the model to start from; None: from scratch.
    """

    folder: Path
    catalog: Catalog
    own: DatasetManifest
    manifest: DatasetManifest
    request: FitRequest
    origin: ModelBundle | None

    @property
    def home(self) -> Path:
        return self.catalog.folder(self.own)

    @property
    def job(self) -> TrainJob:
        asked, init = self.request.train.init, None
        if self.origin is not None and asked is not None:
            init = init_model(self.catalog, self.origin, asked)
        job = job_of(self.request, self.manifest, init)
        bins = self.folder / BINS if self.request.bins == "disk" else None
        return replace(job, bins_folder=bins)

    def shards(self, manifest: DatasetManifest, gang: Gang) -> tuple[Shard, Shard]:
        """Return this worker's train and valid rows by the plan of a record."""
        reader = Reader(rank=gang.rank, world=gang.world, threads=self.request.threads)
        train = read_shard(self.home, manifest, "train", reader=reader)
        return train, read_shard(self.home, manifest, "valid", reader=reader)


def _fit(folder: Path, place: _Place, gang: Gang, tick: Tick) -> None:
    """Train, judge and leave what came out."""
    request, job = place.request, place.job
    trainer = load_trainer(request.train.trainer)
    begun = _begin(Store(Path(request.store)), request, job, gang)
    fitted, measured, seconds, diverged = _train(place, begun, gang, tick)
    prove_same_model(gang, fitted.model)
    path = folder / f"{MODEL}{gang.rank or ''}{trainer.suffix}"
    replace_file(path, fitted.model)
    start = time.monotonic()
    folds = _cross_validate(place, measured, fitted.kept, gang, tick)
    done = time.monotonic()
    tick(job.rounds, job.rounds, "measuring")
    model = trainer.load(path, threads=request.threads)
    valid = measured.valid
    scores = valid_scores(model, valid, fitted.scores, job.seed)
    own = (measured.train, measured.train_label), (valid.label, scores)
    judged = judge_model(*own, model, job, gang, request.train.costs)
    del measured  # what follows may read all rows again
    transfer = _compare(folder, place, (judged.valid, valid), gang, tick)
    if gang.rank:
        return  # the first worker leaves the outcome
    outcome = FitOutcome(
        model_file=path.name,
        rounds=fitted.rounds,
        threshold=judged.threshold,
        train_metrics=judged.figures,
        importance=_shares(model.gains()),
        params=fitted.params,
        golden=golden_rows(place.home, place.manifest, model),
        resumed=begun.resumed,
        cross_validation=folds,
        transfer=transfer,
        processor=processor_name(),
        trouble=begun.keeper.trouble,
        diverged=diverged,
        seconds={**seconds, "folds": done - start, "judge": time.monotonic() - done},
    )
    replace_file(folder / OUTCOME, outcome.to_json().encode())


def _begin(store: Store, request: FitRequest, job: TrainJob, gang: Gang) -> _Begun:
    """Find the newest checkpoint: the first worker reads it, and every one goes on from it."""
    checkpoints = Checkpoints(store, request.name, request.key)
    found = checkpoints.newest() if gang.rank == 0 else None
    mine = found.snapshot if found else BEGINNING
    values = np.asarray(mine.history, np.float64).tobytes()
    model = gang.agree(b"", lambda _: mine.model)
    history = gang.agree(b"", lambda _: values)
    start = Snapshot(model, tuple(np.frombuffer(history, np.float64).tolist()))
    resumed: tuple[Resumed, ...] = ()
    if found is not None:
        record, trainer = found.record, load_trainer(request.train.trainer)
        then = (record.workers, record.threads, record.device, record.bins, record.processor)
        now = (1, job.threads, job.device, request.bins, processor_name())
        same = then == now and job.workers == 1
        again = Resumed(
            rounds=record.rounds,
            workers=job.workers,
            exact=same
            and all(one.exact for one in record.resumed)
            and trainer.goes_on_exactly(job),
        )
        resumed = (*record.resumed, again)
    template = CheckpointRecord(
        rounds=0,
        workers=job.workers,
        threads=job.threads,
        device=job.device,
        bins=request.bins,
        processor=processor_name(),
        resumed=resumed,
        folder="-",
        files=(),
    )
    every_s = parse_duration_s(request.train.checkpoint_every)
    return _Begun(start, resumed, Keeper(checkpoints, template, every_s=every_s))


def _train(
    place: _Place, begun: _Begun, gang: Gang, tick: Tick
) -> tuple[Fitted, _Measured, dict[str, float], int]:
    """Read, check, bin and train; of train only labels and bins are held while training.

    The last of what is returned is `FitOutcome.diverged`.
    """
    request, job = place.request, place.job
    trainer = load_trainer(request.train.trainer)
    laps = [time.monotonic()]
    there = len(begun.start.history)
    again = f", to go on after round {there}" if there else ""
    tick(there, job.rounds, f"reading{again}")
    train, valid = place.shards(place.manifest, gang)
    prove_rows(gang, place.manifest, (train, valid))
    check_labels(train.label, valid.label, job, gang)
    dealt = None
    if request.folds is not None:
        dealt = deal(train, request.folds, gang)
        check_folds(train, dealt, job, gang)
    laps.append(time.monotonic())
    tick(there, job.rounds, f"binning{again}")
    some, places = train.sample(MEASURED_TRAIN_ROWS // gang.world, job.seed)
    measured = _Measured(some, train.label[places], valid, train, dealt)
    evened, job = even_out(train, job, gang)
    data = trainer.prepare(evened, valid, job, gang, begun.start)
    laps.append(time.monotonic())

    last: tuple[Sequence[float], Callable[[], bytes] | None] = ((), None)

    def watch(history: Sequence[float], model: Callable[[], bytes] | None) -> bool:
        nonlocal last
        last = history, model
        if gang.rank == 0 and request.keeps:
            begun.keeper.offer(history, model)
        trouble = begun.keeper.trouble and f"; {begun.keeper.trouble}"
        tick(len(history), job.rounds, f"valid {job.metric} {history[-1]:.5f}{trouble}")
        return True

    fitted = trainer.fit(data, job, gang, watch)
    keeps = request.keeps and gang.rank == 0
    if _takes_long_after(request) and keeps and last[1] is not None:
        begun.keeper.keep(last[0], last[1])  # what follows must not cost these rounds
    laps.append(time.monotonic())
    spent = dict(zip(("read", "bin", "train"), np.diff(laps).tolist(), strict=True))
    history = last[0] or begun.start.history
    return fitted, measured, spent, 0 if math.isfinite(history[-1]) else len(history)


def _takes_long_after(request: FitRequest) -> bool:
    """Say whether more is trained after the model."""
    init = request.train.init
    return request.folds is not None or (init is not None and init.against_scratch)


def _cross_validate(
    place: _Place, rows: _Measured, rounds: int, gang: Gang, tick: Tick
) -> CrossValidation | None:
    """Train and judge the folds that are asked for; those that are done are in the store."""
    request = place.request
    if rows.dealt is None:
        return None
    checkpoints = Checkpoints(Store(Path(request.store)), request.name, request.key)
    found = checkpoints.folds(rounds, gang.world) if gang.rank == 0 else ()
    begin = int.from_bytes(gang.agree(b"", lambda _: bytes([len(found)])))
    asked = FoldJob(load_trainer(request.train.trainer), place.job, rounds)
    for figure in fold_figures(rows.whole, rows.dealt, asked, gang, tick, begin=begin):
        found = (*found, figure)
        if gang.rank == 0 and request.keeps:
            with contextlib.suppress(OSError):  # then a training that goes on does it again
                checkpoints.write_folds(rounds, gang.world, found)
    return CrossValidation(rule=rows.dealt.rule, folds=found)


def _compare(
    folder: Path, place: _Place, valid: tuple[Scores, Shard], gang: Gang, tick: Tick
) -> Transfer | None:
    """Say what it was worth to start from a model; every worker goes through it."""
    request, asked = place.request, place.request.train.init
    if place.origin is None or asked is None:
        return None
    rounds = request.train.rounds
    said = (0, rounds, f"from scratch, {request.metric}")
    found = Comparison(
        catalog=place.catalog,
        bundle=place.origin,
        trainer=load_trainer(request.train.trainer),
        job=place.job,
        own=place.own,
        shards=lambda manifest: place.shards(manifest, gang),
        folder=folder,
    )
    watch = told_until(rounds, tick, said) if asked.against_scratch else None
    return what_it_was_worth(found, *valid, gang, watch)


def _place(folder: Path, catalog: Catalog, request: FitRequest) -> _Place:
    own, origin = _dataset(catalog, request), None
    if request.init:
        origin = catalog.model(request.init)
        if origin.model_digest != request.init_digest:
            raise IntegrityError(
                f"model '{request.init}' must be the one the training was asked to start from, "
                "but its record changed; run again."
            )
        check_init(catalog, origin)
    manifest = as_learned(own, origin, request.train.init)
    return _Place(folder, catalog, own, manifest, request, origin)


def _dataset(catalog: Catalog, request: FitRequest) -> DatasetManifest:
    manifest = catalog.dataset(request.dataset)
    if manifest.content_digest != request.dataset_digest:
        raise IntegrityError(
            f"dataset '{request.dataset}' must be the one the training was asked for, but its "
            "record changed; run again."
        )
    return manifest


def _shares(gains: Doubles) -> tuple[float, ...]:
    """Return each feature's part of all gain; zeros when no tree splits.

    Raises:
        DivergedError: a gain is past the library's largest number.
    """
    whole = float(gains.sum())
    if not math.isfinite(whole):
        raise DivergedError(
            "the splits of the model must have gains that are numbers, but some are past the "
            "library's largest; lower the learning rate, or divide a label that is huge."
        )
    return tuple((gains / whole).tolist() if whole > 0 else [0.0] * len(gains))
