"""The `etl` job as a PySpark script: the usual way, and the same with care.

Both do what the race asks: join, repeated keys, labels, rules with counts, quarantine, derived
features, splits as Parquet, quantiles, moments and vocabularies of train, a report beside the
files. Neither hashes its files, summarises the other splits or accounts for every row.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation, Window
from pyspark.sql import functions as F

from benchmarks import etl_job as job
from benchmarks.peers.spark_start import started
from benchmarks.peers.spark_statistics import one_pass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import Column, DataFrame, SparkSession

PROBABILITIES = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
RELATIVE_ERROR = 0.001


class SparkEtl:
    """A script over the raw tables; subclasses differ in how they pass over the joined rows."""

    def __init__(self, session: SparkSession, params: dict[str, Any]) -> None:
        self.session = session
        self._data, self._scratch = Path(params["data"]), Path(params["scratch"])

    def ready(self, number: int) -> None:
        """Remove the last round's output."""
        shutil.rmtree(self._output(number - 1), ignore_errors=True)

    def run(self, number: int) -> Path:
        """Build the dataset and write its report."""
        output = self._output(number)
        output.mkdir()
        report = self.build(self._judged(), output)
        (output / "report.json").write_text(json.dumps(report, default=str), encoding="utf-8")
        return output

    def build(self, judged: DataFrame, output: Path) -> dict[str, Any]:
        """Write the splits and the quarantine and return what the report holds."""
        raise NotImplementedError

    def facts(self, result: Path) -> dict[str, Any]:
        """Return rows and sums of the written files."""
        files = {split: sorted(map(str, self.folder(result, split).glob("*.parquet")))
                 for split in job.SPLITS}  # fmt: skip
        quarantine = self.session.read.parquet(str(self.folder(result, "quarantine"))).count()
        return job.output_facts(files, quarantine)

    def folder(self, output: Path, split: str) -> Path:
        """Return where a split's files are."""
        return output / split

    def _output(self, number: int) -> Path:
        return self._scratch / f"output-{number}"

    def _judged(self) -> DataFrame:
        """Return the joined rows with features, a split, and the reasons against each row."""
        for name in job.TABLES:
            self.session.read.parquet(str(self._data / name)).createOrReplaceTempView(name)
        rows = self.session.sql(job.SQL)
        repeats = F.count(F.lit(1)).over(Window.partitionBy(*job.KEY))
        rows = rows.withColumn("repeats", repeats)
        rows = rows.withColumn("reasons", F.filter(F.array(*_reasons()), lambda r: r.isNotNull()))
        return rows.withColumn("split", _split())


def stored_columns() -> list[Column]:
    """Return the columns of a split: key, time, label, features."""
    numbers = [F.col(name).cast("float").alias(name) for name in job.PLAIN_NUMBERS]
    derived = [F.expr(e).cast("float").alias(name) for name, e in job.DERIVED.items()]
    return [
        *map(F.col, (*job.KEY, job.TIME)),
        F.col(job.LABEL).cast("double").alias(job.LABEL),
        *map(F.col, job.CATEGORIES),
        *numbers,
        *derived,
    ]


def _reasons() -> list[Column]:
    broken = {name: ~F.coalesce(F.expr(rule), F.lit(False)) for name, rule in job.RULES.items()}
    key_null = F.expr(" or ".join(f"{name} is null" for name in job.KEY))
    broken |= {"key_null": key_null, "key_repeated": F.col("repeats") > 1}
    broken |= {"label_null": F.col(job.LABEL).isNull(), "time_null": F.col(job.TIME).isNull()}
    return [F.when(condition, F.lit(name)) for name, condition in broken.items()]


def _split() -> Column:
    time = F.col(job.TIME)
    is_valid = time >= F.lit(job.VALID_FROM).cast("timestamp")
    is_test = time >= F.lit(job.TEST_FROM).cast("timestamp")
    split = F.when(is_test, "test").when(is_valid, "valid").otherwise("train")
    return F.when(F.size("reasons") > 0, "quarantine").otherwise(split)


def _counts() -> list[Column]:
    names = [*job.RULES, "key_null", "key_repeated", "label_null", "time_null"]
    return [
        F.count(F.lit(1)).alias("rows"),
        *(F.count_if(F.array_contains("reasons", name)).alias(name) for name in names),
    ]


class Plain(SparkEtl):
    """The usual way: cache the joined rows, one action per question."""

    def build(self, judged: DataFrame, output: Path) -> dict[str, Any]:
        """Count, write each part, then fit on train as the documentation of each call shows."""
        judged = judged.cache()
        counts = judged.agg(*_counts()).first()
        bad = judged.where(F.col("split") == "quarantine").drop("split", "repeats")
        bad.write.parquet(str(output / "quarantine"))
        for split in job.SPLITS:
            part = judged.where(F.col("split") == split).select(*stored_columns())
            part.write.parquet(str(output / split))
        judged.unpersist()
        train = self.session.read.parquet(str(output / "train"))
        quantiles = train.approxQuantile(list(job.NUMBERS), PROBABILITIES, RELATIVE_ERROR)
        moments = train.select(*job.NUMBERS).summary("count", "mean", "stddev", "min", "max")
        levels = {
            name: train.groupBy(name).count().where(F.col("count") >= job.MIN_COUNT)
            .orderBy(F.desc("count")).limit(job.MAX_LEVELS).collect()
            for name in job.CATEGORIES
        }  # fmt: skip
        return {
            "counts": counts.asDict() if counts is not None else {},
            "quantiles": dict(zip(job.NUMBERS, quantiles, strict=True)),
            "moments": [row.asDict() for row in moments.collect()],
            "levels": {name: [tuple(row) for row in found] for name, found in levels.items()},
        }


class Tuned(SparkEtl):
    """With care: one pass writes every part and counts, a second one over train fits it all."""

    def build(self, judged: DataFrame, output: Path) -> dict[str, Any]:
        """Write once by split with the counts observed on the way, then one aggregate."""
        seen = Observation("rules")
        rows = judged.observe(seen, *_counts())
        rows = rows.select(*stored_columns(), "reasons", "split")
        rows.write.partitionBy("split").parquet(str(output / "parts"))
        train = self.session.read.parquet(str(self.folder(output, "train")))
        fitted = one_pass(train, job.NUMBERS, job.CATEGORIES, PROBABILITIES)
        return {"counts": seen.get, **fitted}

    def folder(self, output: Path, split: str) -> Path:
        """Return where a split's files are."""
        return output / "parts" / f"split={split}"


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[SparkEtl]:
    """Start Spark; `lane` says which way."""
    is_tuned = params["lane"] == "tuned"
    with started(params, is_tuned=is_tuned) as session:
        yield (Tuned if is_tuned else Plain)(session, params)
