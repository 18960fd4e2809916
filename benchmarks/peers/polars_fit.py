"""The `fit` job in polars: one lazy query of exact quantiles and moments, one count a category."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from benchmarks.data import FIT_CATEGORIES, FIT_NUMBERS
from benchmarks.fit_job import PROBABILITIES, fit_facts

if TYPE_CHECKING:
    from collections.abc import Iterator


class PolarsFit:
    """Scans the files once for the numbers and once for the categories."""

    def __init__(self, data: str) -> None:
        self._data = data

    def ready(self, number: int) -> None:
        """Nothing is left by a round."""

    def run(self, number: int) -> dict[str, Any]:  # noqa: ARG002 -- every round is the same
        """Fit."""
        table = pl.scan_parquet(sorted(Path(self._data).glob("*.parquet")))
        wide = [pl.col(n).cast(pl.Float64) for n in FIT_NUMBERS]
        found = table.select(
            *(column.mean().name.suffix("|mean") for column in wide),
            *(column.std(ddof=0).name.suffix("|std") for column in wide),
            *(pl.col(n).sort().drop_nulls().implode().alias(f"{n}|sorted") for n in FIT_NUMBERS),
        )
        quantiles = found.select(
            pl.col("^.*\\|mean$"),
            pl.col("^.*\\|std$"),
            *(
                pl.col(f"{n}|sorted").list.gather(_places(n)).alias(f"{n}|quantiles")
                for n in FIT_NUMBERS
            ),
        )
        levels = [
            table.select(pl.col(name).drop_nulls().value_counts()).collect()
            for name in FIT_CATEGORIES
        ]
        return {"numbers": quantiles.collect().row(0, named=True), "levels": levels}

    def facts(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the query's numbers."""
        numbers, middle = result["numbers"], PROBABILITIES.index(0.5)
        return fit_facts(
            self._data,
            medians={n: numbers[f"{n}|quantiles"][middle] for n in FIT_NUMBERS},
            means={n: numbers[f"{n}|mean"] for n in FIT_NUMBERS},
            stds={n: numbers[f"{n}|std"] for n in FIT_NUMBERS},
            levels=dict(zip(FIT_CATEGORIES, map(len, result["levels"]), strict=True)),
        )


def _places(name: str) -> pl.Expr:
    """Return the places of the percentiles in a sorted column."""
    last = pl.col(f"{name}|sorted").list.len() - 1
    return pl.concat_list([(last * p).round().cast(pl.UInt32) for p in PROBABILITIES])


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[PolarsFit]:
    """Polars has no engine to start."""
    yield PolarsFit(params["data"])
