"""Raw tables to a published dataset: read, join, arrange, one pass, fit, prove, publish."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Observation
from pyspark.sql import functions as F

from arclight.errors import RefusedError
from arclight.schema import hold
from arclight.store import discard, flush_tree, make_folder
from cluster.spark_errors import JVM_ERRORS
from spark.arrange import arrange, partition_count
from spark.badrecord import explain_rows
from spark.columns import check_columns, located
from spark.etl_plan import refuse_changed
from spark.files import check_files, remove_strays
from spark.inarrow import map_in_arrow
from spark.join import join_sources
from spark.publish import make_manifest
from spark.read import SourceTable, read_source
from spark.rowpass import RowPass
from spark.taskresult import TaskResult, Totals, add_up
from spark.watch import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame, SparkSession

    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.progress import Tick
    from spark.etl_plan import EtlPlan

RESULTS = "results"
"""Folder of what tasks found: with many columns it is too much to hand back through Spark."""
RESULT = pa.schema([("file", pa.string())])


def build_dataset(
    session: SparkSession,
    plan: EtlPlan,
    catalog: Catalog,
    *,
    accept_schema: bool = False,
    tick: Tick,
) -> DatasetManifest:
    """Build and publish a dataset.

    Args:
        session: where Spark runs.
        plan: what to build.
        catalog: where it is published.
        accept_schema: take the sources' columns as the new contract.
        tick: told how many tasks are done.

    Raises:
        SchemaError: a source broke its contract, or columns cannot be kept apart.
        SpecError: the SQL or the columns do not fit the spec.
        DataError: a file cannot be read as what it is, or changed meanwhile.
        RefusedError: a rule with `fail` was broken, or a split has no rows or one class.
        IntegrityError: rows are unaccounted for; nothing was published.
    """
    tables = _open(session, plan, catalog, accept_schema=accept_schema)
    staged = catalog.store.stage("datasets", plan.loaded.spec.name)
    try:
        totals, rows, layout = _run(session, plan, tables, staged, tick)
        files = totals.files
        remove_strays(staged, files)
        check_files(staged, files)
        manifest = make_manifest(plan, layout, totals, tables, rows, _relative(catalog, staged))
        refuse_changed(plan)
        flush_tree(staged)
    except BaseException:
        discard(staged)
        raise
    return catalog.publish_dataset(manifest)


def joined_rows(
    session: SparkSession, plan: EtlPlan, catalog: Catalog
) -> tuple[DataFrame, pa.Schema]:
    """Return the rows of `etl.sql` with raw types: what a scorer takes and a request carries."""
    tables = _open(session, plan, catalog, accept_schema=False)
    etl = plan.loaded.spec.etl
    with located(plan.loaded):
        return join_sources(session, tables, plan.loaded.sql, key=etl.key, drop=etl.drop)


def _open(
    session: SparkSession, plan: EtlPlan, catalog: Catalog, *, accept_schema: bool
) -> list[SourceTable]:
    spec = plan.loaded.spec
    with located(plan.loaded):
        tables = [
            read_source(session, name, source, plan.files[name])
            for name, source in spec.sources.items()
        ]
    before = next(catalog.datasets(spec.name), None)
    if before is not None and not accept_schema:
        hold(before.sources, [table.contract for table in tables])
    return tables


def _run(
    session: SparkSession,
    plan: EtlPlan,
    tables: list[SourceTable],
    staged: Path,
    tick: Tick,
) -> tuple[Totals, int, Any]:
    """Run the one pass; returns the totals, the rows Spark counted before it, and the layout."""
    loaded = plan.loaded
    etl = loaded.spec.etl
    with located(loaded):
        joined, schema = join_sources(session, tables, loaded.sql, key=etl.key, drop=etl.drop)
    layout = check_columns(schema, loaded)
    counted = Observation("joined rows")
    joined = joined.observe(counted, F.count(F.lit(1)).alias("rows"))
    sizes = [found.size_bytes for found in plan.files.values()]
    known = [size for size in sizes if size is not None]
    partitions = partition_count(sum(known) if len(known) == len(sizes) else None)
    arranged = arrange(joined, etl.key, partitions)
    row_pass = RowPass(spec=loaded.spec, layout=layout, folder=str(staged))
    try:
        with watched(session, tick):
            found = map_in_arrow(arranged, _task(row_pass), "file string").collect()
    except JVM_ERRORS as error:
        raise explain_rows(error, "the rows could not be read or computed") from error
    if not found:
        raise RefusedError(
            "no row came out of etl.sql; look at the sources' rows and at the joins' conditions."
        )
    totals = add_up(_results(staged, sorted(row[0] for row in found)))
    discard(staged / RESULTS)
    return totals, int(counted.get["rows"]), layout


def _results(staged: Path, names: list[str]) -> Iterator[TaskResult]:
    """Read the tasks' results one after another."""
    for name in names:
        file = staged / RESULTS / name
        yield TaskResult.from_json(file.read_bytes(), source=str(file))


def _task(row_pass: RowPass) -> Any:
    """Return the function Spark's workers run, once a partition."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        partition = context.partitionId() if context is not None else 0
        result = row_pass.run(partition, batches)
        if result.rows_in:
            name = f"{partition:05d}-{uuid.uuid4().hex[:8]}.json"
            folder = Path(row_pass.folder) / RESULTS
            make_folder(folder)
            (folder / name).write_text(result.to_json(), encoding="utf-8")
            yield pa.record_batch([pa.array([name])], schema=RESULT)

    return run


def _relative(catalog: Catalog, staged: Path) -> str:
    return staged.relative_to(catalog.store.root).as_posix()
