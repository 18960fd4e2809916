"""Sources to DataFrames, each under its contract, whatever wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, TimestampNTZType

from arclight.errors import DataError, MissingError, SchemaError
from arclight.schema import Column, SourceContract
from cluster.spark_errors import describe_spark_error
from spark.footers import Footers, read_footers

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from arclight.inputs import SourceFiles
    from arclight.spec import Source

# Rows that cannot be parsed must stop the run: PERMISSIVE makes nulls of them, silently.
_STRICT = {"csv": {"mode": "FAILFAST"}, "json": {"mode": "FAILFAST"}}


@dataclass(frozen=True)
class SourceTable:
    """A source as Spark reads it.

    Attributes:
        name: the view's name in SQL.
        table: the rows.
        contract: columns and types, nanosecond timestamps and zone-less ones already as UTC.
        rows: from the footers, None when only the scan will tell.
        counted: the observation that counts rows during the scan, None when `rows` is known.
    """

    name: str
    table: DataFrame
    contract: SourceContract
    rows: int | None
    counted: Observation | None

    def row_count(self) -> int:
        """Return the rows read; after the scan."""
        if self.rows is not None or self.counted is None:
            return self.rows or 0
        return int(self.counted.get.get("rows", 0))


def read_source(
    session: SparkSession, name: str, source: Source, files: SourceFiles
) -> SourceTable:
    """Open a source.

    Raises:
        DataError, SchemaError: a file is damaged, or files disagree.
        MissingError: Spark finds nothing at the path.
    """
    footers = _footers(name, source, files)
    reader = session.read.format(source.format).options(**_STRICT.get(source.format, {}))
    reader = reader.options(**{k: _option(v) for k, v in source.options.items()})
    if source.ddl is not None:
        reader = reader.schema(source.ddl)
    try:
        table = reader.load(_paths(files))
        schema = table.schema
    except PySparkException as error:
        raise _explain(name, source, error) from error
    _distinct_names(name, [field.name for field in schema.fields])
    table = _in_utc(table, footers)
    contract = SourceContract(
        source=name,
        columns=tuple(
            Column(name=field.name, type=field.dataType.simpleString())
            for field in table.schema.fields
        ),
    )
    counted = None
    if footers is None:
        counted = Observation(f"rows of {name}")
        table = table.observe(counted, F.count(F.lit(1)).alias("rows"))
    return SourceTable(name, table, contract, footers.rows if footers else None, counted)


def _footers(name: str, source: Source, files: SourceFiles) -> Footers | None:
    if source.format != "parquet" or not files.files:
        return None
    may_differ = str(source.options.get("mergeSchema", "")).lower() == "true"
    return read_footers(name, files.files, may_differ=may_differ)


def _paths(files: SourceFiles) -> str | list[str] | None:
    """Return the listed files, so that Spark reads those and no other.

    Folders that carry values, as in `year=2013/part-0.parquet`, are left to Spark to list, since
    the values would be lost.
    """
    root = str(files.path)
    if not files.files or any("=" in str(f.parent)[len(root) :] for f in files.files):
        return files.path
    return [str(f) for f in files.files]


def _option(value: str | int | float | bool) -> str:  # noqa: FBT001
    return str(value).lower() if isinstance(value, bool) else str(value)


def _distinct_names(name: str, columns: list[str]) -> None:
    """Refuse names that SQL cannot tell apart, since it ignores their case."""
    seen: dict[str, str] = {}
    for column in columns:
        twin = seen.setdefault(column.lower(), column)
        if twin is not column:
            raise SchemaError(
                f"source '{name}': columns '{twin}' and '{column}' cannot be told apart in SQL, "
                "which ignores case; rename one of them where the file is written."
            )


def _in_utc(table: DataFrame, footers: Footers | None) -> DataFrame:
    """Make every instant a microsecond in UTC; times without a zone are taken as UTC."""
    nanos = set(footers.nanosecond_columns) if footers else set()
    columns = []
    for field in table.schema.fields:
        column = F.col(_quoted(field.name))
        # INT96 times are nanoseconds in the footer too, but come as timestamps
        if field.name in nanos and isinstance(field.dataType, LongType):
            q = _quoted(field.name)
            micros = F.expr(f"({q} - pmod({q}, 1000)) DIV 1000")  # floor, also before 1970
            columns.append(F.timestamp_micros(micros).alias(field.name))
        elif isinstance(field.dataType, TimestampNTZType):
            columns.append(column.cast("timestamp").alias(field.name))
        else:
            columns.append(column)
    return table.select(*columns)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _explain(name: str, source: Source, error: PySparkException) -> Exception:
    text = describe_spark_error(error)
    condition = error.getCondition() or ""
    if "PATH_NOT_FOUND" in condition:
        return MissingError(f"source '{name}': '{source.path}' does not exist; mend its path.")
    if "DATA_SOURCE_NOT_FOUND" in condition:
        return MissingError(
            f"source '{name}': Spark has no reader for format {source.format}; put its jar on "
            "the cluster (spark.jars in the profile)."
        )
    return DataError(f"source '{name}' ({source.format} at '{source.path}'): {text}")
