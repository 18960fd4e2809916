"""The limit: pyarrow reads a whole split, the library bins it. One process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.ingest_job import Job
from benchmarks.peers.raw_training import (
    bin_lightgbm,
    bin_xgboost,
    boost_lightgbm,
    boost_xgboost,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LANES = {"xgboost": (bin_xgboost, boost_xgboost), "lightgbm": (bin_lightgbm, boost_lightgbm)}


class RawBins:
    """Bins train and valid; the gate trains a little on them."""

    def __init__(self, job: Job, lane: str) -> None:
        self._job = job
        self._bin, self._boost = LANES[lane]

    def ready(self, number: int) -> None:
        """Nothing is written."""

    def run(self, number: int) -> Any:  # noqa: ARG002 -- every round does the same
        """Read and bin."""
        return self._bin(self._job)

    def facts(self, result: Any) -> dict[str, Any]:
        """Return the AUC on valid of a short training."""
        train, valid = result
        rows = valid.num_row() if hasattr(valid, "num_row") else valid.num_data()
        return {"auc": self._boost(self._job, train, valid)[1], "rows": int(rows)}


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RawBins]:
    """There is no engine to start."""
    yield RawBins(Job(**params["job"]), params["lane"])
