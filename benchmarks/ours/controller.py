"""Our side of the `controller` race: the controller asked by threads that train nothing."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.halving import rungs_of
from arclight.study import Study
from arclight.train_section import Train
from arclight.trial_file import TrialFile
from arclight.trials import Trial, Trials
from arclight.tune_section import Tune
from ray_apps.tuning.controller import Controller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WARM_TRIALS = 20


class ControllerSide:
    """One study a round."""

    def __init__(self, params: dict[str, Any]) -> None:
        tune = {
            "trials": params["trials"],
            "sampler": params["sampler"],
            "scheduler": "asha",
            "space": params["space"],
        }
        self._study = Study(
            name="controller",
            number=1,
            key="0" * 64,
            dataset="none@1",
            dataset_digest="0" * 64,
            task="binary",
            metric="auc",
            train=Train(rounds=params["rounds"]),
            tune=Tune.model_validate_json(json.dumps(tune)),
        )
        self._slots, self._scratch = params["slots"], Path(params["scratch"])
        self._spent: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def ready(self, number: int) -> None:
        """Every round has a file of its own."""
        self._path = self._scratch / f"{number}" / "trials.jsonl"
        self._spent = {"next": [], "passes": [], "end": []}

    def run(self, number: int) -> Trials:
        """Ask from as many threads as there are slots."""
        trials, tune = Trials(TrialFile(self._path)), self._study.tune
        if number == 0:
            tune = tune.model_copy(update={"trials": WARM_TRIALS})
        controller = Controller(self._study.model_copy(update={"tune": tune}), trials)
        threads = [
            threading.Thread(target=self._work, args=(controller, seed))
            for seed in range(self._slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return trials

    def facts(self, result: Trials) -> dict[str, Any]:
        """Return how many trials were made, and what one cost."""
        spent = {name: sum(times) for name, times in self._spent.items()}
        made = max(1, len(result.ended))
        return {
            "auc": None,
            "rows": None,
            "trials": len(result.ended),
            "trial_ms": 1e3 * (spent["next"] + spent["end"]) / made,
            "report_ms": 1e3 * spent["passes"] / max(1, len(self._spent["passes"])),
        }

    def _work(self, controller: Controller, seed: int) -> None:
        chance, rungs = random.Random(seed), rungs_of(self._study.train.rounds)
        while (asked := self._timed("next", controller.next, 0)) is not None:
            number, params = asked
            value, points = chance.random(), []
            for rung in rungs:
                points.append((rung, value))
                if not self._timed("passes", controller.passes, number, rung, value):
                    break
            trial = Trial(
                number=number, params=params, state="stopped", value=value, points=tuple(points)
            )
            self._timed("end", controller.end, trial)

    def _timed(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        begun = time.thread_time()
        found = call(*args)
        with self._lock:
            self._spent[name].append(time.thread_time() - begun)
        return found


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[ControllerSide]:
    """There is no engine to start."""
    yield ControllerSide(params)
