"""A plan fitted over files: the same as from the rows at once, whoever reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.errors import DataError, RefusedError
from arclight.features import Derived, FeatureColumn, FeatureLayout
from arclight.schema import Column
from spark.fit import FileFit, Piece, fit_files, plan_pieces

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

LAYOUT = FeatureLayout(
    inputs=(Column(name="x", type="float64"), Column(name="c", type="string")),
    derive=(Derived(name="half", expression="x / 2"),),
    features=(
        FeatureColumn(name="x", type="number"),
        FeatureColumn(name="c", type="category"),
        FeatureColumn(name="half", type="number"),
    ),
)


def write(folder: Path, name: str, **columns: Any) -> Path:
    table = pa.table({"unused": [0] * len(columns["x"]), **columns})
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=100)
    return folder / f"{name}.parquet"


def make_files(folder: Path) -> list[Path]:
    x = np.arange(450, dtype=np.float64)
    return [
        write(folder, "a", x=x[:250], c=["ab"[i % 2] for i in range(250)], y=x[:250] % 2),
        write(folder, "b", x=x[250:], c=["a"] * 200, y=x[250:] % 2),
    ]


def test_pieces_hold_every_row_group_once(tmp_path: Path) -> None:
    a, b = make_files(tmp_path)
    assert plan_pieces([a, b], rows=200) == (
        Piece(str(a), (0, 1)),
        Piece(str(a), (2,)),
        Piece(str(b), (0, 1)),
    )
    assert len(plan_pieces([a, b], rows=1)) == 5


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    empty = write(tmp_path, "a", x=pa.array([], pa.float64()), c=[], y=[])
    with pytest.raises(RefusedError, match="hold none"):
        plan_pieces([empty])


@pytest.mark.parametrize("rows", [1, 200, 10_000])
def test_pieces_add_up_to_the_whole(tmp_path: Path, rows: int) -> None:
    fit = FileFit(LAYOUT, "y", plan_pieces(make_files(tmp_path), rows=rows))
    parts = [fit.summarise(place) for place in range(len(fit.pieces))]
    fitted = fit.plan(parts, max_levels=10, min_count=126)
    x, c, half = fitted.plan.features
    assert (x.mean, x.median, half.median) == (224.5, 224.0, 112.0)
    assert x.std == pytest.approx(np.arange(450).std())
    assert c.levels == ("a",)
    assert [(lv.value, lv.count) for lv in fitted.summaries[1].levels] == [("a", 325), ("b", 125)]
    assert fitted.summaries[0].moments.label_mean == 0.5


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"x": [1.0, float("inf")], "c": ["a", "b"], "y": [0.0, 1.0]}, "infinite:x"),
        ({"x": [1.0], "c": ["a"], "y": pa.array([None], pa.float64())}, "label 'y'.* 1 rows"),
        ({"x": [1.0], "c": ["a"]}, "must have the column 'y'"),
    ],
)
def test_rows_that_cannot_be_fitted_are_named(
    tmp_path: Path, columns: dict[str, Any], match: str
) -> None:
    fit = FileFit(LAYOUT, "y", plan_pieces([write(tmp_path, "a", **columns)]))
    with pytest.raises(DataError, match=match):
        fit.summarise(0)


def test_text_that_an_expression_reads_is_still_a_feature(tmp_path: Path) -> None:
    derive = (*LAYOUT.derive, Derived(name="long", expression="length(c)"))
    long = FeatureColumn(name="long", type="number")
    layout = LAYOUT.model_copy(update={"derive": derive, "features": (*LAYOUT.features, long)})
    pieces = plan_pieces(make_files(tmp_path))
    plain, read = (FileFit(lay, "y", pieces).summarise(0) for lay in (LAYOUT, layout))
    assert read[:3] == plain
    assert (read[3].low, read[3].high, read[3].rows) == (1.0, 1.0, 250)


@pytest.mark.spark
def test_spark_gives_what_one_process_gives(tmp_path: Path, session: SparkSession) -> None:
    fit = FileFit(LAYOUT, "y", plan_pieces(make_files(tmp_path), rows=100))
    parts = [fit.summarise(place) for place in range(len(fit.pieces))]
    alone = fit.plan(parts, max_levels=10, min_count=1)
    assert fit_files(session, fit, max_levels=10, min_count=1) == alone


@pytest.mark.spark
def test_spark_names_the_row_that_cannot_be_fitted(tmp_path: Path, session: SparkSession) -> None:
    file = write(tmp_path, "a", x=[float("inf")], c=["a"], y=[0.0])
    fit = FileFit(LAYOUT, "y", plan_pieces([file]))
    with pytest.raises(DataError, match="infinite:x"):
        fit_files(session, fit, max_levels=10, min_count=1)
