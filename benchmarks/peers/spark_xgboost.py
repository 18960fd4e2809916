"""XGBoost on Spark as its documentation shows it: `SparkXGBClassifier` over a vector.

Categories become codes by `StringIndexer`; two tasks of one core.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.ml.feature import StringIndexer, VectorAssembler
from pyspark.sql import functions as sf
from xgboost.spark import SparkXGBClassifier

from benchmarks.ingest_job import LABEL, PARAMS, Job, test_facts, with_codes
from benchmarks.peers.spark_start import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    import xgboost as xgb
    from pyspark.sql import DataFrame, SparkSession

WORKERS = 2
IS_VALID = "is_valid"


class SparkXgboost:
    """One estimator a round, in a session that stays up."""

    def __init__(self, session: SparkSession, job: Job, scratch: Path) -> None:
        self._session, self._job, self._scratch = session, job, scratch

    def ready(self, number: int) -> None:
        """Models are overwritten."""

    def run(self, number: int) -> xgb.Booster:
        """Read, index, train, save."""
        job = self._job.of_round(number)
        codes = {name: f"{name}_code" for name in job.levels}
        rows = self._rows("train", 0).unionByName(self._rows("valid", 1))
        indexer = StringIndexer(
            inputCols=list(codes),
            outputCols=list(codes.values()),
            stringOrderType="alphabetAsc",
            handleInvalid="keep",
        )
        # as a vector: by a list of columns, a batch without a valid row ends in a KeyError
        features = [*job.numbers, *codes.values()]
        vector = VectorAssembler(inputCols=features, outputCol="features", handleInvalid="keep")
        coded = vector.transform(indexer.fit(rows).transform(rows))
        estimator = SparkXGBClassifier(
            features_col="features",
            label_col=LABEL,
            validation_indicator_col=IS_VALID,
            num_workers=WORKERS,
            n_estimators=job.rounds,
            eval_metric="auc",
            tree_method="hist",
            random_state=job.seed,
            feature_types=["q"] * len(job.numbers) + ["c"] * len(codes),
            **PARAMS["xgboost"],
        )
        booster = estimator.fit(coded).get_booster()
        booster.save_model(self._scratch / "model.ubj")
        return booster

    def facts(self, result: xgb.Booster) -> dict[str, Any]:
        """Return the AUC on the test rows."""

        def score(table: pa.Table) -> Any:
            coded = with_codes(self._job, table)
            columns = [coded.column(n).to_numpy().astype(np.float32) for n in self._job.features]
            return result.inplace_predict(np.stack(columns, 1), validate_features=False)

        return test_facts(self._job, score)

    def _rows(self, split: str, is_valid: int) -> DataFrame:
        job = self._job
        columns = [*job.numbers, *job.levels, sf.col(LABEL).cast("double").alias(LABEL)]
        read = self._session.read.parquet(*job.files[split]).select(*columns)
        return read.withColumn(IS_VALID, sf.lit(bool(is_valid)))


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[SparkXgboost]:
    """Start a session with Spark's defaults but cores and heap."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    with started(params, is_tuned=False) as session:
        yield SparkXgboost(session, Job(**params["job"]), Path(params["scratch"]))
