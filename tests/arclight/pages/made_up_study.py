"""A made-up study for the pages' tests: every state, every kind of range, a trial that blew up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from arclight.study import Study
from arclight.train_section import Train
from arclight.trial_file import TrialFile
from arclight.trials import Trial, Trials
from arclight.tune_section import Tune
from tests.arclight.pages.made_up import HOSTILE

SPACE = {
    "learning_rate": {"float": (0.01, 0.5), "log": True},
    "num_leaves": {"int": (7, 127)},
    "boosting": {"choice": ("gbdt", "dart", HOSTILE)},
    "bagging_fraction": {"float": (0.4, 1.0)},
}
RUNGS = (2, 6, 17, 50)


def made_up_study(trials: int = 60, *, metric: str = "auc", space: dict | None = None) -> Study:
    """Return a study that asks for so many trials."""
    tune = {"trials": trials, "scheduler": "asha", "space": space or SPACE}
    train = {"trainer": "lightgbm", "rounds": 150, "params": {"min_data_in_leaf": 50}}
    return Study(
        name="flights", number=3, key="0" * 64, dataset="flights@2", dataset_digest="1" * 64,
        task="binary", metric=metric, train=Train.model_validate(train),
        tune=Tune.model_validate(tune),
    )  # fmt: skip


def made_up_trials(study: Study, made: int | None = None) -> Trials:
    """Return trials as a search would have made them; the learning rate decides."""
    rng = np.random.default_rng(5)
    found = Trials(TrialFile(Path("trials.jsonl")))
    for number in range(study.tune.trials if made is None else made):
        params = {
            "learning_rate": float(math.exp(rng.uniform(math.log(0.01), math.log(0.5)))),
            "num_leaves": int(rng.integers(7, 128)),
            "boosting": str(rng.choice(["gbdt", "dart", HOSTILE])),
            "bagging_fraction": float(rng.uniform(0.4, 1)),
        }
        found.ended[number] = _trial(number, params, rng)
    return found


def _trial(number: int, params: dict, rng: np.random.Generator) -> Trial:
    if number % 17 == 16:
        reason = f"the loss is not a number after round 3 {HOSTILE}"
        return Trial(number=number, params=params, state="failed", rounds=3, reason=reason,
                     train_s=0.2)  # fmt: skip
    good = 0.72 - 0.02 * abs(math.log(params["learning_rate"] / 0.07)) + rng.normal(0, 0.002)
    good = 0.51 if number == 7 else good
    last = 150 if number % 5 == 0 else RUNGS[number % 4]
    points = [(r, good - 0.05 / r) for r in RUNGS if r <= last]
    seconds = {"queue_s": 0.01, "bin_s": 0.4 if number == 0 else 0.0, "train_s": last / 40}
    if last == 150:
        return Trial(number=number, params=params, state="complete", value=good, rounds=150,
                     best_round=140, points=tuple(points), **seconds)  # fmt: skip
    return Trial(
        number=number, params=params, state="stopped", value=points[-1][1], rounds=last,
        points=tuple(points), reason=f"not among the best after {last} rounds", **seconds,
    )  # fmt: skip
