"""Raw tables to a registered, verified, scored model, by the commands a person types."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.e2e.line_case import ROWS, Line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_the_whole_line(tmp_path: Path, trainer: str):
    line = Line(tmp_path, trainer)
    first = line.answer("run", str(line.spec))
    assert sum(first["rows"][p] for p in ("train", "valid", "test")) == ROWS
    value, low, high = first["figures"]["auc"]
    assert 0.5 < low < value < high < 0.9  # the interval of 600 rows stays above chance
    assert first["decision"] == "promote"
    assert all(size > 10_000 for size in map(_size, first["reports"]))

    again = line.answer("run", str(line.spec))
    assert again["model_digest"] == first["model_digest"]
    assert again["seconds"]["etl"] is None
    assert again["seconds"]["train"] is None

    raw, scores = tmp_path / "raw", tmp_path / "scores"
    line.answer("rows", str(line.spec), str(raw), "--where", "km > 3")
    scored = line.answer("score", "late-trips@champion", str(raw), str(scores))
    table = pq.read_table(sorted(scores.glob("*.parquet")))
    assert scored["rows"] == table.num_rows == pq.read_table(raw).num_rows
    assert len(set(table["trip"].to_pylist())) == table.num_rows

    verified = line.answer("verify", "late-trips@champion")
    assert verified["ok"] is True
    assert len(verified["checks"]) == 3  # stored features, batch scores, served scores
    assert all(c["rows"] > 100 and c["worst"] <= 1e-6 for c in verified["checks"])


def _size(path: str) -> int:
    with open(path, "rb") as stream:  # noqa: PTH123
        return len(stream.read())


POINTS = [
    ("datasets.versions.before-link", "etl"),
    ("datasets.versions.after-link", "etl"),
    ("models.versions.before-link", "train"),
    ("models.versions.after-link", "train"),
    ("datasets.openings.after-link", "evaluate"),
    ("models.evaluations.before-link", "evaluate"),
    ("models.aliases.before-link", "register"),
]


@pytest.mark.fault
@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm"])
def test_e16_killed_at_each_point_the_same_command_ends_with_the_same_model(
    tmp_path: Path, trainer: str
):
    undisturbed = Line(tmp_path / "undisturbed", trainer)
    expected = undisturbed.answer("run", str(undisturbed.spec))
    line = Line(tmp_path / "killed", trainer)
    for point, step in POINTS:
        done = line.arclight("run", str(line.spec), ARCLIGHT_TEST="1", ARCLIGHT_TEST_KILL_AT=point)
        assert done.returncode != 0, f"{point} was not reached: {done.stderr}"
        _store_is_whole(line)
        journal = [e for run in line.answer("runs")["runs"] for e in [run["last step"]]]
        assert step in journal, (point, journal)
    last = line.answer("run", str(line.spec))
    assert last["model_digest"] == expected["model_digest"]
    assert last["dataset_digest"] == expected["dataset_digest"]
    assert last["figures"] == expected["figures"]
    assert (last["dataset"], last["model"]) == ("late-trips@1", "late-trips@1")


def _store_is_whole(line: Line) -> None:
    """Every record that can be seen is complete, and so are the files it names."""
    catalog = line.catalog
    for manifest in catalog.datasets("late-trips"):
        for file in manifest.files:
            path = catalog.folder(manifest) / file.path
            assert path.stat().st_size == file.size_bytes
    for bundle in catalog.models("late-trips"):
        for file in bundle.files:
            assert (catalog.folder(bundle) / file.path).stat().st_size == file.size_bytes
    for record in line.store.rglob("*.json"):
        if record.name[0].isdigit():
            json.loads(record.read_text())
