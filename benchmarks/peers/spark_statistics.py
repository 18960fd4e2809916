"""Quantiles, moments and vocabularies in Spark SQL with as few passes as it can: two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

# Rank error 2.296 / k**0.9723 = 0.14%, that of Arclight's sketch for some million rows; the
# default of 200 would be 1.3%.
SKETCH_K = 2000


def one_pass(
    table: DataFrame,
    numbers: Sequence[str],
    categories: Sequence[str],
    probabilities: Sequence[float],
) -> dict[str, Any]:
    """Return KLL quantiles and moments of numbers from one aggregate, and levels from another."""
    aggregates = []
    for name in numbers:
        aggregates += [
            F.kll_sketch_agg_float(name, SKETCH_K).alias(f"{name}|sketch"),
            F.mean(name).alias(f"{name}|mean"),
            F.stddev_pop(name).alias(f"{name}|std"),
            F.min(name).alias(f"{name}|min"),
            F.max(name).alias(f"{name}|max"),
            F.count(name).alias(f"{name}|count"),
        ]
    ranks = F.array(*(F.lit(p) for p in probabilities))
    folded = table.agg(*aggregates)
    columns = [
        F.kll_sketch_get_quantile_float(f"`{c}`", ranks).alias(c)
        if c.endswith("|sketch")
        else F.col(f"`{c}`")
        for c in folded.columns
    ]
    found = folded.select(*columns).collect()[0].asDict()
    stacked = ", ".join(f"'{name}', `{name}`" for name in categories)
    levels = (
        table.selectExpr(f"stack({len(categories)}, {stacked}) as (name, value)")
        .where("value is not null")
        .groupBy("name", "value")
        .count()
        .collect()
    )
    return {
        "quantiles": {name: list(found[f"{name}|sketch"]) for name in numbers},
        "moments": {
            name: {m: found[f"{name}|{m}"] for m in ("mean", "std", "min", "max", "count")}
            for name in numbers
        },
        "levels": _by_name(levels),
    }


def _by_name(rows: Sequence[Any]) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for name, value, count in rows:
        found.setdefault(name, []).append((value, count))
    return found
