"""Races `train`, `large` and `small`: the Parquet of a published dataset to a saved model.

Where `ingest` looks at what a report to Ray Train costs, `train` asks who is there at all: the
documented paths of Spark, Ray and Dask for both libraries; `large`, what is left of the library's
own speed with ten times as many rows; `small`, what a job costs that has little to do, and one of
several workers that has nothing.
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
    from pathlib import Path
    from typing import Any

    from benchmarks.published import Published

ROWS = {"full": 1_250_000, "quick": 250_000, "tiny": 12_500}
LARGE_ROWS = {"full": 12_500_000, "quick": 1_250_000, "tiny": 12_500}
SMALL_ROWS = {"full": 125_000, "quick": 125_000, "tiny": 12_500}
BOOST_ROUNDS = {"full": 30, "quick": 10, "tiny": 3}
BOOSTERS = ("xgboost", "lightgbm")
OF_RAW, LARGE_OF_RAW, SMALL_OF_RAW, SMALL_OF_RAY, NOTHING_OF_RAY = 0.85, 0.97, 0.5, 10.0, 3.0
SMALL_FLOOR = 6.0
QUANTISED, OF_QUANTISED = "lightgbm-quantised", 1.4
GRADIENTS = {"use_quantized_grad": True}
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
    contenders, comparisons = [], []
    for trainer in BOOSTERS:
        contenders += _ours_and_raw(setting, "train", published, data, trainer)
        for name, how in PEERS[trainer].items():
            env = extra if name.startswith("dask") else {}
            contenders.append(_peer(setting, "train", job, name, how, env))
        mine = f"arclight-{trainer}"
        comparisons.append(Comparison(ours=mine, peer=f"raw-{trainer}", target=OF_RAW))
        comparisons += [
            Comparison(ours=mine, peer=name, target=TARGETS.get(name, 1.0))
            for name in PEERS[trainer]
        ]
    contenders += _ours_and_raw(setting, "train", published, data, QUANTISED, GRADIENTS)
    comparisons += [
        Comparison(ours=f"arclight-{QUANTISED}", peer="raw-lightgbm", target=OF_QUANTISED),
        Comparison(ours=f"arclight-{QUANTISED}", peer=f"raw-{QUANTISED}", target=OF_RAW),
    ]
    return _race(setting, "train", (published, data), (contenders, comparisons))


def make_large_race(setting: Setting) -> Race:
    """Generate ten times as many rows, publish them, return the race with the library alone."""
    data = prepared(setting.data, training_table, LARGE_ROWS[setting.size])
    published = publish(setting, "large", data)
    contenders, comparisons = [], []
    for trainer in BOOSTERS:
        contenders += _ours_and_raw(setting, "large", published, data, trainer)
        sides = (f"arclight-{trainer}", f"raw-{trainer}")
        comparisons.append(Comparison(ours=sides[0], peer=sides[1], target=LARGE_OF_RAW))
    return _race(setting, "large", (published, data), (contenders, comparisons))


def make_small_race(setting: Setting) -> Race:
    """Generate a small table, publish it, return the race with the library alone and with Ray."""
    data = prepared(setting.data, training_table, SMALL_ROWS[setting.size])
    published = publish(setting, "small", data)
    job = published.job(threads=setting.cores, rounds=BOOST_ROUNDS[setting.size])
    contenders, comparisons = [], []
    for trainer in BOOSTERS:
        mine, stock = f"arclight-{trainer}", f"ray-{trainer}"
        contenders += _ours_and_raw(setting, "small", published, data, trainer)
        contenders.append(_peer(setting, "small", job, stock, PEERS[trainer][stock]))
        comparisons += [
            Comparison(ours=mine, peer=f"raw-{trainer}", target=SMALL_OF_RAW),
            Comparison(ours=mine, peer=stock, target=SMALL_OF_RAY, floor=SMALL_FLOOR),
        ]

    spec = ingest_job.spec_body(data, INGEST_CATEGORIES, "xgboost", 1)
    spec["train"]["workers"] = 2
    note = "train_model with 2 workers, one boosting round"
    contenders.append(_ours(setting, "small", published, spec, "arclight-nothing", note))
    how = ("ray_documented", "XGBoostTrainer, 2 workers x 1 CPU, one boosting round")
    contenders.append(_peer(setting, "small", {**job, "rounds": 1}, "ray-nothing", how))
    comparisons.append(
        Comparison(ours="arclight-nothing", peer="ray-nothing", target=NOTHING_OF_RAY)
    )
    return _race(setting, "small", (published, data), (contenders, comparisons))


def _peer(
    setting: Setting,
    race: str,
    job: dict[str, Any],
    name: str,
    how: tuple[str, str],
    env: dict[str, str] | None = None,
) -> Contender:
    module, note = how
    scratch = str(scratch_for(setting, race, name))
    lane = name.partition("-")[2]
    is_ray = name.startswith("ray")
    return Contender(
        name=name,
        module=f"benchmarks.peers.{module}",
        params={**spark_params(setting), "scratch": scratch, "job": job, "lane": lane},
        env=RAY_STOCK if is_ray else env or {},
        note=note,
        sleeps=is_ray,
    )


def _ours(
    setting: Setting,
    race: str,
    published: Published,
    spec: dict[str, Any],
    name: str,
    note: str = "train_model: one Ray worker, hashes checked, model published",
) -> Contender:
    body = {
        **spark_params(setting),
        "scratch": str(scratch_for(setting, race, name)),
        "store": str(published.store),
        "dataset": published.ref,
        "spec": spec,
    }
    return Contender(name=name, module=OURS, params=body, note=note)


def _ours_and_raw(
    setting: Setting,
    race: str,
    published: Published,
    data: Path,
    lane: str,
    more: dict[str, Any] | None = None,
) -> list[Contender]:
    """Return both sides of a lane, whose name begins with the library's; `more`: parameters."""
    rounds, trainer = BOOST_ROUNDS[setting.size], lane.partition("-")[0]
    raw = f"raw-{lane}"
    spec = ingest_job.spec_body(data, INGEST_CATEGORIES, trainer, rounds)
    spec["train"]["params"] = {**spec["train"]["params"], **(more or {})}
    theirs: dict[str, Any] = {
        "scratch": str(scratch_for(setting, race, raw)),
        "job": published.job(threads=setting.cores, rounds=rounds),
        "lane": trainer,
        "more": more or {},
    }
    return [
        _ours(setting, race, published, spec, f"arclight-{lane}"),
        Contender(name=raw, module=RAW, params=theirs, note="pyarrow and the library alone"),
    ]


def _race(
    setting: Setting,
    name: str,
    what: tuple[Published, Path],
    who: tuple[list[Contender], list[Comparison]],
) -> Race:
    (published, data), (contenders, comparisons) = what, who
    return Race(
        name=name,
        metric="seconds from call to return, Parquet to saved model, cluster up, page cache warm",
        contenders=tuple(contenders),
        comparisons=tuple(comparisons),
        judge=functools.partial(judge, allowed=4 * AUC_GAP[setting.size]),
        about={
            "rows": published.rows["train"],
            "boost_rounds": BOOST_ROUNDS[setting.size],
            "warm_up": f"the same job with {ingest_job.WARM_ROUNDS} boosting rounds",
            "data_digest": content_digest(data),
        },
    )
