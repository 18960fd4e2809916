"""What footers say of columns that Spark cannot read as what they are."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.errors import SchemaError
from arclight.spec import Source
from spark.footers import read_footers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.array([1], pa.duration("ms")), r"whole number \(ms\); .* as bigint, a number of ms"),
        (pa.array([dt.time(1, 2)], pa.time64("us")), r"is time64\[us\], which Spark cannot read"),
        (pa.array([1.5], pa.float16()), "is halffloat, which Spark cannot read; name the columns"),
        (pa.array([1], pa.decimal256(50, 2)), "which Spark cannot read"),
    ],
)
def test_a_column_of_a_type_that_spark_has_not_needs_a_schema(
    tmp_path: Path, values: pa.Array, said: str
):
    """Dropped or not it stopped Spark, or, a duration, became a number of who knows what."""
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1], "odd": values}), file)
    with pytest.raises(SchemaError, match=rf"column 'odd' is .*{said}.*sources\.t\.schema|{said}"):
        read_footers("t", Source(path="a.parquet"), [file])
    source = Source.model_validate({"path": "a.parquet", "schema": "id bigint"})
    assert read_footers("t", source, [file]) is not None
