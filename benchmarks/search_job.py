"""What the `search` race asks for: the space, the budget, and how one trial is trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import lightgbm as lgb

from benchmarks.ingest_job import Job, read_split, with_codes

if TYPE_CHECKING:
    from collections.abc import Callable

ETA = 3
RUNGS = 4
FIXED = {"max_bin": 255}
SPACE: dict[str, dict[str, Any]] = {
    "num_leaves": {"int": [15, 127], "log": True},
    "learning_rate": {"float": [0.02, 0.3], "log": True},
    "min_data_in_leaf": {"int": [10, 200], "log": True},
    "feature_fraction": {"float": [0.4, 1.0]},
    "lambda_l2": {"float": [0.001, 10.0], "log": True},
}


Curve = list[tuple[float, float]]
"""(seconds since a search began, the best figure then), in the order of time."""


def reached_s(curve: Curve, figure: float) -> float:
    """Return the seconds after which a search had a figure; infinite when it never had."""
    return next((seconds for seconds, best in curve if best >= figure), math.inf)


def grace(rounds: int) -> int:
    """Return the rounds after which a trial is looked at first."""
    return math.ceil(rounds / ETA**RUNGS)


def datasets(job: Job, threads: int = 1) -> tuple[lgb.Dataset, lgb.Dataset]:
    """Read both splits and bin them, with as many threads as a trial has."""
    params = {**FIXED, "feature_pre_filter": False, "verbosity": -1, "num_threads": threads}
    places = list(range(len(job.numbers), len(job.features)))
    common: dict[str, Any] = {"categorical_feature": places, "params": params}
    x, y = read_split(job, "train")
    train = lgb.Dataset(with_codes(job, x), label=y, **common).construct()
    x, y = read_split(job, "valid")
    return train, lgb.Dataset(with_codes(job, x), label=y, reference=train, **common).construct()


def boost(
    params: dict[str, Any],
    data: tuple[lgb.Dataset, lgb.Dataset],
    rounds: int,
    report: Callable[[int, float], bool],
    threads: int = 1,
) -> None:
    """Train one trial a round at a time; it ends where the report says so."""
    train, valid = data
    fixed = {
        "objective": "binary",
        "metric": "auc",
        "num_threads": threads,
        "verbosity": -1,
        "feature_pre_filter": False,
    }
    booster = lgb.Booster({**FIXED, **fixed, **params}, train)
    booster.add_valid(valid, "valid")
    for number in range(1, rounds + 1):
        booster.update()
        if not report(number, float(booster.eval_valid()[0][2])):
            return
