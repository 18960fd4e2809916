"""Optuna with two threads, or two processes, over rows that each process binned once.

`SuccessiveHalvingPruner`, a report a round, the configurations that all sides try, a thread a
trial; processes meet in a journal file.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import multiprocessing
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.ingest_job import Job
from benchmarks.search_job import ETA, SPACES, boost, datasets, grace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.search_job import Binned, Curve

WARM_TRIALS = 4
AT_ONCE = 2


def objective(trial: optuna.Trial, library: str, data: Binned, rounds: int) -> float:
    """Train one trial and return its best AUC."""
    best, pruned = 0.0, False

    def report(number: int, auc: float) -> bool:
        nonlocal best, pruned
        best = max(best, auc)
        trial.report(best, number)
        pruned = trial.should_prune()
        return not pruned

    params = {name: _asked(trial, name, one) for name, one in SPACES[library].items()}
    boost(library, params, data, rounds, report)
    if pruned:
        raise optuna.TrialPruned
    return best


def work(path: str, name: str, library: str, job: dict[str, Any], trials: int) -> None:
    """Be one of several processes."""
    asked = Job(**job)
    study = optuna.load_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(path)),
        sampler=optuna.samplers.RandomSampler(seed=None),
        pruner=_pruner(asked.rounds),
    )
    data = datasets(library, asked)
    study.optimize(lambda t: objective(t, library, data, asked.rounds), n_trials=trials)


class OptunaSearch:
    """One study a round."""

    def __init__(
        self,
        library: str,
        job: Job,
        asked: list[list[dict[str, Any]]],
        lane: str,
        scratch: Path,
    ) -> None:
        self._library, self._job, self._asked = library, job, asked
        self._lane, self._scratch = lane, scratch
        self._curves: list[Curve] = []
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def ready(self, number: int) -> None:  # noqa: ARG002 -- a side's
        """Take the last round's journal away."""
        shutil.rmtree(self._scratch / "journal", ignore_errors=True)
        (self._scratch / "journal").mkdir()

    def run(self, number: int) -> optuna.Study:
        """Search from the first trial to the last."""
        begun = dt.datetime.now()
        study = self._search(number)
        self._curves += [_curve(study, begun)] if number else []
        return study

    def _search(self, number: int) -> optuna.Study:
        asked = self._asked[number] if number else self._asked[0][:WARM_TRIALS]
        trials = len(asked)
        job = dataclasses.replace(self._job, seed=number)
        if self._lane == "threads":
            study = optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.RandomSampler(seed=number),
                pruner=_pruner(job.rounds),
            )
            _ask_for(study, asked)
            data = datasets(self._library, job)
            study.optimize(
                lambda t: objective(t, self._library, data, job.rounds),
                n_trials=trials,
                n_jobs=AT_ONCE,
            )
            return study
        path = str(self._scratch / "journal" / "study.log")
        storage = JournalStorage(JournalFileBackend(path))
        study = optuna.create_study(study_name="race", storage=storage, direction="maximize")
        _ask_for(study, asked)
        start = multiprocessing.get_context("spawn")
        body, share = dataclasses.asdict(job), trials // AT_ONCE
        workers = [
            start.Process(target=work, args=(path, "race", self._library, body, share))
            for _ in range(AT_ONCE)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return study

    def facts(self, result: optuna.Study) -> dict[str, Any]:
        """Return the best AUC on valid, and how many rounds all trials took."""
        done = result.trials
        return {
            "auc": float(result.best_value),
            "rows": None,
            "trials": len(done),
            "rounds": sum(t.last_step or 0 for t in done),
            "curves": self._curves,
        }


def _curve(study: optuna.Study, begun: dt.datetime) -> Curve:
    ended = sorted((t for t in study.trials if t.datetime_complete), key=_ended_at)
    found, best = [], 0.0
    for trial in ended:
        best = max(best, *trial.intermediate_values.values())
        found.append(((_ended_at(trial) - begun).total_seconds(), best))
    return found


def _ended_at(trial: optuna.trial.FrozenTrial) -> dt.datetime:
    assert trial.datetime_complete is not None
    return trial.datetime_complete


def _ask_for(study: optuna.Study, asked: list[dict[str, Any]]) -> None:
    for params in asked:
        study.enqueue_trial(params)


def _pruner(rounds: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace(rounds), reduction_factor=ETA)


def _asked(trial: optuna.Trial, name: str, one: dict[str, Any]) -> float:
    is_log = bool(one.get("log"))
    if "int" in one:
        return trial.suggest_int(name, *one["int"], log=is_log)
    return trial.suggest_float(name, *one["float"], log=is_log)


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[OptunaSearch]:
    """There is no engine to start."""
    job, scratch = Job(**params["job"]), Path(params["scratch"])
    yield OptunaSearch(params["library"], job, params["asked"], params["lane"], scratch)
