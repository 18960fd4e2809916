"""The `fit` job in Spark: the ML pipeline of the documentation, and two SQL aggregates."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyspark.ml import Pipeline
from pyspark.ml.feature import (
    Imputer,
    QuantileDiscretizer,
    StandardScaler,
    StringIndexer,
    VectorAssembler,
)
from pyspark.sql import functions as F

from benchmarks.data import FIT_CATEGORIES, FIT_NUMBERS
from benchmarks.fit_job import PROBABILITIES, fit_facts
from benchmarks.peers.spark_start import started
from benchmarks.peers.spark_statistics import one_pass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.ml import PipelineModel
    from pyspark.sql import SparkSession

RELATIVE_ERROR = 0.001


class MlPipeline:
    """Imputer (median), StandardScaler, QuantileDiscretizer and StringIndexer in one Pipeline."""

    def __init__(self, session: SparkSession, data: str) -> None:
        self._session, self._data = session, data

    def ready(self, number: int) -> None:
        """Nothing is left by a round."""

    def run(self, number: int) -> PipelineModel:  # noqa: ARG002 -- every round is the same
        """Fit."""
        numbers, categories = list(FIT_NUMBERS), list(FIT_CATEGORIES)
        filled = [f"{name}_filled" for name in numbers]
        stages = [
            Imputer(
                strategy="median",
                inputCols=numbers,
                outputCols=filled,
                relativeError=RELATIVE_ERROR,
            ),
            VectorAssembler(inputCols=filled, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
            QuantileDiscretizer(
                numBuckets=len(PROBABILITIES) + 1,
                inputCols=filled,
                outputCols=[f"{name}_bucket" for name in numbers],
                relativeError=RELATIVE_ERROR,
            ),
            StringIndexer(
                inputCols=categories,
                outputCols=[f"{name}_code" for name in categories],
                handleInvalid="keep",
            ),
        ]
        return Pipeline(stages=stages).fit(self._session.read.parquet(self._data))

    def facts(self, result: PipelineModel) -> dict[str, Any]:
        """Return the fitted stages' numbers, as they would be without the filled rows."""
        imputer, _, scaler, _, indexer = result.stages
        medians = imputer.surrogateDF.first().asDict()
        table = self._session.read.parquet(self._data)
        known = table.agg(*(F.count(name).alias(name) for name in FIT_NUMBERS)).first().asDict()
        rows = table.count()
        moments = {
            name: _unfilled(float(mean), float(std), medians[name], known[name], rows)
            for name, mean, std in zip(FIT_NUMBERS, scaler.mean, scaler.std, strict=True)
        }
        return fit_facts(
            self._data,
            medians=medians,
            means={name: found[0] for name, found in moments.items()},
            stds={name: found[1] for name, found in moments.items()},
            levels=dict(zip(FIT_CATEGORIES, map(len, indexer.labelsArray), strict=True)),
        )


def _unfilled(
    mean: float, std: float, median: float, known: int, rows: int
) -> tuple[float, float]:
    """Return mean and deviation (over n) of the known values, from those (over n - 1) of all."""
    filled = rows - known
    total = mean * rows - median * filled
    squares = std**2 * (rows - 1) + mean**2 * rows - median**2 * filled
    return total / known, math.sqrt(squares / known - (total / known) ** 2)


class SqlAggregates:
    """KLL sketches, moments and levels, as `spark_statistics` computes them."""

    def __init__(self, session: SparkSession, data: str) -> None:
        self._session, self._data = session, data

    def ready(self, number: int) -> None:
        """Nothing is left by a round."""

    def run(self, number: int) -> dict[str, Any]:  # noqa: ARG002 -- every round is the same
        """Fit."""
        table = self._session.read.parquet(self._data)
        return one_pass(table, FIT_NUMBERS, FIT_CATEGORIES, PROBABILITIES)

    def facts(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the aggregates' numbers."""
        middle = PROBABILITIES.index(0.5)
        return fit_facts(
            self._data,
            medians={name: found[middle] for name, found in result["quantiles"].items()},
            means={name: found["mean"] for name, found in result["moments"].items()},
            stds={name: found["std"] for name, found in result["moments"].items()},
            levels={name: len(found) for name, found in result["levels"].items()},
        )


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[MlPipeline | SqlAggregates]:
    """Start Spark; `lane` says which way."""
    if params["lane"] == "ml":
        with started(params, is_tuned=False) as session:
            yield MlPipeline(session, params["data"])
    else:
        with started(params, is_tuned=True) as session:
            yield SqlAggregates(session, params["data"])
