"""XGBoost and LightGBM on Dask as their documentation shows it: two processes of one thread."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import lightgbm as lgb
import pandas as pd
import xgboost as xgb
from dask.distributed import Client, LocalCluster, wait
from xgboost import dask as xgb_dask

from benchmarks.ingest_job import LABEL, PARAMS, Job, test_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

WORKERS = 2


class DaskTrainers:
    """One training a round, on a cluster that stays up."""

    def __init__(self, client: Client, job: Job, lane: str, scratch: Path) -> None:
        self._client, self._job, self._lane, self._scratch = client, job, lane, scratch

    def ready(self, number: int) -> None:
        """Models are overwritten."""

    def run(self, number: int) -> Any:
        """Read, train, save."""
        job = self._job.of_round(number)
        return self._xgboost(job) if self._lane == "xgboost" else self._lightgbm(job)

    def facts(self, result: Any) -> dict[str, Any]:
        """Return the AUC on the test rows."""

        def score(table: pa.Table) -> Any:
            frame = table.to_pandas()
            for name, levels in self._job.levels.items():
                frame[name] = frame[name].astype(pd.CategoricalDtype(levels))
            frame = frame[self._job.features]
            if self._lane == "xgboost":
                return result.predict(xgb.DMatrix(frame, enable_categorical=True))
            return result.predict(frame)

        return test_facts(self._job, score)

    def _xgboost(self, job: Job) -> xgb.Booster:
        x, y = self._rows("train")
        valid_x, valid_y = self._rows("valid")
        max_bin = PARAMS["xgboost"]["max_bin"]
        train = xgb_dask.DaskQuantileDMatrix(
            self._client, x, y, max_bin=max_bin, enable_categorical=True
        )
        valid = xgb_dask.DaskQuantileDMatrix(
            self._client, valid_x, valid_y, ref=train, max_bin=max_bin, enable_categorical=True
        )
        params = {
            **PARAMS["xgboost"],
            "objective": "binary:logistic",
            "eval_metric": "auc",
            "tree_method": "hist",
            "seed": job.seed,
        }
        found = xgb_dask.train(
            self._client,
            params,
            train,
            job.rounds,
            evals=[(valid, "valid")],
            verbose_eval=False,
        )
        found["booster"].save_model(self._scratch / "model.ubj")
        return found["booster"]

    def _lightgbm(self, job: Job) -> lgb.Booster:
        x, y = self._rows("train")
        estimator = lgb.DaskLGBMClassifier(
            client=self._client,
            n_estimators=job.rounds,
            random_state=job.seed,
            verbosity=-1,
            **PARAMS["lightgbm"],
        )
        estimator.fit(x, y)  # with `eval_set` it ends in an IndexError of its own
        booster = estimator.booster_
        booster.save_model(self._scratch / "model.txt")
        return booster

    def _rows(self, split: str) -> tuple[Any, Any]:
        job = self._job
        frame = dd.read_parquet(job.files[split], columns=[*job.features, LABEL])
        types = {name: pd.CategoricalDtype(levels) for name, levels in job.levels.items()}
        # kept, or features and label are read in parts of other sizes, which XGBoost refuses
        # and in so many that no worker is without one, which XGBoost refuses too
        frame = frame.astype(types).repartition(npartitions=4 * WORKERS).persist()
        wait(frame)
        return frame[job.features], frame[LABEL]


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[DaskTrainers]:
    """Start a cluster on loopback."""
    scratch = Path(params["scratch"])
    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(scratch / "dask"),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield DaskTrainers(client, Job(**params["job"]), params["lane"], scratch)
