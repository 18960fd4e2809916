"""Rows in an order that nothing but the rows decides, however many columns they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from spark import arrange as module
from tests.spark.etl_case import make_case, rows

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_thousands_of_columns_need_no_key(session: SparkSession, tmp_path: Path):
    """Spark's planner ran out of stack over a hash of all of them."""
    texts = {f"f{j}": pa.array([str(i * j % 7) for i in range(60)]) for j in range(3005)}
    table = pa.table({name: rows(60)[name] for name in ("id", "y")} | texts)
    assert make_case(tmp_path, table, key=[]).build(session).proof.keys == 60


def test_rows_without_a_key_meet_their_equals_however_many_columns_are_hashed(
    session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    holes = pa.array([None if i % 3 else f"t{i % 7}" for i in range(300)])
    table = rows(300, c=holes, x=pa.array([0.0, -0.0, float("nan")] * 100))
    monkeypatch.setattr(module, "MOST_HASHED", 2)
    case = make_case(tmp_path, pa.concat_tables([table, table.slice(7)]), key=[])
    keys = case.splits(case.build(session))["row_key"].to_pylist()
    assert len(set(keys)) == len(keys) == 593
    assert sum(key.endswith("-1") for key in keys) == 293
