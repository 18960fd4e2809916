"""Ray Tune as its documentation shows it: a function that reads, bins, trains and reports.

`ASHAScheduler`, a report a round, one CPU a trial, the configurations that all sides try.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from benchmarks.ingest_job import Job
from benchmarks.peers.ray_documented import cluster_up
from benchmarks.search_job import ETA, boost, datasets, grace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.search_job import Curve

WARM_TRIALS = 2


def trial(config: dict[str, Any], library: str, job: dict[str, Any]) -> None:
    """Read and bin, then report every round; Tune ends it from outside."""
    asked = Job(**job)

    def report(_: int, auc: float) -> bool:
        tune.report({"auc": auc})
        return True

    boost(library, config["params"], datasets(library, asked), asked.rounds, report)


class RayTune:
    """One `Tuner` a round, in a cluster that stays up."""

    def __init__(
        self, library: str, job: Job, asked: list[list[dict[str, Any]]], scratch: Path
    ) -> None:
        self._library, self._job, self._asked, self._scratch = library, job, asked, scratch
        self._curves: list[Curve] = []

    def ready(self, number: int) -> None:
        """Every round has a folder of its own."""

    def run(self, number: int) -> Any:
        """Search from the first trial to the last."""
        rounds = self._job.rounds
        asked = self._asked[number] if number else self._asked[0][:WARM_TRIALS]
        job = dataclasses.asdict(dataclasses.replace(self._job, seed=number))
        tuner = tune.Tuner(
            tune.with_parameters(trial, library=self._library, job=job),
            param_space={"params": tune.grid_search(asked)},
            tune_config=tune.TuneConfig(
                metric="auc",
                mode="max",
                max_concurrent_trials=2,
                scheduler=ASHAScheduler(
                    max_t=rounds, grace_period=grace(rounds), reduction_factor=ETA
                ),
            ),
            run_config=tune.RunConfig(
                name=f"round-{number}", storage_path=str(self._scratch), verbose=0
            ),
        )
        begun = time.time()
        found = tuner.fit()
        self._curves += [_curve(found, begun)] if number else []
        return found

    def facts(self, result: Any) -> dict[str, Any]:
        """Return the best AUC on valid, and how many rounds all trials took."""
        frame = result.get_dataframe(filter_metric="auc", filter_mode="max")
        last = result.get_dataframe()
        return {
            "auc": float(frame["auc"].max()),
            "rows": None,
            "trials": len(last),
            "rounds": int(last["training_iteration"].sum()),
            "curves": self._curves,
        }


def _curve(result: Any, begun: float) -> Curve:
    frame = result.get_dataframe(filter_metric="auc", filter_mode="max").sort_values("timestamp")
    seconds = (frame["timestamp"] - begun).tolist()
    return list(zip(seconds, frame["auc"].cummax().tolist(), strict=True))


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RayTune]:
    """Start a cluster on loopback."""
    with cluster_up():
        job = Job(**params["job"])
        yield RayTune(params["library"], job, params["asked"], Path(params["scratch"]))
        ray.shutdown()
