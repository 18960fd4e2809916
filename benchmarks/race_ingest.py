"""Race `ingest`: the Parquet of a published dataset to a saved model, Ray up and warm."""

from __future__ import annotations

import functools

from benchmarks import ingest_job
from benchmarks.contender import Contender
from benchmarks.data import INGEST_CATEGORIES, content_digest, prepared, training_table
from benchmarks.harness import Comparison, Facts, Race, Verdict
from benchmarks.published import publish
from benchmarks.setting import Setting, scratch_for, spark_params

TRAIN_SHARE = 0.8
ROWS = {"full": 2_500_000, "quick": 250_000, "tiny": 12_500}
BOOST_ROUNDS = {"full": 50, "quick": 10, "tiny": 3}
SLOW_ROUNDS = 5
"""Of who takes minutes: more of the others make a bound of what lies within a tenth."""
AUC_GAP = {"full": 5e-4, "quick": 5e-4, "tiny": 2e-2}
"""Among a thousand test rows two right models differ by more than the rule allows."""
NEAR_RAW = 1 / 1.15
OURS, RAW = "benchmarks.ours.train", "benchmarks.peers.raw_training"
RAY_STOCK = {"RAY_TRAIN_V2_ENABLED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}


def make_race(setting: Setting) -> Race:
    """Generate the table, publish it as a dataset, and return the race."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    published = publish(setting, "ingest", data)
    rounds = BOOST_ROUNDS[setting.size]
    job = published.job(threads=setting.cores, rounds=rounds)

    def ours(trainer: str) -> Contender:
        name = f"arclight-{trainer}"
        body = {
            **spark_params(setting),
            "scratch": str(scratch_for(setting, "ingest", name)),
            "store": str(published.store),
            "dataset": published.ref,
            "spec": ingest_job.spec_body(data, INGEST_CATEGORIES, trainer, rounds),
        }
        note = "train_model: one Ray worker, hashes checked, model published"
        return Contender(name=name, module=OURS, params=body, note=note)

    def peer(name: str, module: str, note: str, env: dict[str, str] | None = None) -> Contender:
        scratch = str(scratch_for(setting, "ingest", name))
        body = {"scratch": scratch, "job": job, "lane": name.removeprefix("raw-")}
        most = SLOW_ROUNDS if env else None
        return Contender(
            name=name, module=module, params=body, env=env or {}, note=note, rounds=most
        )

    documented = "benchmarks.peers.ray_documented"
    boosters, fast = ("arclight-xgboost", "arclight-lightgbm"), {**RAY_STOCK, **POLL}
    return Race(
        name="ingest",
        metric="seconds from call to return, Parquet to saved model, cluster up, page cache warm",
        contenders=(
            ours("xgboost"),
            peer("raw-xgboost", RAW, "pyarrow and xgb.train in one process"),
            ours("lightgbm"),
            peer("raw-lightgbm", RAW, "pyarrow and lgb.train in one process, its defaults"),
            peer("ray-documented", documented, "2 workers x 1 CPU, Ray's defaults", RAY_STOCK),
            peer("ray-poll-0.1", documented, "the same, undocumented poll of 0.1 s", fast),
        ),
        comparisons=(
            Comparison(ours=boosters[0], peer="raw-xgboost", target=NEAR_RAW),
            Comparison(ours=boosters[0], peer="ray-documented", target=3.8, floor=3.0),
            Comparison(ours=boosters[0], peer="ray-poll-0.1", target=1.9, floor=1.6, quick=False),
            Comparison(ours=boosters[1], peer="raw-lightgbm", target=NEAR_RAW),
        ),
        judge=functools.partial(judge, allowed=AUC_GAP[setting.size]),
        about={
            "rows": published.rows["train"],
            "boost_rounds": rounds,
            "warm_up": f"the same job with {ingest_job.WARM_ROUNDS} boosting rounds",
            "data_digest": content_digest(data),
        },
    )


def judge(
    ours: Facts, theirs: Facts, *, allowed: float = AUC_GAP["full"], split: str = "test"
) -> Verdict:
    """Compare the AUC on the same rows of a split."""
    gap = abs(ours["auc"] - theirs["auc"])
    seen = (
        f"AUC {ours['auc']:.5f} against {theirs['auc']:.5f} on {theirs['rows']:,} {split} rows, "
        f"difference {gap:.1e}"
    )
    return Verdict(holds=gap <= allowed and ours["rows"] == theirs["rows"], seen=seen)
