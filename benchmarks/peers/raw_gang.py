"""The limit of several workers: pyarrow and XGBoost's own collective, bare processes."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
from xgboost.collective import CommunicatorContext
from xgboost.tracker import RabitTracker

from benchmarks.crew import Crew, crew_of
from benchmarks.ingest_job import LABEL, PARAMS, Job, with_codes

if TYPE_CHECKING:
    from collections.abc import Iterator


def ready(rank: int, world: int) -> None:  # noqa: ARG001
    """The libraries are loaded."""
    pa.set_cpu_count(1)


def fit(job: dict[str, Any], args: dict[str, Any], rank: int, world: int) -> float:
    """Read every N-th row group, bin and train together; return the log loss on valid."""
    mine = Job(**job)
    together = CommunicatorContext(**args) if world > 1 else nullcontext()
    with together:
        train = _matrix(mine, "train", rank, world)
        valid = _matrix(mine, "valid", rank, world, ref=train)
        params = {
            **PARAMS["xgboost"],
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "nthread": 1,
            "seed": mine.seed,
        }
        found: dict[str, Any] = {}
        evals = [(valid, "valid")]
        xgb.train(params, train, mine.rounds, evals=evals, evals_result=found, verbose_eval=False)
        return float(found["valid"]["logloss"][-1])


def _matrix(
    job: Job, split: str, rank: int, world: int, ref: xgb.QuantileDMatrix | None = None
) -> xgb.QuantileDMatrix:
    parts, place = [], 0
    for path in job.files[split]:
        file = pq.ParquetFile(path, read_dictionary=list(job.levels))
        for group in range(file.num_row_groups):
            if place % world == rank:
                parts.append(file.read_row_group(group, columns=[*job.features, LABEL]))
            place += 1
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    label = np.asarray(table.column(LABEL))
    # codes and not dictionaries, which are each worker's own
    return xgb.QuantileDMatrix(
        with_codes(job, table),
        label=label,
        ref=ref,
        feature_types=["q"] * len(job.numbers) + ["c"] * len(job.levels),
        max_bin=PARAMS["xgboost"]["max_bin"],
        enable_categorical=True,
        nthread=1,
    )


class RawSide:
    """Trains with some bare workers."""

    def __init__(self, params: dict[str, Any], crew: Crew) -> None:
        self._params, self._crew = params, crew

    def ready(self, number: int) -> None:
        """Nothing is written."""

    def run(self, number: int) -> float:
        """Meet by the library's tracker, read, bin, train."""
        workers = self._params["workers"]
        job = Job(**self._params["job"]).of_round(number)
        if workers == 1:
            return float(self._crew.ask("fit", job=vars(job), args={})[0])
        tracker = RabitTracker(n_workers=workers, host_ip="127.0.0.1")
        tracker.start()
        found = self._crew.ask("fit", job=vars(job), args=tracker.worker_args())
        tracker.wait_for()
        return float(found[0])

    def facts(self, result: float) -> dict[str, Any]:
        """Return the log loss, which the library adds up over all workers."""
        return {"log_loss": result}


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RawSide]:
    """Start the workers."""
    with crew_of(params["workers"], __name__) as crew:
        yield RawSide(params, crew)
