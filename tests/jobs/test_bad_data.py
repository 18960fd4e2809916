"""As typed: what a user of `arclight etl` gets for data that is not what it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.store import open_store
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]
SPEC = """\
name: flights
task: binary
sources: {flights: {path: data}}
etl: {key: [id], label: late}
features: {min_count: 1}
"""


@dataclass
class Case:
    """A folder with a spec, a table and a store."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "a.yaml").write_text(SPEC)
        (self.folder / "data").mkdir()
        self.write(table(3000))

    @property
    def file(self) -> Path:
        return self.folder / "data" / "rows.parquet"

    def write(self, rows: pa.Table) -> None:
        pq.write_table(rows, self.file)

    def etl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type `arclight etl`."""
        return subprocess.run(
            [sys.executable, "-m", "jobs.cli", "etl", "a.yaml", *words, "--json"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def refusal(self, status: int) -> str:
        """Type it, see it refused, and return the sentence."""
        before = self.versions()
        done = self.etl()
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert self.versions() == before
        return done.stderr.splitlines()[-1]

    def versions(self) -> list[str]:
        """The dataset's versions, and what lies in its folder of data."""
        shelf = self.folder / ".arclight" / "datasets" / "flights"
        return [*self.names(shelf / "versions"), *self.names(shelf / "data")]

    def names(self, folder: Path) -> list[str]:
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def table(count: int) -> pa.Table:
    ids = range(count)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "km": pa.array([float(i % 17) for i in ids]),
            "late": pa.array([(i * 7919) % 10 < 4 for i in ids]),
        }
    )


@pytest.mark.fault
def test_a_column_that_changed_its_type_and_the_way_forward(
    session: SparkSession, tmp_path: Path
) -> None:
    case = Case(tmp_path)
    plan = plan_etl(load_spec(tmp_path / "a.yaml"))
    first = build_dataset(session, plan, Catalog(open_store(tmp_path / ".arclight")), tick=silent)
    assert first.ref == "flights@1"
    rows = table(3000)
    case.write(rows.set_column(1, "km", rows["km"].cast("string")))
    said = case.refusal(3)
    for part in ("flights", "'km'", "double", "string", "--accept-schema"):
        assert part in said, said
    done = case.etl("--accept-schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dataset"] == "flights@2"


@pytest.mark.fault
def test_e1_a_file_that_was_cut_is_named(tmp_path: Path) -> None:
    case = Case(tmp_path)
    whole = case.file.read_bytes()
    case.file.write_bytes(whole[: len(whole) * 9 // 10])
    said = case.refusal(1)
    assert "rows.parquet" in said
    assert said.startswith("arclight: ")


@pytest.mark.fault
def test_e4_a_source_without_rows(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.write(table(0))
    assert "row" in case.refusal(3)
