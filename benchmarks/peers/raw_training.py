"""The limit: pyarrow reads, the library bins and trains, the model is saved. One process."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import xgboost as xgb

from benchmarks.ingest_job import PARAMS, Job, read_split, test_facts, with_codes

if TYPE_CHECKING:
    from collections.abc import Iterator


def bin_xgboost(job: Job) -> tuple[xgb.QuantileDMatrix, xgb.QuantileDMatrix]:
    """Read and bin train, and valid by the same cuts."""
    options = {"enable_categorical": True, "nthread": job.threads}
    x, y = read_split(job, "train")
    train = xgb.QuantileDMatrix(x, label=y, max_bin=PARAMS["xgboost"]["max_bin"], **options)
    x, y = read_split(job, "valid")
    return train, xgb.QuantileDMatrix(x, label=y, ref=train, **options)


def boost_xgboost(
    job: Job, train: xgb.QuantileDMatrix, valid: xgb.QuantileDMatrix
) -> tuple[xgb.Booster, float]:
    """Train, and return the AUC on valid too."""
    params = {
        **PARAMS["xgboost"],
        "objective": "binary:logistic",
        "eval_metric": "auc",
        "tree_method": "hist",
        "nthread": job.threads,
        "seed": job.seed,
    }
    found: dict[str, Any] = {}
    booster = xgb.train(
        params,
        train,
        job.rounds,
        evals=[(valid, "valid")],
        evals_result=found,
        verbose_eval=False,
    )
    return booster, float(found["valid"]["auc"][-1])


def lightgbm_params(job: Job, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the library's parameters, and more of them where a lane has some."""
    return {
        **PARAMS["lightgbm"],
        "objective": "binary",
        "metric": "auc",
        "num_threads": job.threads,
        "seed": job.seed,
        "verbosity": -1,
        **(more or {}),
    }


def bin_lightgbm(job: Job, more: dict[str, Any] | None = None) -> tuple[lgb.Dataset, lgb.Dataset]:
    """Read and bin train, and valid by the same bins."""
    params = lightgbm_params(job, more)
    places = list(range(len(job.numbers), len(job.features)))
    x, y = read_split(job, "train")
    train = lgb.Dataset(with_codes(job, x), label=y, categorical_feature=places, params=params)
    train.construct()
    x, y = read_split(job, "valid")
    valid = lgb.Dataset(
        with_codes(job, x), label=y, reference=train, categorical_feature=places, params=params
    )
    return train, valid.construct()


def boost_lightgbm(
    job: Job, train: lgb.Dataset, valid: lgb.Dataset, more: dict[str, Any] | None = None
) -> tuple[lgb.Booster, float]:
    """Train, and return the AUC on valid too."""
    booster = lgb.train(lightgbm_params(job, more), train, job.rounds, valid_sets=[valid])
    return booster, float(booster.best_score["valid_0"]["auc"])


class RawXgboost:
    """`QuantileDMatrix` from an Arrow table, `xgb.train`, `save_model`."""

    def __init__(self, job: Job, scratch: Path) -> None:
        self._job, self._scratch = job, scratch

    def ready(self, number: int) -> None:
        """Models are overwritten."""

    def run(self, number: int) -> xgb.Booster:
        """Read, bin, train, save."""
        job = self._job.of_round(number)
        booster, _ = boost_xgboost(job, *bin_xgboost(job))
        booster.save_model(self._scratch / "model.ubj")
        return booster

    def facts(self, result: xgb.Booster) -> dict[str, Any]:
        """Return the AUC on the test rows."""
        return test_facts(
            self._job,
            lambda table: result.predict(xgb.DMatrix(table, enable_categorical=True)),
        )


class RawLightgbm:
    """`Dataset` from an Arrow table of codes, `lgb.train`, `save_model`."""

    def __init__(self, job: Job, scratch: Path, more: dict[str, Any]) -> None:
        self._job, self._scratch, self._more = job, scratch, more

    def ready(self, number: int) -> None:
        """Models are overwritten."""

    def run(self, number: int) -> lgb.Booster:
        """Read, bin, train, save."""
        job = self._job.of_round(number)
        booster, _ = boost_lightgbm(job, *bin_lightgbm(job, self._more), self._more)
        booster.save_model(self._scratch / "model.txt")
        return booster

    def facts(self, result: lgb.Booster) -> dict[str, Any]:
        """Return the AUC on the test rows."""
        return test_facts(self._job, lambda table: result.predict(with_codes(self._job, table)))


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RawXgboost | RawLightgbm]:
    """There is no engine to start."""
    job, scratch = Job(**params["job"]), Path(params["scratch"])
    if params["lane"] == "xgboost":
        yield RawXgboost(job, scratch)
    else:
        yield RawLightgbm(job, scratch, params.get("more", {}))
