"""Ray Tune as its documentation shows it: a function that reads, bins, trains and reports.

`ASHAScheduler`, a report a round, one CPU a trial, random parameters of the same space.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from benchmarks.ingest_job import Job
from benchmarks.peers.ray_documented import cluster_up
from benchmarks.search_job import ETA, SPACE, boost, datasets, grace

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_TRIALS = 2


def trial(config: dict[str, Any], job: dict[str, Any]) -> None:
    """Read and bin, then report every round; Tune ends it from outside."""
    asked = Job(**job)

    def report(_: int, auc: float) -> bool:
        tune.report({"auc": auc})
        return True

    boost(config, datasets(asked), asked.rounds, report)


class RayTune:
    """One `Tuner` a round, in a cluster that stays up."""

    def __init__(self, job: Job, trials: int, scratch: Path) -> None:
        self._job, self._trials, self._scratch = job, trials, scratch

    def ready(self, number: int) -> None:
        """Every round has a folder of its own."""

    def run(self, number: int) -> Any:
        """Search from the first trial to the last."""
        rounds = self._job.rounds
        job = dataclasses.asdict(dataclasses.replace(self._job, seed=number))
        tuner = tune.Tuner(
            tune.with_parameters(trial, job=job),
            param_space={name: _axis(one) for name, one in SPACE.items()},
            tune_config=tune.TuneConfig(
                metric="auc",
                mode="max",
                num_samples=self._trials if number else WARM_TRIALS,
                max_concurrent_trials=2,
                scheduler=ASHAScheduler(
                    max_t=rounds, grace_period=grace(rounds), reduction_factor=ETA
                ),
            ),
            run_config=tune.RunConfig(
                name=f"round-{number}", storage_path=str(self._scratch), verbose=0
            ),
        )
        return tuner.fit()

    def facts(self, result: Any) -> dict[str, Any]:
        """Return the best AUC on valid, and how many rounds all trials took."""
        frame = result.get_dataframe(filter_metric="auc", filter_mode="max")
        last = result.get_dataframe()
        return {
            "auc": float(frame["auc"].max()),
            "rows": None,
            "trials": len(last),
            "rounds": int(last["training_iteration"].sum()),
        }


def _axis(one: dict[str, Any]) -> Any:
    if "int" in one:
        low, high = one["int"]
        return tune.lograndint(low, high + 1)
    low, high = one["float"]
    return tune.loguniform(low, high) if one.get("log") else tune.uniform(low, high)


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RayTune]:
    """Start a cluster on loopback."""
    with cluster_up():
        yield RayTune(Job(**params["job"]), params["trials"], Path(params["scratch"]))
        ray.shutdown()
