"""Publishes the dataset that the `ingest` race trains on; no contender, and not timed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.store import open_store
from cluster.profiles import Profile
from cluster.spark_session import spark_session
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from arclight.manifest import DatasetManifest


class PublishSide:
    """Builds a dataset into a store."""

    def __init__(self, session: SparkSession, params: dict[str, Any]) -> None:
        self._session, self._params = session, params
        self._catalog = Catalog(open_store(params["store"]))

    def ready(self, number: int) -> None:
        """There is one round."""

    def run(self, number: int) -> DatasetManifest:  # noqa: ARG002
        """Build and publish."""
        file = Path(self._params["store"]).with_name("publish.yaml")
        file.write_text(json.dumps(self._params["spec"]), encoding="utf-8")
        plan = plan_etl(load_spec(file))
        return build_dataset(self._session, plan, self._catalog, tick=silent)

    def facts(self, result: DatasetManifest) -> dict[str, Any]:
        """Return what the peers need to read the same files."""
        folder = self._catalog.folder(result)
        features = result.plan.features
        return {
            "ref": result.ref,
            "rows": result.rows,
            "label": result.label,
            "content_digest": result.content_digest,
            "files": {
                split: [str(folder / f.path) for f in result.files_of(split)]
                for split in ("train", "valid", "test")
            },
            "numbers": [f.name for f in features if f.type == "number"],
            "levels": {f.name: list(f.levels) for f in features if f.type == "category"},
        }


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[PublishSide]:
    """Start Spark."""
    scratch = Path(params["scratch"])
    profile = Profile(name="race", cores=params["cores"], memory_gib=params["memory_gib"])
    with spark_session(profile, log_folder=scratch, local_folder=scratch / "spark") as session:
        yield PublishSide(session, params)
