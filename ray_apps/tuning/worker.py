"""A search where it runs: request file -> trials in the study's file, whatever process it is."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from arclight.catalog import Catalog
from arclight.contract import Contract
from arclight.errors import EngineError
from arclight.folds import FoldRule
from arclight.store import Store
from arclight.study import Study, alone, trial_lines
from arclight.trials import Trials
from ray_apps.crews import Room
from ray_apps.fit_files import FitRequest, job_of, read_request
from ray_apps.gang import Alone
from ray_apps.gang.proofs import check_versions, prove_rows
from ray_apps.memory import memory_named
from ray_apps.shards import Reader, read_shard
from ray_apps.trainers import load_trainer
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from ray_apps.tuning.networks import Networks
from ray_apps.tuning.stages import stages_of
from ray_apps.versions import versions_that_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arclight.progress import Tick
    from ray_apps.tuning.controller import Decides

REQUEST = "search.json"
LET_GO_S = 60.0
"""After which a server has noticed that a machine which held a lock is gone."""


class SearchRequest(Contract):
    """A study to go on with, on one machine."""

    kind: ClassVar[str] = "search-request"

    study: Study
    fit: FitRequest
    room: Room
    folds: FoldRule | None = None
    """That a trial learns and is judged on."""
    versions: dict[str, dict[str, str]] = {}
    """Trainer -> what the command runs of what decides its models."""
    since: float
    """When the search began, in seconds since 1970: a worker that is lost takes its time."""
    losses: int = 0
    """Workers that it has lost: what holds its trials for those is let go by and by."""

    @property
    def spent_s(self) -> float:
        """Seconds of the search that are over."""
        return max(0.0, time.time() - self.since)


def run_search(folder: Path, tick: Tick) -> None:
    """Make the trials that a folder's request asks for, on this machine alone.

    Raises:
        ArclightError: the data, or the file, said no.
    """
    with deciding(folder) as controller:
        tick(*controller.said()[:2], "reading")
        run_host(folder, controller, tell=lambda: tick(*controller.said()))


@contextlib.contextmanager
def deciding(folder: Path) -> Iterator[Controller]:
    """Decide for the study of a folder's request, as the only one, for the length of a block.

    Raises:
        ConflictError: another command searches it now.
        IntegrityError: the file of its trials is damaged.
    """
    request = request_of(folder)
    study = request.study
    lines = trial_lines(Store(Path(request.fit.store)), study)
    with alone(lines, study, LET_GO_S if request.losses else 0.0):
        trials = Trials.read(lines)
        trials.allow(study.tune)
        yield Controller(study, trials, spent_s=request.spent_s)


def run_host(
    folder: Path,
    controller: Decides,
    *,
    rank: int = 0,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Read the rows of a folder's request and make trials until there is no other.

    Args:
        folder: holds the request.
        controller: who decides.
        rank: which of the hosts this is.
        tell: called a few times a second.

    Raises:
        ArclightError: the data said no, or who decides.
    """
    request = request_of(folder)
    fit, study, gang = request.fit, request.study, Alone()
    for name, versions in request.versions.items():
        check_versions(versions, versions_that_count(name))
    catalog = Catalog(Store(Path(fit.store)))
    manifest = catalog.dataset(fit.dataset)
    if manifest.content_digest != fit.dataset_digest:
        raise EngineError(
            f"dataset '{fit.dataset}' must be the one the search was asked for, but its record "
            "changed; run again."
        )
    pa.set_cpu_count(fit.threads)
    with memory_named(manifest):
        home, reader = catalog.folder(manifest), Reader(threads=fit.threads)
        train, valid = (read_shard(home, manifest, s, reader=reader) for s in ("train", "valid"))
        prove_rows(gang, manifest, (train, valid))
        threads = max(1, fit.threads // request.room.at_once)
        job = job_of(fit, manifest)
        job = replace(job, threads=threads, workers=1, is_kept=False, is_trial=True)
        stages = stages_of(study.tune, train, valid, job, request.folds)
        trainers = {name: load_trainer(name) for name in study.candidates}
        Host(
            study, controller, trainers, stages,
            at_once=request.room.at_once, rank=rank, spent_s=request.spent_s,
            networks=Networks(catalog.store, study), room=request.room,
        ).run(tell)  # fmt: skip


def request_of(folder: Path) -> SearchRequest:
    """Return the request in a folder.

    Raises:
        EngineError: this node does not see the folder.
    """
    return read_request(SearchRequest, folder / REQUEST, "a host of a search")
