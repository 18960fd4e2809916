"""LightGBM on Ray Train as Ray's documentation shows it: `LightGBMTrainer`, two workers."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import ray
import ray.data
import ray.train
from ray.train.lightgbm import LightGBMTrainer, RayTrainReportCallback, get_network_params

from benchmarks.ingest_job import LABEL, PARAMS, Job, test_facts
from benchmarks.peers.ray_documented import WORKERS, cluster_up, frame_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa


def train_worker(config: dict[str, Any]) -> None:
    """Train on this worker's shard."""
    job = Job(**config)
    train_shard, valid_shard = (ray.train.get_dataset_shard(s) for s in ("train", "valid"))
    # LightGBM refuses the types of Arrow that Ray's frames have
    types = {**dict.fromkeys(job.numbers, "float32"), LABEL: "float64"}
    train_x, train_y = frame_of(train_shard.materialize().to_pandas().astype(types), job)
    valid_x, valid_y = frame_of(valid_shard.materialize().to_pandas().astype(types), job)
    params = {
        **PARAMS["lightgbm"],
        "objective": "binary",
        "metric": "auc",
        "num_threads": 1,
        "seed": job.seed,
        "verbosity": -1,
        "tree_learner": "data_parallel",
        "pre_partition": True,
        **get_network_params(),
    }
    train = lgb.Dataset(train_x, label=train_y)
    lgb.train(
        params,
        train,
        job.rounds,
        valid_sets=[lgb.Dataset(valid_x, label=valid_y, reference=train)],
        valid_names=["valid"],
        callbacks=[RayTrainReportCallback()],
    )


class RayLightgbm:
    """One trainer a round, in a cluster that stays up."""

    def __init__(self, job: Job, scratch: Path) -> None:
        self._job, self._scratch = job, scratch

    def ready(self, number: int) -> None:
        """Every round has a folder of its own."""

    def run(self, number: int) -> lgb.Booster:
        """Read, train, and take the model from the checkpoint that was saved."""
        job = self._job.of_round(number)
        columns = [*job.features, LABEL]
        trainer = LightGBMTrainer(
            train_worker,
            train_loop_config=dataclasses.asdict(job),
            scaling_config=ray.train.ScalingConfig(
                num_workers=WORKERS, resources_per_worker={"CPU": 1}
            ),
            run_config=ray.train.RunConfig(
                name=f"round-{number}", storage_path=str(self._scratch)
            ),
            datasets={
                split: ray.data.read_parquet(job.files[split], columns=columns)
                for split in ("train", "valid")
            },
        )
        return RayTrainReportCallback.get_model(trainer.fit().checkpoint)

    def facts(self, result: lgb.Booster) -> dict[str, Any]:
        """Return the AUC on the test rows."""

        def score(table: pa.Table) -> Any:
            frame, _ = frame_of(table.to_pandas().assign(**{LABEL: 0.0}), self._job)
            return result.predict(frame)

        return test_facts(self._job, score)


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[RayLightgbm]:
    """Start a cluster on loopback."""
    with cluster_up():
        yield RayLightgbm(Job(**params["job"]), Path(params["scratch"]))
