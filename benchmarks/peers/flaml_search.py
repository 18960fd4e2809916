"""FLAML's tuner: its own search (CFO) and its own scheduler over rows that are binned once.

It chooses its own configurations, as many as the others try; a trial is trained from scratch with
more and more rounds, one at a time and with all cores.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flaml import tune

from benchmarks.ingest_job import Job
from benchmarks.search_job import ETA, SPACES, boost, datasets, grace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.search_job import Curve

WARM_TRIALS = 4
THREADS = 2
ROUNDS = "rounds"


class Flaml:
    """One `tune.run` a round."""

    def __init__(self, library: str, job: Job, trials: int) -> None:
        self._library, self._job, self._trials = library, job, trials
        self._curves: list[Curve] = []

    def ready(self, number: int) -> None:
        """Nothing is written."""

    def run(self, number: int) -> dict[str, Any]:
        """Search from the first trial to the last."""
        begun, most = time.monotonic(), self._job.rounds
        space = SPACES[self._library]
        data = datasets(self._library, self._job, THREADS)
        curve: Curve = []
        seen = {"best": 0.0, "rounds": 0, "trials": 0}

        def evaluate(config: dict[str, Any]) -> dict[str, float]:
            params = {name: config[name] for name in space}
            mine = 0.0

            def report(_: int, auc: float) -> bool:
                nonlocal mine
                mine = max(mine, auc)
                seen["rounds"] += 1
                return True

            rounds = int(config.get(ROUNDS, most))
            boost(self._library, params, data, rounds, report, THREADS)
            seen["best"] = max(seen["best"], mine)
            seen["trials"] += 1
            curve.append((time.monotonic() - begun, seen["best"]))
            return {"auc": mine}

        tune.run(
            evaluate,
            config={name: _domain(one) for name, one in space.items()},
            metric="auc",
            mode="max",
            num_samples=self._trials if number else WARM_TRIALS,
            resource_attr=ROUNDS,
            min_resource=grace(most),
            max_resource=most,
            reduction_factor=ETA,
            scheduler="flaml",
            use_ray=False,
            verbose=0,
        )
        self._curves += [curve] if number else []
        return seen

    def facts(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the best AUC on valid, and how many rounds all trials took."""
        return {
            "auc": result["best"],
            "rows": None,
            "trials": result["trials"],
            "rounds": result["rounds"],
            "curves": self._curves,
        }


def _domain(one: dict[str, Any]) -> Any:
    low, high = one["int"] if "int" in one else one["float"]
    if "int" in one:
        return tune.lograndint(low, high + 1) if one.get("log") else tune.randint(low, high + 1)
    return tune.loguniform(low, high) if one.get("log") else tune.uniform(low, high)


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[Flaml]:
    """There is no engine to start."""
    yield Flaml(params["library"], Job(**params["job"]), len(params["asked"][0]))
