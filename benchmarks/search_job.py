"""What the `search` race asks for: the space, the budget, and how one trial is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import xgboost as xgb

from benchmarks.ingest_job import Job, read_split, with_codes
from benchmarks.peers.raw_training import bin_xgboost

if TYPE_CHECKING:
    from collections.abc import Callable

ETA = 3
RUNGS = 4
FIXED = {"lightgbm": {"max_bin": 255}, "xgboost": {"max_bin": 256}}
SPACES: dict[str, dict[str, dict[str, Any]]] = {
    "lightgbm": {
        "num_leaves": {"int": [15, 127], "log": True},
        "learning_rate": {"float": [0.02, 0.3], "log": True},
        "min_data_in_leaf": {"int": [10, 200], "log": True},
        "feature_fraction": {"float": [0.4, 1.0]},
        "lambda_l2": {"float": [0.001, 10.0], "log": True},
    },
    "xgboost": {
        "max_depth": {"int": [4, 7]},
        "learning_rate": {"float": [0.02, 0.3], "log": True},
        "min_child_weight": {"float": [1.0, 100.0], "log": True},
        "subsample": {"float": [0.5, 1.0]},
        "reg_lambda": {"float": [0.001, 10.0], "log": True},
    },
}
Binned = tuple[Any, Any]
"""Train and valid as a library holds them."""


Curve = list[tuple[float, float]]
"""(seconds since a search began, the best figure then), in the order of time."""


def reached_s(curve: Curve, figure: float) -> float:
    """Return the seconds after which a search had a figure; infinite when it never had."""
    return next((seconds for seconds, best in curve if best >= figure), math.inf)


def grace(rounds: int) -> int:
    """Return the rounds after which a trial is looked at first."""
    return math.ceil(rounds / ETA**RUNGS)


def datasets(library: str, job: Job, threads: int = 1) -> Binned:
    """Read both splits and bin them, with as many threads as a trial has."""
    if library == "xgboost":
        return bin_xgboost(replace(job, threads=threads))
    params = {
        **FIXED[library], "feature_pre_filter": False, "verbosity": -1, "num_threads": threads
    }  # fmt: skip
    places = list(range(len(job.numbers), len(job.features)))
    common: dict[str, Any] = {"categorical_feature": places, "params": params}
    x, y = read_split(job, "train")
    train = lgb.Dataset(with_codes(job, x), label=y, **common).construct()
    x, y = read_split(job, "valid")
    return train, lgb.Dataset(with_codes(job, x), label=y, reference=train, **common).construct()


def boost(
    library: str,
    params: dict[str, Any],
    data: Binned,
    rounds: int,
    report: Callable[[int, float], bool],
    threads: int = 1,
) -> None:
    """Train one trial a round at a time; it ends where the report says so."""
    train, valid = data
    if library == "xgboost":
        wanted = {"objective": "binary:logistic", "eval_metric": "auc", "nthread": threads}
        grown = xgb.Booster({**FIXED[library], **wanted, **params}, [train, valid])
        for number in range(1, rounds + 1):
            grown.update(train, number - 1)
            if not report(number, float(grown.eval(valid).rpartition(":")[2])):
                return
        return
    fixed = {
        "objective": "binary",
        "metric": "auc",
        "num_threads": threads,
        "verbosity": -1,
        "feature_pre_filter": False,
    }
    booster = lgb.Booster({**FIXED[library], **fixed, **params}, train)
    booster.add_valid(valid, "valid")
    for number in range(1, rounds + 1):
        booster.update()
        if not report(number, float(booster.eval_valid()[0][2])):
            return
