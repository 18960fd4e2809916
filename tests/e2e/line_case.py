"""The whole line by its commands, on a slice that takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arclight.catalog import Catalog
from arclight.store import open_store

DEADLINE_S = 240
TRAINERS = ("xgboost", "lightgbm")
ROWS = 3000


@dataclass
class Line:
    """A folder with two tables, a spec for each trainer, and one store."""

    folder: Path
    firsts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_tables(self.folder)
        for trainer in TRAINERS:
            Path(self.spec(trainer)).write_text(json.dumps(spec_body(trainer)))

    def spec(self, trainer: str) -> str:
        return str(self.folder / f"{trainer}.yaml")

    def first(self, trainer: str) -> dict[str, Any]:
        """Run a trainer's spec once, undisturbed, and return its answer ever after."""
        if trainer not in self.firsts:
            self.firsts[trainer] = self.answer("run", self.spec(trainer))
        return self.firsts[trainer]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def catalog(self) -> Catalog:
        return Catalog(open_store(self.store))

    def arclight(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the product in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "jobs.cli", *words, "--store", str(self.store)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def answer(self, *words: str) -> dict[str, Any]:
        """Run a command that must succeed and return its JSON."""
        done = self.arclight(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def make_tables(folder: Path) -> None:
    """Write trips and the stations they start from; the label depends on both."""
    random = np.random.default_rng(7)
    station = random.integers(0, 12, ROWS)
    km = random.gamma(2.0, 3.0, ROWS)
    hour = random.integers(0, 24, ROWS)
    risk = 0.35 * (station % 3) + 0.12 * km + 0.8 * ((hour > 15) & (hour < 20)) - 1.5
    late = random.random(ROWS) < 1 / (1 + np.exp(-risk))
    start = np.datetime64("2024-01-01T00:00:00", "us")
    trips = pa.table(
        {
            "trip": np.arange(ROWS),
            "station": pa.array([f"s{i}" for i in station]),
            "km": km,
            "at": pa.array(start + (np.arange(ROWS) * 24 + hour) * np.timedelta64(3_600_000_000)),
            "late": late,
        }
    )
    stations = pa.table({"station": [f"s{i}" for i in range(12)], "lines": [1, 2, 3] * 4})
    for name, table in {"trips": trips, "stations": stations}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name / "part-0.parquet")


def spec_body(trainer: str) -> dict[str, Any]:
    params = {"max_depth": 4} if trainer == "xgboost" else {"num_leaves": 15}
    return {
        "name": "late-trips",
        "task": "binary",
        "sources": {"trips": {"path": "trips"}, "stations": {"path": "stations"}},
        "etl": {
            "sql": "SELECT t.*, s.lines FROM trips t LEFT JOIN stations s USING (station)",
            "key": ["trip"],
            "label": "late",
            "time": "at",
            "split": {"by": "hash", "train": 0.6, "valid": 0.2, "test": 0.2, "seed": 1},
        },
        "features": {
            "derive": {"hour": "hour(at)", "km_per_line": "km / lines"},
            "min_count": 5,
        },
        "train": {
            "trainer": trainer,
            "rounds": 40,
            "early_stopping": 10,
            "params": {**params, "learning_rate": 0.2},
            "seed": 3,
        },
        "evaluate": {"segments": ["station"]},
        "gate": {"at_least": {"auc": 0.55}},
    }
