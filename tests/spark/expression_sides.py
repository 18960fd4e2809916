"""The Arrow evaluator held against Spark, many expressions in one select."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql.classic.dataframe import DataFrame

from arclight.expression import compile_expression
from tests.spark.expression_grammar import CLOSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

# Rules that may drop a failing part before it is evaluated: the evaluator knows no optimizer.
OPTIMIZER = "org.apache.spark.sql.catalyst.optimizer."
EXCLUDED = [
    "BooleanSimplification",
    "ConstantFolding",
    "ConstantPropagation",
    "FoldablePropagation",
    "NullDownPropagation",
    "NullPropagation",
    "OptimizeIn",
    "PushFoldableIntoBranches",
    "ReorderAssociativeOperator",
    "ReplaceNullWithFalseInPredicate",
    "SimplifyBinaryComparison",
    "SimplifyConditionals",
    "UnwrapCastInBinaryComparison",
]
EXACT = {
    "spark.sql.optimizer.excludedRules": ",".join(OPTIMIZER + name for name in EXCLUDED),
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.subexpressionElimination.enabled": "false",
    # java.sql.Date knows no 1582-10-10
    "spark.sql.datetime.java8API.enabled": "true",
}


@contextmanager
def settings_of(session: SparkSession, values: dict[str, str]) -> Iterator[None]:
    before = {key: session.conf.get(key, None) for key in values}
    for key, value in values.items():
        session.conf.set(key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                session.conf.unset(key)
            else:
                session.conf.set(key, value)


class Sides:
    """Spark's answers for a batch, asked for many expressions at once."""

    def __init__(self, session: SparkSession, batch: pa.RecordBatch) -> None:
        self.batch = batch
        numbered = batch.append_column("row_", pa.array(range(batch.num_rows), pa.int32()))
        sent = session.createDataFrame(pa.Table.from_batches([numbered]))._jdf
        # rows held by the driver are computed by the optimizer: a question costs no job
        local = session._jsparkSession.createDataFrame(sent.collectAsList(), sent.schema())
        self.frame = DataFrame(local, session)

    def values(self, texts: list[str], invalid: list[np.ndarray | None]) -> list[pa.Array | str]:
        """Return Spark's values, null in the rows called invalid, or what Spark says instead."""
        guarded = [self._guarded(*pair) for pair in zip(texts, invalid, strict=True)]
        found = self._select(guarded)
        if not isinstance(found, str):
            return [found.column(i).combine_chunks() for i in range(len(texts))]
        alone = [self._select([text]) for text in guarded]
        return [one if isinstance(one, str) else one.column(0).combine_chunks() for one in alone]

    def _guarded(self, text: str, invalid: np.ndarray | None) -> str:
        if invalid is None:
            return f"({text})"
        rows = ", ".join(str(row) for row in np.flatnonzero(invalid))
        return f"CASE WHEN row_ NOT IN ({rows}) THEN ({text}) END"

    def _select(self, texts: list[str]) -> pa.Table | str:
        columns = [f"{text} AS c{i}" for i, text in enumerate(texts)]
        try:
            return self.frame.selectExpr("row_", *columns).toArrow().sort_by("row_").drop("row_")
        except PySparkException as error:
            return str(error).splitlines()[0][:200]

    def raises(self, text: str, row: int) -> bool:
        """Whether Spark raises for one row alone."""
        try:
            self.frame.where(f"row_ = {row}").selectExpr(f"({text}) AS c").collect()
        except PySparkException:
            return True
        return False


def differences(session: SparkSession, batch: pa.RecordBatch, texts: list[str]) -> list[str]:
    sides = Sides(session, batch)
    ours = [compile_expression(text, batch.schema).evaluate(batch) for text in texts]
    invalid = [
        None if one.invalid is None else one.invalid.to_numpy(zero_copy_only=False) for one in ours
    ]
    found = []
    for text, one, bad, theirs in zip(
        texts, ours, invalid, sides.values(texts, invalid), strict=True
    ):
        if isinstance(theirs, str):
            found.append(f"{text}: Spark raised in rows called valid: {theirs}")
            continue
        found += [f"{text}: {line}" for line in unequal(batch, text, one.values, theirs)]
        if bad is not None and not sides.raises(text, int(np.flatnonzero(bad)[0])):
            row = batch.slice(int(np.flatnonzero(bad)[0]), 1).to_pylist()
            found.append(f"{text}: Spark did not raise for {row}")
    return found


def unequal(batch: pa.RecordBatch, text: str, ours: pa.Array, theirs: pa.Array) -> Iterator[str]:
    if ours.type != theirs.type:
        yield f"type {ours.type}, Spark's is {theirs.type}"
        return
    if pa.types.is_temporal(ours.type):
        whole = pa.int32() if ours.type == pa.date32() else pa.int64()
        ours, theirs = ours.cast(whole), theirs.cast(whole)
    tolerance = 1e-14 if any(text.startswith(form[: form.index("(") + 1]) for form in CLOSE) else 0
    for row, (left, right) in enumerate(zip(ours.to_pylist(), theirs.to_pylist(), strict=True)):
        if not same(left, right, tolerance):
            yield f"{left!r}, Spark says {right!r} for {batch.slice(row, 1).to_pylist()}"
            return


def same(left: object, right: object, tolerance: float) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        if tolerance and math.isfinite(left):
            return math.isclose(left, right, rel_tol=tolerance, abs_tol=1e-300)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right
