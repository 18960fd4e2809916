"""Rows to a function of Arrow batches in Spark's workers, whatever their columns are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.disk import disk_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame

    Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def map_in_arrow(table: DataFrame, work: Work, result: str) -> DataFrame:
    """Run a function over each partition's batches; a full disk is told as such.

    Args:
        table: rows; columns may have any distinct names.
        work: takes batches with the table's names and yields the results.
        result: the results' columns, as Spark writes them.
    """
    names = table.columns
    # Spark looks each column up by name again, where a dot or a backtick means something
    by_place = table.toDF(*(f"c{place}" for place in range(len(names))))

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from work(batch.rename_columns(names) for batch in batches)
        except OSError as error:
            told = disk_full(error)
            if told is None:
                raise
            raise told from error

    return by_place.mapInArrow(run, result)
