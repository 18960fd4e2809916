"""Race `etl`: star join and 32 features to a dataset, against a PySpark script of the same job."""

from __future__ import annotations

import math

from benchmarks import etl_job
from benchmarks.contender import Contender
from benchmarks.data import content_digest, prepared, star_schema
from benchmarks.harness import Comparison, Facts, Race, Verdict
from benchmarks.setting import Setting, scratch_for, spark_params

ROWS = {"full": 4_000_000, "quick": 100_000, "tiny": 20_000}
RELATIVE = 1e-6


def make_race(setting: Setting) -> Race:
    """Generate the tables and return the race."""
    rows = ROWS[setting.size]
    data = prepared(setting.data, star_schema, rows)
    peer = "benchmarks.peers.spark_etl"

    def contender(name: str, module: str, note: str, **params: object) -> Contender:
        scratch = scratch_for(setting, "etl", name)
        body = {**spark_params(setting), "scratch": str(scratch), **params}
        return Contender(name=name, module=module, params=body, note=note, sleeps=False)

    return Race(
        name="etl",
        metric="seconds from call to return, Spark started and warm, page cache warm",
        contenders=(
            contender(
                "arclight",
                "benchmarks.ours.etl",
                "build_dataset: also summaries of every split, row ledger, hashes, fsync",
                spec=etl_job.spec_body(data),
            ),
            contender(
                "pyspark-plain",
                peer,
                "cache(), an action per question, Spark's defaults",
                lane="plain",
                data=str(data),
            ),
            contender(
                "pyspark-tuned",
                peer,
                "one write with observe(), then one KLL aggregate over train",
                lane="tuned",
                data=str(data),
            ),
        ),
        comparisons=(
            Comparison(ours="arclight", peer="pyspark-plain", target=2.0, floor=1.5),
            Comparison(ours="arclight", peer="pyspark-tuned"),
        ),
        judge=judge,
        about={"rows": rows, "data_digest": content_digest(data)},
    )


def judge(ours: Facts, theirs: Facts) -> Verdict:
    """Compare rows of every part, and the sums and nulls of every number."""
    if ours["rows"] != theirs["rows"]:
        return Verdict(holds=False, seen=f"rows {ours['rows']} against {theirs['rows']}")
    worst, where = 0.0, "none"
    for name, (total, size, nulls) in ours["sums"].items():
        other, _, other_nulls = theirs["sums"][name]
        gap = abs(total - other) / (size or 1.0) if nulls == other_nulls else math.inf
        if not gap <= worst:  # NaN too
            gap = math.inf if math.isnan(gap) else gap
            worst, where = gap, name
    seen = f"rows equal {ours['rows']}; largest relative difference of a sum {worst:.1e} ({where})"
    return Verdict(holds=worst <= RELATIVE, seen=seen)
