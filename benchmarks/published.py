"""A generated table, published as a dataset before a race: what trainings start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Contender, Running
from benchmarks.data import INGEST_CATEGORIES
from benchmarks.ingest_job import spec_body
from benchmarks.machine import cores_to_use
from benchmarks.setting import Setting, scratch_for, spark_params

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Published:
    """A dataset in a race's own store.

    Attributes:
        ref: NAME@N of the dataset.
        files: split -> its Parquet files.
        numbers: float32 columns.
        levels: category column -> every level there is, sorted.
        rows: split -> rows.
        label: the column that is to be told.
    """

    store: Path
    ref: str
    content_digest: str
    files: dict[str, list[str]]
    numbers: list[str]
    levels: dict[str, list[str]]
    rows: dict[str, int]
    label: str

    def job(self, *, threads: int, rounds: int) -> dict[str, Any]:
        """Return what a peer is given (`ingest_job.Job`)."""
        return {
            "files": self.files,
            "numbers": self.numbers,
            "levels": self.levels,
            "threads": threads,
            "rounds": rounds,
            "label": self.label,
        }


def publish(setting: Setting, race: str, data: Path) -> Published:
    """Publish the generated training table."""
    return publish_spec(setting, race, spec_body(data, INGEST_CATEGORIES, "xgboost", 1))


def publish_spec(setting: Setting, race: str, spec: dict[str, Any]) -> Published:
    """Publish a spec's dataset in a process of its own: no Spark is up during the race."""
    store = setting.work / f"{race}-dataset" / "store"
    params = {
        **spark_params(setting),
        "scratch": str(scratch_for(setting, race, "dataset")),
        "store": str(store),
        "spec": spec,
    }
    maker = Contender(name="publish", module="benchmarks.ours.publish", params=params)
    with Running(maker, cores_to_use(), setting.work / f"{race}-publish.log") as process:
        process.run(0)
        found = process.facts()
    return Published(store=store, **found)
