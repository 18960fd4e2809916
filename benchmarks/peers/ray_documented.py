"""XGBoost on Ray Train as Ray's documentation shows it.

`ray.data.read_parquet`, `get_dataset_shard`, `materialize`, `to_pandas`, `QuantileDMatrix`,
`xgb.train` with `RayTrainReportCallback`, two workers of one CPU. The cluster has two logical CPUs
more than the workers take, because the read tasks of Ray Data need some: with none left they wait
for ever. All of it runs on the race's cores.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import ray
import ray.data
import ray.train
import xgboost as xgb
from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer

from benchmarks.ingest_job import LABEL, PARAMS, Job, test_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

WORKERS = 2
STORE_BYTES = 3 << 30


def train_worker(config: dict[str, Any]) -> None:
    """Train on this worker's shard."""
    job = Job(**config)
    train_shard, valid_shard = (ray.train.get_dataset_shard(s) for s in ("train", "valid"))
    train_x, train_y = frame_of(train_shard.materialize().to_pandas(), job)
    valid_x, valid_y = frame_of(valid_shard.materialize().to_pandas(), job)
    options = {"enable_categorical": True, "nthread": 1}
    train = xgb.QuantileDMatrix(
        train_x, label=train_y, max_bin=PARAMS["xgboost"]["max_bin"], **options
    )
    valid = xgb.QuantileDMatrix(valid_x, label=valid_y, ref=train, **options)
    params = {
        **PARAMS["xgboost"],
        "objective": "binary:logistic",
        "eval_metric": "auc",
        "tree_method": "hist",
        "nthread": 1,
        "seed": job.seed,
    }
    xgb.train(
        params,
        train,
        job.rounds,
        evals=[(valid, "valid")],
        verbose_eval=False,
        callbacks=[RayTrainReportCallback()],
    )


def frame_of(frame: pd.DataFrame, job: Job) -> tuple[pd.DataFrame, pd.Series]:
    """Return features and label; every worker gives the same level the same code."""
    features = frame[job.features].copy()
    for name, levels in job.levels.items():
        features[name] = features[name].astype(pd.CategoricalDtype(levels))
    return features, frame[LABEL]


class RayDocumented:
    """One trainer a round, in a cluster that stays up."""

    def __init__(self, job: Job, scratch: Path) -> None:
        self._job, self._scratch = job, scratch

    def ready(self, number: int) -> None:
        """Remove the last round's results."""
        shutil.rmtree(self._scratch / f"round-{number - 1}", ignore_errors=True)

    def run(self, number: int) -> xgb.Booster:
        """Read, train, and take the model from the checkpoint that was saved."""
        job = self._job.of_round(number)
        columns = [*job.features, LABEL]
        datasets = {
            split: ray.data.read_parquet(job.files[split], columns=columns)
            for split in ("train", "valid")
        }
        trainer = XGBoostTrainer(
            train_worker,
            train_loop_config=dataclasses.asdict(job),
            scaling_config=ray.train.ScalingConfig(
                num_workers=WORKERS, resources_per_worker={"CPU": 1}
            ),
            run_config=ray.train.RunConfig(
                name=f"round-{number}", storage_path=str(self._scratch)
            ),
            datasets=datasets,
        )
        return RayTrainReportCallback.get_model(trainer.fit().checkpoint)

    def facts(self, result: xgb.Booster) -> dict[str, Any]:
        """Return the AUC on the test rows."""

        def score(table: pa.Table) -> Any:
            frame, _ = frame_of(table.to_pandas().assign(**{LABEL: 0.0}), self._job)
            return result.predict(xgb.DMatrix(frame, enable_categorical=True))

        return test_facts(self._job, score)


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RayDocumented]:
    """Start a cluster; the poll interval comes from the contender's environment."""
    with cluster_up():
        yield RayDocumented(Job(**params["job"]), Path(params["scratch"]))


@contextmanager
def cluster_up() -> Iterator[None]:
    """Have a cluster on loopback for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="race-"))  # Ray's sockets need a short path
    context = ray.init(
        address="local",
        num_cpus=WORKERS + 2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
    )
    os.environ["RAY_ADDRESS"] = str(context.address_info["gcs_address"])
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
