"""A search where it runs: request file -> trials in the study's file, whatever process it is."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from arclight.catalog import Catalog
from arclight.contract import Contract
from arclight.errors import EngineError
from arclight.store import Store
from arclight.study import Study, Trials, alone, trials_path
from ray_apps.fit import FitRequest, job_of
from ray_apps.gang import Alone
from ray_apps.gang.proofs import prove_rows
from ray_apps.memory import memory_named
from ray_apps.shards import Reader, read_shard
from ray_apps.trainers import load_trainer
from ray_apps.trainers.imbalance import even_out
from ray_apps.trainers.labels import check_labels
from ray_apps.tuning.trials import Search

if TYPE_CHECKING:
    from arclight.progress import Tick

REQUEST = "search.json"


class SearchRequest(Contract):
    """A study to go on with, on one machine."""

    kind: ClassVar[str] = "search-request"

    study: Study
    fit: FitRequest
    at_once: int
    since: float
    """When the search began, in seconds since 1970: a worker that is lost takes its time."""


def run_search(folder: Path, tick: Tick) -> None:
    """Make the trials that a folder's request asks for; what ended is in the study's file.

    Raises:
        ArclightError: the data, or the file, said no.
    """
    request = SearchRequest.from_json((folder / REQUEST).read_bytes(), source=str(folder))
    fit, study, gang = request.fit, request.study, Alone()
    store = Store(Path(fit.store))
    catalog = Catalog(store)
    manifest = catalog.dataset(fit.dataset)
    if manifest.content_digest != fit.dataset_digest:
        raise EngineError(
            f"dataset '{fit.dataset}' must be the one the search was asked for, but its record "
            "changed; run again."
        )
    pa.set_cpu_count(fit.threads)
    path = trials_path(store, study)
    with memory_named(gang, manifest), alone(path, study):
        tick(0, study.tune.trials, "reading")
        home, reader = catalog.folder(manifest), Reader(threads=fit.threads)
        train, valid = (read_shard(home, manifest, s, reader=reader) for s in ("train", "valid"))
        prove_rows(gang, manifest, (train, valid))
        job = job_of(fit, manifest)
        check_labels(train.label, valid.label, job, gang)
        evened, job = even_out(train, job, gang)
        job = replace(job, threads=max(1, fit.threads // request.at_once), workers=1)
        Search(
            study,
            Trials.read(path),
            load_trainer(study.train.trainer),
            job,
            (evened, valid),
            at_once=request.at_once,
            tick=tick,
            spent_s=max(0.0, time.time() - request.since),
        ).run()
