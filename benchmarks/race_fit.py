"""Race `fit`: quantiles, moments and vocabularies of 40 columns, against Spark ML and others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.contender import Contender
from benchmarks.data import content_digest, prepared, wide_table
from benchmarks.harness import Comparison, Facts, Race, Verdict
from benchmarks.setting import Setting, scratch_for, spark_params

if TYPE_CHECKING:
    from collections.abc import Iterable

ROWS = {"full": 4_000_000, "quick": 400_000, "tiny": 20_000}
RANK_ERROR = 0.005
MOMENT_ERROR = 1e-5
OURS, SPARK_LANES = "benchmarks.ours.fit", "benchmarks.peers.spark_fit"


def make_race(setting: Setting) -> Race:
    """Generate the table and return the race."""
    rows = ROWS[setting.size]
    data = prepared(setting.data, wide_table, rows) / "wide"

    def contender(name: str, module: str, lane: str, note: str, **env: str) -> Contender:
        scratch = str(scratch_for(setting, "fit", name))
        body = {**spark_params(setting), "scratch": scratch, "data": str(data), "lane": lane}
        return Contender(name=name, module=module, params=body, env=env, note=note, sleeps=False)

    return Race(
        name="fit",
        metric="seconds from call to return, engine started and warm, page cache warm",
        contenders=(
            contender("arclight-spark", OURS, "spark", "fit_files in Spark's Python workers"),
            contender(
                "arclight-processes",
                OURS,
                "processes",
                "the same tasks in two processes of one thread, no Spark",
                OMP_NUM_THREADS="1",
                OPENBLAS_NUM_THREADS="1",
            ),
            contender("spark-ml", SPARK_LANES, "ml", "Pipeline.fit, Spark's defaults"),
            contender("spark-kll", SPARK_LANES, "kll", "two SQL aggregates, KLL with k 2000"),
            contender("polars", "benchmarks.peers.polars_fit", "", "exact quantiles by sorting"),
        ),
        comparisons=(
            Comparison(ours="arclight-spark", peer="spark-ml", target=8.0, floor=4.0),
            Comparison(ours="arclight-processes", peer="spark-ml", target=8.0, floor=4.0),
            Comparison(ours="arclight-spark", peer="spark-kll"),
            Comparison(ours="arclight-spark", peer="polars"),
            Comparison(ours="arclight-processes", peer="polars", target=1.0),
        ),
        judge=judge,
        about={"rows": rows, "data_digest": content_digest(data)},
    )


def judge(ours: Facts, theirs: Facts) -> Verdict:
    """Hold both sides' medians against the data's ranks, and compare moments and levels."""
    worst_rank = max(
        _rank_error(low, high) for side in (ours, theirs) for low, high in side["ranks"].values()
    )
    worst_mean = _largest(
        abs(mean - theirs["means"][name]) / ours["stds"][name]
        for name, mean in ours["means"].items()
    )
    worst_std = _largest(abs(std / theirs["stds"][name] - 1) for name, std in ours["stds"].items())
    levels = ours["levels"] == theirs["levels"]
    seen = (
        f"largest rank error of a median {worst_rank:.4f}; means differ by {worst_mean:.1e} "
        f"deviations, deviations by {worst_std:.1e}; levels {'equal' if levels else 'DIFFER'}"
    )
    exact = max(worst_mean, worst_std) <= MOMENT_ERROR
    holds = worst_rank <= RANK_ERROR and exact and levels
    return Verdict(holds=holds, seen=seen)


def _largest(gaps: Iterable[float]) -> float:
    """Return the largest gap, infinite when one is NaN, which `max` may pass over."""
    return max(math.inf if math.isnan(gap) else gap for gap in gaps)


def _rank_error(below: float, up_to: float) -> float:
    """Return how far 0.5 is outside the ranks that a value covers."""
    return max(0.0, below - 0.5, 0.5 - up_to)
