"""Arclight's `etl`: from the spec's file to the published manifest, in a warm Spark session."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.store import open_store
from benchmarks.etl_job import SPLITS, output_facts
from cluster.profiles import Profile
from cluster.spark_session import spark_session
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from arclight.manifest import DatasetManifest


class EtlSide:
    """Builds the dataset of a spec, each round into a store of its own."""

    def __init__(self, session: SparkSession, scratch: Path, body: dict[str, Any]) -> None:
        self._session, self._scratch = session, scratch
        self._spec_file = scratch / "spec.yaml"
        self._spec_file.write_text(json.dumps(body), encoding="utf-8")  # JSON is YAML

    def ready(self, number: int) -> None:
        """Remove the last round's store."""
        shutil.rmtree(self._store(number - 1), ignore_errors=True)

    def run(self, number: int) -> tuple[Catalog, DatasetManifest]:
        """Build and publish."""
        catalog = Catalog(open_store(self._store(number)))
        plan = plan_etl(load_spec(self._spec_file))
        return catalog, build_dataset(self._session, plan, catalog, tick=silent)

    def facts(self, result: tuple[Catalog, DatasetManifest]) -> dict[str, Any]:
        """Return rows and sums of the stored files."""
        catalog, manifest = result
        folder = catalog.folder(manifest)
        files = {s: [str(folder / f.path) for f in manifest.files_of(s)] for s in SPLITS}
        return output_facts(files, manifest.rows["quarantine"])

    def _store(self, number: int) -> Path:
        return self._scratch / f"store-{number}"


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[EtlSide]:
    """Start Spark with the race's cores and heap."""
    scratch = Path(params["scratch"])
    profile = Profile(name="race", cores=params["cores"], memory_gib=params["memory_gib"])
    with spark_session(profile, log_folder=scratch, local_folder=scratch / "spark") as session:
        yield EtlSide(session, scratch, params["spec"])
