"""A plan over Parquet files that are clean already: row groups decoded outside the JVM.

Spark only places the tasks: what a task reads it reads with pyarrow, a row group at a time, so
that no row passes through the JVM and the memory is one row group a core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from arclight.contract import Contract
from arclight.errors import DataError, RefusedError, printable
from arclight.expression import compile_expression
from arclight.features import FeatureBuilder
from arclight.plan import FeaturePlan, fit_plan
from arclight.summary import ColumnSummary, make_builder, merge_summaries
from cluster.spark_errors import describe_spark_error, told_by_worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from pyspark.sql import SparkSession

    from arclight.features import FeatureLayout

PIECE_ROWS = 256 << 10
RESULT = pa.schema([("result", pa.string())])


@dataclass(frozen=True)
class Piece:
    """Row groups of one file that one task reads."""

    path: str
    groups: tuple[int, ...]


@dataclass(frozen=True)
class FileFit:
    """What a task needs: the features, the label they are set against, and its pieces.

    Attributes:
        layout: the features; their inputs and the label are columns of every file.
        label: a number without nulls in every row.
        pieces: what there is to read, in order.
    """

    layout: FeatureLayout
    label: str
    pieces: tuple[Piece, ...]

    def summarise(self, place: int) -> tuple[ColumnSummary, ...]:
        """Read one piece and return a summary per feature.

        Raises:
            DataError: a row cannot have its features, a label is null, or a column is missing.
        """
        pa.set_cpu_count(1)
        piece, coded = self.pieces[place], self._coded()
        build = FeatureBuilder(_without(self.layout, coded))
        builders = [make_builder(f.name, f.type) for f in self.layout.features]
        for batch in self._batches(piece, coded):
            built = build.build(batch)
            self._refuse(piece, built.rejected)
            y = self._labels(piece, batch)
            for builder in builders:
                name = builder.name
                values = batch.column(name) if name in coded else built.columns[name]
                mask = built.nans.get(name)
                builder.add(values, y, nans=0 if mask is None else int(mask.sum()))
        return tuple(builder.freeze() for builder in builders)

    def _coded(self) -> frozenset[str]:
        """Return the text columns that are features as they are: best left as codes and levels."""
        schema = self.layout.input_schema
        derived = {item.name for item in self.layout.derive}
        read = {
            name
            for item in self.layout.derive
            for name in compile_expression(item.expression, schema).columns
        }
        return frozenset(
            feature.name
            for feature in self.layout.features
            if feature.type == "category"
            and feature.name not in derived | read
            and pa.types.is_string(schema.field(feature.name).type)
        )

    def _batches(self, piece: Piece, coded: frozenset[str]) -> Iterator[pa.RecordBatch]:
        wanted = {field.name: field.type for field in self.layout.input_schema}
        wanted |= {name: pa.dictionary(pa.int32(), pa.string()) for name in coded}
        wanted.setdefault(self.label, pa.float64())
        schema = pa.schema(wanted)
        with pq.ParquetFile(piece.path, memory_map=True, read_dictionary=list(coded)) as file:
            missing = [name for name in schema.names if name not in file.schema_arrow.names]
            if missing:
                raise DataError(
                    f"'{printable(piece.path)}' must have the column '{printable(missing[0])}'; "
                    "fit over files that one ETL wrote."
                )
            for group in piece.groups:
                table = file.read_row_group(group, columns=schema.names, use_threads=False)
                table = table.select(schema.names).cast(schema)
                yield from table.unify_dictionaries().combine_chunks().to_batches()

    def _labels(self, piece: Piece, batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
        label = batch.column(self.label)
        if label.null_count:
            raise DataError(
                f"'{printable(piece.path)}': label '{printable(self.label)}' must be known in "
                f"every row, but is null in {label.null_count:,} rows; clean them with "
                "`arclight etl`."
            )
        return label.cast(pa.float64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]

    def _refuse(self, piece: Piece, rejected: Any) -> None:
        for reason, rows in rejected.items():
            if rows.any():
                raise DataError(
                    f"'{printable(piece.path)}': {int(rows.sum()):,} rows cannot have their "
                    f"features ({printable(reason)}); clean them with `arclight etl`."
                )

    def plan(
        self, parts: Sequence[Sequence[ColumnSummary]], *, max_levels: int, min_count: int
    ) -> Fitted:
        """Merge the summaries of all pieces, in their order, and fit the plan."""
        merged = tuple(merge_summaries(columns) for columns in zip(*parts, strict=True))
        plan = fit_plan(
            self.layout,
            {summary.name: summary for summary in merged},
            max_levels=max_levels,
            min_count=min_count,
        )
        return Fitted(plan=plan, summaries=merged)


@dataclass(frozen=True)
class Fitted:
    """A fitted plan and the whole summaries it was fitted from."""

    plan: FeaturePlan
    summaries: tuple[ColumnSummary, ...]


class _TaskSummaries(Contract):
    """What one task gives back through Spark."""

    kind: ClassVar[str] = "fit-task"

    place: int
    summaries: tuple[ColumnSummary, ...]


def _without(layout: FeatureLayout, names: frozenset[str]) -> FeatureLayout:
    """Return a layout without some of its features."""
    kept = tuple(feature for feature in layout.features if feature.name not in names)
    return layout.model_copy(update={"features": kept})


def plan_pieces(files: Sequence[Path], *, rows: int = PIECE_ROWS) -> tuple[Piece, ...]:
    """Divide files into pieces of about so many rows; the division depends on nothing else.

    Raises:
        RefusedError: the files hold no row.
    """
    pieces = []
    for file in files:
        groups: list[int] = []
        held = 0
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            if groups and held + count > rows:
                pieces.append(Piece(str(file), tuple(groups)))
                groups, held = [], 0
            if count:
                groups.append(group)
                held += count
        if groups:
            pieces.append(Piece(str(file), tuple(groups)))
    if not pieces:
        raise RefusedError("a plan must be fitted on rows, but the files hold none.")
    return tuple(pieces)


def fit_files(session: SparkSession, fit: FileFit, *, max_levels: int, min_count: int) -> Fitted:
    """Fit a plan over files that every Spark worker can open.

    Args:
        session: where the tasks run.
        fit: what to read and which features to fit.
        max_levels: levels kept per category, the most frequent ones.
        min_count: rows a level needs to be kept.

    Raises:
        DataError: a row cannot have its features, or a file cannot be read as what it is.
    """
    count = len(fit.pieces)
    places = session.range(0, count, 1, count)
    try:
        found = places.mapInArrow(_task(fit), "result string").collect()
    except (PySparkException, Py4JJavaError) as error:
        told = told_by_worker(error)
        text = f"the files could not be read: {describe_spark_error(error)}"
        raise told or DataError(text) from error
    results = [_TaskSummaries.from_json(row[0], source="a task's result") for row in found]
    results.sort(key=lambda result: result.place)
    return fit.plan([r.summaries for r in results], max_levels=max_levels, min_count=min_count)


def _task(fit: FileFit) -> Any:
    """Return the function Spark's workers run, once a piece."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for place in batch.column(0).to_pylist():
                result = _TaskSummaries(place=place, summaries=fit.summarise(place))
                yield pa.record_batch([pa.array([result.to_json()])], schema=RESULT)

    return run
