"""One small ETL as a function: tables in, a published manifest out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.store import open_store
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from arclight.manifest import DatasetManifest


@dataclass
class Case:
    """A folder with a spec, its sources and a store; change `body`, then `build`."""

    folder: Path
    body: dict[str, Any]

    @property
    def catalog(self) -> Catalog:
        return Catalog(open_store(self.folder / "store"))

    def write(self, name: str, table: pa.Table, *, file: str = "part-0.parquet") -> Path:
        path = self.folder / name / file
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
        return path

    def spec_file(self) -> Path:
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(self.body))  # JSON is YAML
        return path

    def build(self, session: SparkSession, *, accept_schema: bool = False) -> DatasetManifest:
        plan = plan_etl(load_spec(self.spec_file()))
        return build_dataset(session, plan, self.catalog, accept_schema=accept_schema, tick=silent)

    def read(self, manifest: DatasetManifest, part: str) -> pa.Table:
        folder = self.catalog.folder(manifest)
        files = [pq.read_table(folder / f.path) for f in manifest.files_of(part)]
        return pa.concat_tables(files) if files else pa.table({})

    def splits(self, manifest: DatasetManifest) -> pa.Table:
        return pa.concat_tables([self.read(manifest, p) for p in ("train", "valid", "test")])


def rows(count: int, **changes: Any) -> pa.Table:
    """Return rows with an id, two numbers, a category and a label that depends on them."""
    ids = list(range(count))
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.int64()),
        "x": pa.array([float(i % 17) for i in ids]),
        "n": pa.array([i % 5 for i in ids], pa.int32()),
        "c": pa.array(["abc"[i % 3] for i in ids]),
        "y": pa.array([(i * 7919) % 10 < 4 for i in ids]),
    }
    columns.update(changes)
    return pa.table(columns)


def make_case(folder: Path, table: pa.Table | None = None, **etl: Any) -> Case:
    """Return a case over one source `t` with key id and label y, split by hash."""
    body = {
        "name": "case",
        "task": "binary",
        "sources": {"t": {"path": "t"}},
        "etl": {
            "key": ["id"],
            "label": "y",
            "split": {"by": "hash", "train": 0.6, "valid": 0.2, "test": 0.2},
            **etl,
        },
        "features": {"min_count": 1},
    }
    case = Case(folder=folder, body=body)
    if table is not None:
        case.write("t", table)
    return case
