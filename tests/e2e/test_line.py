"""Raw tables to a registered, verified, scored model, by the commands a person types."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from jobs.runs import read_journal, run_ids
from tests.e2e.line_case import ROWS, Line, spec_body

if TYPE_CHECKING:
    from arclight.journal import Entry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Undisturbed runs: the second trainer finds the dataset of the first."""
    return Line(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The same tables and specs in another store, where every run is killed."""
    return Line(tmp_path_factory.mktemp("killed"))


@pytest.mark.parametrize("trainer", ["xgboost", pytest.param("lightgbm", marks=pytest.mark.fault)])
def test_the_whole_line(line: Line, tmp_path: Path, trainer: str):
    first = line.first(trainer)
    assert sum(first["rows"][p] for p in ("train", "valid", "test")) == ROWS
    value, low, high = first["figures"]["auc"]
    assert 0.5 < low < value < high < 0.9  # the interval of 600 rows stays above chance
    assert first["decision"] == "promote"
    assert all(Path(report).stat().st_size > 10_000 for report in first["reports"])

    again = line.answer("run", line.spec(trainer))
    assert again["model_digest"] == first["model_digest"]
    assert again["seconds"]["etl"] is None
    assert again["seconds"]["train"] is None
    assert again["seconds"]["evaluate"] is None

    raw, scores = tmp_path / "raw", tmp_path / "scores"
    line.answer("rows", line.spec(trainer), str(raw), "--where", "km > 3")
    scored = line.answer("score", first["model"], str(raw), str(scores))
    table = pq.read_table(sorted(scores.glob("*.parquet")))
    assert scored["rows"] == table.num_rows == pq.read_table(raw).num_rows
    assert len(set(table["trip"].to_pylist())) == table.num_rows

    verified = line.answer("verify", first["model"])
    assert verified["ok"] is True
    assert len(verified["checks"]) == 3  # stored features, batch scores, served scores
    assert all(c["rows"] > 100 and c["worst"] <= 1e-6 for c in verified["checks"])


def test_a_gate_that_refuses_ends_a_run_with_3_each_time(line: Line):
    first = line.first("xgboost")
    spec = line.folder / "strict.yaml"
    spec.write_text(json.dumps({**spec_body("xgboost"), "gate": {"at_least": {"auc": 0.99}}}))
    for _ in range(2):
        done = line.arclight("run", str(spec), "--json")
        assert done.returncode == 3, done.stderr
        assert "gate: auc must be at least 0.99, got 0." in done.stderr.splitlines()[-1]
        body = json.loads(done.stdout)
        assert (body["model"], body["decision"]) == (first["model"], "refuse")
        assert set(body["seconds"]) == {"etl", "train", "evaluate", "register"}
        assert body["seconds"]["evaluate"] is None
        assert Path(body["reports"][1]).stat().st_size > 10_000


POINTS = {
    "etl": ("datasets.versions.before-link", "datasets.versions.after-link"),
    "train": ("models.versions.before-link", "models.versions.after-link"),
    "evaluate": ("datasets.openings.after-link", "models.evaluations.before-link"),
    "register": ("models.aliases.before-link",),
}


@pytest.mark.parametrize("trainer", ["xgboost", pytest.param("lightgbm", marks=pytest.mark.fault)])
def test_killed_at_each_point_the_same_command_ends_with_the_same_model(
    line: Line, killed: Line, trainer: str
):
    expected = line.first(trainer)
    etl_stands = next(killed.catalog.datasets("late-trips"), None) is not None
    for step, points in POINTS.items():
        for point in () if step == "etl" and etl_stands else points:
            switch = {"ARCLIGHT_TEST": "1", "ARCLIGHT_TEST_KILL_AT": point}
            done = killed.arclight("run", killed.spec(trainer), **switch)
            # the evaluation is a process of its own: the command outlives it to say so
            status, state = (1, "failed") if step == "evaluate" else (-signal.SIGKILL, "started")
            assert done.returncode == status, f"{point} was not reached: {done.stderr}"
            assert step != "evaluate" or "ended by SIGKILL" in done.stderr
            _store_is_whole(killed)
            noted = [entry for entry in _entries(killed) if entry.step == step]
            assert noted[-1].state == state, point
    last = killed.answer("run", killed.spec(trainer))
    for name in ("dataset", "dataset_digest", "model", "model_digest", "figures", "decision"):
        assert last[name] == expected[name], name


def _entries(line: Line) -> list[Entry]:
    """What the latest run has noted."""
    store = line.catalog.store
    return read_journal(store, run_ids(store)[0])


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
