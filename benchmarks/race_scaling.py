"""Race `scaling`: the same training on 1, 2 and 4 workers of two fifths of a core each."""

from __future__ import annotations

import functools
from typing import Any

from benchmarks.contender import Contender
from benchmarks.crew import SHARE
from benchmarks.data import content_digest, prepared, training_table
from benchmarks.harness import Comparison, Facts, Race, Verdict
from benchmarks.published import publish
from benchmarks.setting import Setting, scratch_for

ROWS = {"full": 1_000_000, "quick": 125_000, "tiny": 12_500}
BOOST_ROUNDS = {"full": 40, "quick": 20, "tiny": 3}
WORKERS = (1, 2, 4)
EFFICIENCY = {2: 0.95, 4: 0.90}
GAP = {"full": 1e-3, "quick": 2e-3, "tiny": 5e-2}


def make_race(setting: Setting) -> Race:
    """Generate the table, publish it as a dataset, and return the race."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    published = publish(setting, "scaling", data)
    rounds = BOOST_ROUNDS[setting.size]

    def contender(name: str, module: str, **params: Any) -> Contender:
        body = {"scratch": str(scratch_for(setting, "scaling", name)), **params}
        return Contender(name=name, module=module, params=body, env={"OMP_NUM_THREADS": "1"})

    made, comparisons = [], []
    for trainer in ("xgboost", "lightgbm"):
        for workers in WORKERS:
            name = f"arclight-{trainer}-{workers}"
            made.append(
                contender(
                    name,
                    "benchmarks.ours.gang",
                    workers=workers,
                    trainer=trainer,
                    rounds=rounds,
                    store=str(published.store),
                    dataset=published.ref,
                )
            )
            if workers > 1:
                alone, target = f"arclight-{trainer}-1", workers * EFFICIENCY[workers]
                comparisons.append(Comparison(ours=name, peer=alone, target=target))
    for workers in WORKERS:
        job = published.job(threads=1, rounds=rounds)
        name = f"raw-xgboost-{workers}"
        made.append(contender(name, "benchmarks.peers.raw_gang", workers=workers, job=job))
        comparisons.append(Comparison(ours=f"arclight-xgboost-{workers}", peer=name))
    return Race(
        name="scaling",
        metric=f"seconds from call to return, workers of {SHARE} of a core up and warm",
        contenders=tuple(made),
        comparisons=tuple(comparisons),
        judge=functools.partial(judge, allowed=GAP[setting.size]),
        about={
            "rows": published.rows["train"],
            "boost_rounds": rounds,
            "warm_up": "the same job with 2 boosting rounds",
            "data_digest": content_digest(data),
        },
    )


def judge(ours: Facts, theirs: Facts, *, allowed: float) -> Verdict:
    """Compare the log loss over the valid rows of all workers."""
    gap = abs(ours["log_loss"] - theirs["log_loss"])
    seen = (
        f"log loss {ours['log_loss']:.5f} against {theirs['log_loss']:.5f}, difference {gap:.1e}"
    )
    return Verdict(holds=gap <= allowed, seen=seen)
