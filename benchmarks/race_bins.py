"""Race `bins`: the Parquet of a published dataset to binned rows, time and memory, no engine."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks.contender import Contender
from benchmarks.data import content_digest, prepared, training_table
from benchmarks.harness import Comparison, Race
from benchmarks.published import publish
from benchmarks.race_ingest import judge

if TYPE_CHECKING:
    from benchmarks.setting import Setting

ROWS = {"full": 2_500_000, "quick": 250_000, "tiny": 12_500}
GATE_ROUNDS = {"full": 20, "quick": 20, "tiny": 3}
AUC_GAP = {"full": 5e-4, "quick": 5e-4, "tiny": 2e-2}
NEAR_RAW = 0.9
LIBRARIES = ("xgboost", "lightgbm")


def make_race(setting: Setting) -> Race:
    """Generate the table, publish it as a dataset, and return the race."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    published = publish(setting, "bins", data)
    rounds = GATE_ROUNDS[setting.size]
    job = published.job(threads=setting.cores, rounds=rounds)

    def ours(trainer: str, *, from_disk: bool = False) -> Contender:
        body = {
            "from_disk": from_disk,
            "store": str(published.store),
            "dataset": published.ref,
            "trainer": trainer,
            "rounds": rounds,
            "cores": setting.cores,
        }
        note = "read_shard and prepare, hashes checked"
        held = "as of many rows, a few row groups in memory at a time"
        return Contender(
            name=f"arclight-{trainer}{'-disk' * from_disk}",
            module="benchmarks.ours.bins",
            params=body,
            note=f"{note}; {held}" if from_disk else note,
        )

    def raw(lane: str) -> Contender:
        return Contender(
            name=f"raw-{lane}",
            module="benchmarks.peers.raw_bins",
            params={"job": job, "lane": lane},
            note="pyarrow reads a split as a table, which the library bins",
        )

    return Race(
        name="bins",
        metric="seconds from call to return, Parquet to binned train and valid, page cache warm",
        contenders=tuple(
            side
            for name in LIBRARIES
            for side in (ours(name), raw(name), ours(name, from_disk=True))
        ),
        comparisons=tuple(
            Comparison(ours=f"arclight-{name}{way}", peer=f"raw-{name}", target=target)
            for name in LIBRARIES
            for way, target in (("", NEAR_RAW), ("-disk", None))
        ),
        judge=functools.partial(judge, allowed=AUC_GAP[setting.size], split="valid"),
        about={
            "rows": published.rows["train"],
            "warm_up": "the same",
            "data_digest": content_digest(data),
        },
    )
