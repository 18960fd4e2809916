"""Race `train`: the Parquet of a published dataset to a saved model, beside other trainers.

Where `ingest` looks at what a report to Ray Train costs, this one asks who is there at all: the
documented paths of Spark, Ray and Dask for both libraries.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import ingest_job
from benchmarks.contender import Contender
from benchmarks.data import INGEST_CATEGORIES, content_digest, prepared, training_table
from benchmarks.harness import Comparison, Race
from benchmarks.packages import installed
from benchmarks.published import publish
from benchmarks.race_ingest import AUC_GAP, OURS, RAW, RAY_STOCK, judge
from benchmarks.setting import Setting, scratch_for, spark_params

if TYPE_CHECKING:
    from typing import Any

ROWS = {"full": 1_250_000, "quick": 250_000, "tiny": 12_500}
BOOST_ROUNDS = {"full": 30, "quick": 10, "tiny": 3}
BOOSTERS = ("xgboost", "lightgbm")
OF_RAW = 0.85
DASK = (
    "dask==2026.8.0", "distributed==2026.8.0", "toolz", "partd", "locket", "zict", "tblib",
    "tornado", "importlib_metadata==8.7.0", "zipp",
)  # fmt: skip
"""Without what they need besides, which the project has."""
PEERS = {
    "xgboost": {
        "spark-xgboost": ("spark_xgboost", "SparkXGBClassifier, 2 tasks of 1 core"),
        "ray-xgboost": ("ray_documented", "XGBoostTrainer, 2 workers x 1 CPU, Ray's defaults"),
        "dask-xgboost": ("dask_trainers", "xgboost.dask, 2 processes x 1 thread"),
    },
    "lightgbm": {
        "ray-lightgbm": ("ray_lightgbm", "LightGBMTrainer, 2 workers x 1 CPU, Ray's defaults"),
        "dask-lightgbm": ("dask_trainers", "lightgbm.dask, 2 processes x 1 thread"),
    },
}
TARGETS = {"spark-xgboost": 1.5}
"""Of the others it is only asked that they are beaten."""


def make_race(setting: Setting) -> Race:
    """Generate the table, publish it as a dataset, and return the race."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    published = publish(setting, "train", data)
    rounds = BOOST_ROUNDS[setting.size]
    job = published.job(threads=setting.cores, rounds=rounds)
    extra = {"PYTHONPATH": str(installed(setting.data / "packages", DASK))}

    def scratch(name: str) -> str:
        return str(scratch_for(setting, "train", name))

    def ours(trainer: str) -> Contender:
        body = {
            **spark_params(setting),
            "scratch": scratch(f"arclight-{trainer}"),
            "store": str(published.store),
            "dataset": published.ref,
            "spec": ingest_job.spec_body(data, INGEST_CATEGORIES, trainer, rounds),
        }
        note = "train_model: one Ray worker, hashes checked, model published"
        return Contender(name=f"arclight-{trainer}", module=OURS, params=body, note=note)

    def raw(trainer: str) -> Contender:
        name = f"raw-{trainer}"
        body: dict[str, Any] = {"scratch": scratch(name), "job": job, "lane": trainer}
        return Contender(name=name, module=RAW, params=body, note="pyarrow and the library alone")

    def peer(name: str, module: str, note: str) -> Contender:
        lane = name.partition("-")[2]
        body = {**spark_params(setting), "scratch": scratch(name), "job": job, "lane": lane}
        env = RAY_STOCK if name.startswith("ray") else extra if name.startswith("dask") else {}
        return Contender(
            name=name,
            module=f"benchmarks.peers.{module}",
            params=body,
            env=env,
            note=note,
            sleeps=name.startswith("ray"),
        )

    contenders, comparisons = [], []
    for trainer in BOOSTERS:
        contenders += [ours(trainer), raw(trainer)]
        contenders += [peer(name, *how) for name, how in PEERS[trainer].items()]
        mine = f"arclight-{trainer}"
        comparisons.append(Comparison(ours=mine, peer=f"raw-{trainer}", target=OF_RAW))
        comparisons += [
            Comparison(ours=mine, peer=name, target=TARGETS.get(name, 1.0))
            for name in PEERS[trainer]
        ]
    return Race(
        name="train",
        metric="seconds from call to return, Parquet to saved model, cluster up, page cache warm",
        contenders=tuple(contenders),
        comparisons=tuple(comparisons),
        judge=functools.partial(judge, allowed=4 * AUC_GAP[setting.size]),
        about={
            "rows": published.rows["train"],
            "boost_rounds": rounds,
            "warm_up": f"the same job with {ingest_job.WARM_ROUNDS} boosting rounds",
            "data_digest": content_digest(data),
        },
    )
