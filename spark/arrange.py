"""Rows to partitions: equal keys together and in order, the same way on every cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame

PARTITION_BYTES = 32 << 20
MIN_PARTITIONS = 4
MAX_PARTITIONS = 4096
SMALL_BYTES = 1 << 20
UNKNOWN_PARTITIONS = 32
MOST_HASHED = 500
"""Columns that are hashed at once: with thousands Spark's planner has no stack for them."""


def partition_count(source_bytes: int | None) -> int:
    """Return how many partitions, from the sources' bytes alone.

    The count decides the files, so it must not depend on the cluster: the same sources give the
    same files on any number of cores.
    """
    if source_bytes is None:
        return UNKNOWN_PARTITIONS
    if source_bytes < SMALL_BYTES:
        return 1
    return max(MIN_PARTITIONS, min(MAX_PARTITIONS, -(-source_bytes // PARTITION_BYTES)))


def arrange(table: DataFrame, key: Sequence[str], partitions: int) -> DataFrame:
    """Bring rows of one key into one partition, next to each other.

    Without a key, rows are arranged by a hash of the whole row and then by every column, so that
    equal rows meet. The order inside a partition is total up to rows that are equal (or, with a
    key, share it), which makes every file's bytes repeatable.
    """
    if key:
        columns = [_column(name) for name in key]
        return table.repartition(partitions, *columns).sortWithinPartitions(*columns)
    columns = [_plain_zero(field) for field in table.schema.fields]
    digest = _digest(columns)
    return table.repartition(partitions, digest).sortWithinPartitions(digest, *columns)


def _digest(columns: Sequence[Column]) -> Column:
    """Return a hash of all columns; of many, a hash of the hashes of their parts."""
    while len(columns) > MOST_HASHED:
        starts = range(0, len(columns), MOST_HASHED)
        columns = [F.xxhash64(*columns[start : start + MOST_HASHED]) for start in starts]
    return F.xxhash64(*columns)


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")


def _plain_zero(field: T.StructField) -> Column:
    """Return the column with -0.0 as 0.0: they are equal in the row digest, so must meet."""
    column = _column(field.name)
    if isinstance(field.dataType, T.FloatType | T.DoubleType):
        return column + F.lit(0.0).cast(field.dataType)
    return column
