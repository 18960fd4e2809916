"""Joined rows as Parquet files for a scorer, filtered by the one evaluator."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext

from arclight.errors import DataError
from arclight.expression import compile_expression
from arclight.output import made_beside, take_name
from cluster.spark_errors import JVM_ERRORS
from spark.badrecord import explain_rows
from spark.etl_plan import refuse_changed
from spark.inarrow import map_in_arrow
from spark.watch import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame

    from arclight.progress import Tick
    from spark.etl_plan import EtlPlan

RESULT = pa.schema([("file", pa.string()), ("rows", pa.int64())])


def write_rows(
    table: DataFrame,
    schema: pa.Schema,
    output: Path,
    *,
    plan: EtlPlan,
    where: str | None,
    tick: Tick,
) -> int:
    """Write a table's rows below a folder that appears when all of them are there.

    Args:
        table: rows with raw types.
        schema: their raw schema.
        output: the folder to make; must not exist.
        plan: whose sources the rows come from.
        where: a row expression; rows for which it is not true are left out.
        tick: told how many tasks are done.

    Returns:
        The rows written.

    Raises:
        DataError: a row could not be read, the condition has no answer for it, or a source
            changed meanwhile.
        SpecError: the condition does not fit the columns, or the folder cannot be made.
        ConflictError: somebody else made it meanwhile.
    """
    if where is not None:
        compile_expression(where, schema)
    with made_beside(output) as staged:
        try:
            with watched(table.sparkSession, tick):
                found = map_in_arrow(
                    table, _task(schema, str(staged), where), "file string, rows long"
                ).collect()
        except JVM_ERRORS as error:
            raise explain_rows(error, "the rows could not be read") from error
        kept = {row["file"] for row in found}
        for file in staged.iterdir():
            if file.name not in kept:
                file.unlink()  # an attempt of a task that did not count
        refuse_changed(plan)
        take_name(staged, output)
    return sum(row["rows"] for row in found)


def _task(schema: pa.Schema, folder: str, where: str | None) -> Any:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        condition = compile_expression(where, schema) if where is not None else None
        context = TaskContext.get()
        partition = context.partitionId() if context is not None else 0
        name = f"part-{partition:05d}-{uuid.uuid4().hex[:8]}.parquet"
        rows = 0
        with pq.ParquetWriter(Path(folder) / name, schema, compression="zstd") as writer:
            for batch in batches:
                kept = batch
                if condition is not None:
                    found = condition.evaluate(batch)
                    if found.invalid is not None:
                        raise DataError(f"the condition '{where}' fails for a row; use TRY_CAST.")
                    kept = batch.filter(found.values)
                writer.write_batch(kept.cast(schema))
                rows += kept.num_rows
        yield pa.record_batch([[name], [rows]], schema=RESULT)

    return run
