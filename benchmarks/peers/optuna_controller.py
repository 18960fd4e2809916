"""Optuna with as many threads, a journal file and its pruner, over trials that train nothing."""

from __future__ import annotations

import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

ETA = 3
WARM_TRIALS = 20


class OptunaController:
    """One study a round."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._asked, self._scratch = params, Path(params["scratch"])
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def ready(self, number: int) -> None:
        """Every round has a journal of its own."""
        self._path = str(self._scratch / f"{number}.log")

    def run(self, number: int) -> optuna.Study:
        """Search from the first trial to the last."""
        first = max(1, self._asked["rounds"] // ETA**4)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(self._path)),
            direction="maximize",
            sampler=self._sampler(number),
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=first, reduction_factor=ETA
            ),
        )
        trials = self._asked["trials"] if number else WARM_TRIALS
        study.optimize(self._trial, n_trials=trials, n_jobs=self._asked["slots"])
        return study

    def facts(self, result: optuna.Study) -> dict[str, Any]:
        """Return how many trials were made."""
        return {"auc": None, "rows": None, "trials": len(result.trials)}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._asked["sampler"] == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def _trial(self, trial: optuna.Trial) -> float:
        for name, one in self._asked["space"].items():
            kind = "int" if "int" in one else "float"
            suggest = trial.suggest_int if kind == "int" else trial.suggest_float
            suggest(name, *one[kind], log=bool(one.get("log")))
        value = random.Random(trial.number).random()
        for power in range(4):
            trial.report(value, ETA**power)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[OptunaController]:
    """There is no engine to start."""
    yield OptunaController(params)
