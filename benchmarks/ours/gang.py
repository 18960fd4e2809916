"""Arclight's gang without Ray: what its workers do, each on a part of a core."""

from __future__ import annotations

import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.store import open_store
from arclight.train_section import Train
from benchmarks.crew import Crew, crew_of
from benchmarks.ingest_job import PARAMS
from ray_apps.fit import run_fit
from ray_apps.fit_files import REQUEST, FitOutcome, FitRequest, read_outcome
from ray_apps.gang import Alone
from ray_apps.gang.mesh import KEY_BYTES, Door, meet
from ray_apps.trainers import load_trainer

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE_S = 600.0
_DOORS: list[Door] = []


def ready(rank: int, world: int) -> None:  # noqa: ARG001
    """Load the libraries."""
    for name in ("xgboost", "lightgbm"):
        load_trainer(name)
    pa.set_cpu_count(1)


def opened(rank: int, world: int) -> tuple[str, int]:  # noqa: ARG001
    """Listen for the others."""
    _DOORS[:] = [Door("127.0.0.1")]
    return _DOORS[0].host, _DOORS[0].port


def fit(folder: str, doors: list[tuple[str, int]], key: bytes, rank: int, world: int) -> None:
    """Train as one of the gang."""
    if world == 1:
        run_fit(Path(folder), silent, Alone())
        return
    mesh = meet(_DOORS[0], rank, doors, key, deadline_s=SILENCE_S)
    try:
        run_fit(Path(folder), silent, mesh)
    finally:
        mesh.close()


class GangSide:
    """Trains with some workers; nothing is published."""

    def __init__(self, params: dict[str, Any], crew: Crew) -> None:
        self._params, self._crew = params, crew
        self._manifest = Catalog(open_store(params["store"])).dataset(params["dataset"])

    def ready(self, number: int) -> None:
        """Write the request of a round."""
        params, folder = self._params, self._folder(number)
        shutil.rmtree(self._folder(number - 1), ignore_errors=True)
        folder.mkdir()
        train = Train(
            trainer=params["trainer"],
            rounds=params["rounds"] if number else 2,
            early_stopping=None,
            params=PARAMS[params["trainer"]],
            seed=number,
            checkpoint_every="1h",
        )
        request = FitRequest(
            store=params["store"],
            name="race",
            key=f"race-{params['trainer']}-{params['workers']}-{number}",
            dataset=self._manifest.ref,
            dataset_digest=self._manifest.content_digest,
            task="binary",
            metric="log_loss",
            train=train,
            workers=params["workers"],
            threads=1,
        )
        (folder / REQUEST).write_text(request.to_json())

    def run(self, number: int) -> FitOutcome:
        """Meet, read, bin, train, measure."""
        key, folder = secrets.token_bytes(KEY_BYTES), self._folder(number)
        doors = self._crew.ask("opened")
        self._crew.ask("fit", folder=str(folder), doors=doors, key=key)
        return read_outcome(folder)

    def facts(self, result: FitOutcome) -> dict[str, Any]:
        """Return the metric over the valid rows of all workers."""
        return {"log_loss": result.train_metrics["valid"]}

    def _folder(self, number: int) -> Path:
        return Path(self._params["scratch"]) / f"round-{number}"


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[GangSide]:
    """Start the workers."""
    with crew_of(params["workers"], __name__) as crew:
        yield GangSide(params, crew)
