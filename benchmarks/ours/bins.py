"""Arclight's way from a published dataset to binned rows, as every training begins."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from arclight.catalog import Catalog
from arclight.store import open_store
from benchmarks.ingest_job import PARAMS
from ray_apps import shards
from ray_apps.gang import Alone
from ray_apps.shards import Reader, read_shard
from ray_apps.trainers import TrainJob, load_trainer

if TYPE_CHECKING:
    from collections.abc import Iterator


class BinSide:
    """Bins train and valid part by part; the gate trains a little on them."""

    def __init__(self, params: dict[str, Any]) -> None:
        catalog = Catalog(open_store(params["store"]))
        self._manifest = catalog.dataset(params["dataset"])
        self._home = catalog.folder(self._manifest)
        self._trainer = load_trainer(params["trainer"])
        self._job = TrainJob(
            task="binary",
            categorical=self._manifest.plan.categorical,
            metric="auc",
            rounds=params["rounds"],
            early_stopping=None,
            params=PARAMS[params["trainer"]],
            threads=params["cores"],
        )
        pa.set_cpu_count(params["cores"])
        if params["from_disk"]:
            shards.HELD_BYTES = 0

    def ready(self, number: int) -> None:
        """Nothing is written."""

    def run(self, number: int) -> Any:  # noqa: ARG002 -- every round does the same
        """Check hashes, read and bin."""
        reader = Reader(threads=self._job.threads)
        train, valid = (
            read_shard(self._home, self._manifest, part, reader=reader)
            for part in ("train", "valid")
        )
        return self._trainer.prepare(train, valid, self._job, Alone())

    def facts(self, result: Any) -> dict[str, Any]:
        """Return the AUC on valid of a short training."""
        fitted = self._trainer.fit(result, self._job, Alone(), lambda *_: True)
        return {"auc": fitted.valid, "rows": self._manifest.rows["valid"]}


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[BinSide]:
    """There is no engine to start."""
    yield BinSide(params)
