"""Race `torch`: the Parquet of a published dataset to a saved network, Ray up and warm."""

from __future__ import annotations

import functools

from benchmarks import ingest_job
from benchmarks.contender import Contender
from benchmarks.data import INGEST_CATEGORIES, content_digest, prepared, training_table
from benchmarks.harness import Comparison, Race
from benchmarks.published import publish
from benchmarks.race_ingest import judge
from benchmarks.setting import Setting, scratch_for, spark_params

ROWS = {"full": 500_000, "quick": 62_500, "tiny": 6_250}
EPOCHS = {"full": 6, "quick": 3, "tiny": 2}
AUC_GAP = {"full": 5e-3, "quick": 2e-2, "tiny": 2e-1}
"""Two networks that began with other weights differ by this much."""


def make_race(setting: Setting) -> Race:
    """Generate the table, publish it as a dataset, and return the race."""
    data = prepared(setting.data, training_table, ROWS[setting.size])
    published = publish(setting, "torch", data)
    epochs = EPOCHS[setting.size]
    ours = Contender(
        name="arclight-torch",
        module="benchmarks.ours.train",
        params={
            **spark_params(setting),
            "scratch": str(scratch_for(setting, "torch", "arclight-torch")),
            "store": str(published.store),
            "dataset": published.ref,
            "spec": ingest_job.spec_body(data, INGEST_CATEGORIES, "torch", epochs),
        },
        note="train_model: ranks learnt from train, hashes checked, model published",
    )
    peer = Contender(
        name="torch-dataloader",
        module="benchmarks.peers.torch_dataloader",
        params={
            "scratch": str(scratch_for(setting, "torch", "torch-dataloader")),
            "job": published.job(threads=setting.cores, rounds=epochs),
        },
        note="pyarrow, standardized numbers, TensorDataset, DataLoader(shuffle=True), AdamW",
    )
    return Race(
        name="torch",
        metric="seconds from call to return, Parquet to saved network, page cache warm",
        contenders=(ours, peer),
        comparisons=(Comparison(ours=ours.name, peer=peer.name, target=5.0),),
        judge=functools.partial(judge, allowed=AUC_GAP[setting.size]),
        about={
            "rows": published.rows["train"],
            "boost_rounds": epochs,
            "warm_up": f"the same job with {ingest_job.WARM_ROUNDS} epochs",
            "data_digest": content_digest(data),
        },
    )
