"""A training that is killed goes on with the same command, and says in its record that it did."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arclight.bundle import FoldFigure
from arclight.errors import ArclightError, ConflictError, DataError, LostWorkerError
from arclight.lineage import processor_name
from arclight.progress import silent, silent_tell
from arclight.store import Store
from arclight.sweep import find_leftovers, remove
from ray_apps import fit
from ray_apps.checkpoints import CheckpointRecord, Checkpoints
from ray_apps.losses import PATIENCE, go_on_after_losses
from ray_apps.train import model_key, train_model
from ray_apps.trainers.boosting import Snapshot
from tests.full_disk import small_disk
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.make_dataset import make_dataset, make_spec

ROOT = Path(__file__).parents[2]
LIBRARIES = ("xgboost", "lightgbm", "torch")
SAMPLED = {
    "xgboost": {"subsample": 0.7, "colsample_bynode": 0.7},
    "lightgbm": {"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.7},
    "torch": {},
}
RECORD = CheckpointRecord(rounds=0, workers=1, threads=1, resumed=(), folder="-", files=())

CHILD = """
import os, signal, sys
from pathlib import Path
from arclight import failpoint
from arclight.catalog import Catalog
from arclight.spec import Spec
from arclight.store import Store
from arclight.sweep import find_leftovers, remove
from ray_apps.train import find_origin, model_key, train_model
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.conftest import train_here as train

root, folder, spec, point, cores = sys.argv[1:]
catalog, spec = Catalog(Store(Path(root))), Spec.model_validate_json(spec)
manifest = catalog.dataset("demo")

def tick(done, total, note):
    if note.startswith("valid"):
        if point.isdigit() and done == int(point):
            os.kill(os.getpid(), signal.SIGKILL)
        if not point.isdigit() and done == 9:
            failpoint.arm(f"checkpoints.{model_key(manifest, spec)}.{point}")

train_model(
    catalog, manifest, spec, profile=ONE_CORE.model_copy(update={"cores": int(cores)}),
    run_folder=Path(folder), tick=tick, origin=find_origin(catalog, manifest, spec),
)
"""


def killed(made, spec, folder, point: str, cores: int = 1) -> None:
    """Run a training in a process of its own that dies after a round, or at a named point."""
    done = subprocess.run(
        [
            sys.executable, "-c", CHILD, str(made.catalog.store.root), str(folder),
            spec.model_dump_json(by_alias=True), point, str(cores),
        ],
        cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL


def checkpoints_of(made, spec) -> Checkpoints:
    return Checkpoints(made.catalog.store, "demo", model_key(made.manifest, spec))


@pytest.mark.parametrize("name", LIBRARIES)
def test_T9_a_killed_training_goes_on_to_the_bytes_of_an_undisturbed_one(tmp_path, name):
    """T7 as well: twice killed, row and column sampling on."""
    section = {"trainer": name, "params": SAMPLED[name], "checkpoint_every": "0s"}
    spec = make_spec(early_stopping=None, **section)
    made = make_dataset(tmp_path / "store", rows=(1200, 300, 100))
    other = make_dataset(tmp_path / "other", rows=(1200, 300, 100))
    wanted = train(other, spec, tmp_path)
    killed(made, spec, tmp_path, "8")
    assert list(made.catalog.models("demo")) == []
    assert checkpoints_of(made, spec).rounds() == 8
    killed(made, spec, tmp_path, "17")
    seen = []
    again = train(made, spec, tmp_path, tick=lambda *a: seen.append(a))
    assert again.model_digest == wanted.model_digest
    assert [(r.rounds, r.exact) for r in again.resumed] == [(8, True), (17, True)]
    assert wanted.resumed == ()
    assert seen[0] == (17, 30, "reading, to go on after round 17")
    assert {done for done, _, note in seen if note.startswith("valid")} == set(range(18, 31))
    assert not (made.catalog.store.root / "checkpoints" / "demo").exists()
    assert list((tmp_path / "fit").iterdir()) == []


@pytest.mark.parametrize("point", ["before-link", "after-link"])
def test_T8_killed_while_a_checkpoint_is_written(tmp_path, point):
    spec = make_spec(early_stopping=None, checkpoint_every="0s")
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    killed(made, spec, tmp_path, point)
    assert checkpoints_of(made, spec).rounds() == (9 if point == "before-link" else 10)
    again = train(made, spec, tmp_path)
    wanted = train(make_dataset(tmp_path / "other", rows=(400, 100, 100)), spec, tmp_path)
    assert again.model_digest == wanted.model_digest


@pytest.mark.parametrize("file", ["model", "history.f64", "20.json"])
def test_T8_a_damaged_checkpoint_is_passed_over(tmp_path, file):
    kept = Checkpoints(Store(tmp_path), "demo", "key")
    for rounds in (10, 20):
        history = tuple(float(i) for i in range(rounds))
        kept.write(Snapshot(b"model", history), RECORD.model_copy(update={"rounds": rounds}))
    newest = kept.newest()
    assert newest.snapshot == Snapshot(b"model", tuple(float(i) for i in range(20)))
    folder = tmp_path / "checkpoints" / "demo" / "key"
    path = folder / file if file.endswith("json") else tmp_path / newest.record.folder / file
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = kept.newest()
        assert found.snapshot in {
            newest.snapshot,
            Snapshot(b"model", newest.snapshot.history[:10]),
        }
    for rest in (whole[:-1], b""):
        path.write_bytes(rest)
        assert kept.rounds() == 10
    path.unlink()
    assert kept.rounds() == 10
    shutil.rmtree(folder / "data")
    assert kept.newest() is None


def test_only_the_newest_two_are_kept(tmp_path):
    kept = Checkpoints(Store(tmp_path), "demo", "key")
    for rounds in (1, 2, 3, 4):
        history = tuple(float(i) for i in range(rounds))
        kept.write(Snapshot(b"m", history), RECORD.model_copy(update={"rounds": rounds}))
    folder = tmp_path / "checkpoints" / "demo" / "key"
    assert sorted(p.name for p in folder.glob("*.json")) == ["3.json", "4.json"]
    assert len(list((folder / "data").iterdir())) == 2
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.rglob("*"))
    # of two commands that train the same, the second keeps what the first wrote
    kept.write(Snapshot(b"m", (0.0,) * 4), RECORD.model_copy(update={"rounds": 4}))
    assert len(list((folder / "data").iterdir())) == 2
    kept.clear()
    assert not folder.parent.exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"whole"])
def test_new_checkpoints_take_the_place_of_damaged_ones(tmp_path, damage):
    kept = Checkpoints(Store(tmp_path), "demo", "key")

    def write(rounds: int) -> None:
        record = RECORD.model_copy(update={"rounds": rounds})
        kept.write(Snapshot(b"m", (0.5,) * rounds), record)

    folder = tmp_path / "checkpoints" / "demo" / "key"
    for rounds in (20, 30):
        write(rounds)
        if damage == b"whole":
            shutil.rmtree(folder / "data")
        else:
            (folder / f"{rounds}.json").write_bytes(damage)
    for rounds in (5, 12, 20):
        write(rounds)
        assert kept.rounds() == rounds
    assert sorted(p.name for p in folder.glob("*.json")) == ["12.json", "20.json"]


def test_sweep_leaves_what_a_training_uses(tmp_path):
    store = Store(tmp_path)
    kept = Checkpoints(store, "demo", "key")
    kept.write(Snapshot(b"m", (0.5,)), RECORD.model_copy(update={"rounds": 1}))
    (leftover,) = find_leftovers(store, clock=time.time(), grace_s=0).removable
    with kept.in_use():
        with pytest.raises(ConflictError):
            remove(leftover)
        assert kept.rounds() == 1
    remove(leftover)
    with kept.in_use():  # and of one that wrote none, nothing stays
        pass
    assert not (tmp_path / "checkpoints").joinpath("demo").exists()


def test_what_followed_an_inexact_step_is_inexact(tmp_path):
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    spec = make_spec(trainer="lightgbm", early_stopping=None, checkpoint_every="0s")
    killed(made, spec, tmp_path, "4", cores=2)
    killed(made, spec, tmp_path, "9")
    again = train(made, spec, tmp_path)
    assert [(r.rounds, r.exact) for r in again.resumed] == [(4, False), (9, False)]


def test_another_section_begins_at_the_first_round(tmp_path):
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    spec = make_spec(early_stopping=None, checkpoint_every="0s")
    killed(made, spec, tmp_path, "8")
    assert train(made, make_spec(seed=8), tmp_path).resumed == ()
    assert checkpoints_of(made, spec).rounds() == 8


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_threads_of_another_number_go_on_and_the_record_says_that_bytes_may_differ(tmp_path, name):
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    spec = make_spec(trainer=name, early_stopping=None, checkpoint_every="0s")
    killed(made, spec, tmp_path, "8")
    two = ONE_CORE.model_copy(update={"cores": 2})
    again = train_model(
        made.catalog, made.manifest, spec, profile=two, run_folder=tmp_path, tick=silent
    )
    assert [(r.rounds, r.workers, r.exact) for r in again.resumed] == [(8, 1, False)]


@pytest.mark.parametrize("other", ["", "another processor"])
def test_the_record_says_which_processor_trained_and_that_another_one_went_on(
    tmp_path, monkeypatch, other
):
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    spec = make_spec(early_stopping=None, checkpoint_every="0s")
    killed(made, spec, tmp_path, "8")
    if other:
        monkeypatch.setattr(fit, "processor_name", lambda: other)
    told = []
    again = train(made, spec, tmp_path, tell=told.append)
    assert told == ["Going on after round 8, where an earlier command was."]
    assert [(r.rounds, r.exact) for r in again.resumed] == [(8, not other)]
    assert again.settings.processor == (other or processor_name())


def test_E17_a_full_disk_costs_checkpoints_and_not_the_training(tmp_path):
    with small_disk(tmp_path / "disk", size="20m") as disk:
        made = make_dataset(disk.folder / "store", rows=(400, 100, 100))
        spec = make_spec(early_stopping=None, checkpoint_every="0s")
        notes, told, filler = [], [], []

        def tick(done, _total, note):
            notes.append(note)
            if note.startswith("valid") and done == 5:
                filler.append(disk.fill(leave_bytes=0))
            if note.startswith("valid") and done == 20:
                filler[0].unlink()

        bundle = train(made, spec, tmp_path, tick=tick, tell=told.append)
        assert bundle.rounds == 30
        valid = [note for note in notes if note.startswith("valid")]
        assert all("No space left" in note for note in valid[5:20])
        assert not any("No space left" in note for note in valid[:5] + valid[20:])
        assert told == []


def test_losses_in_a_row_end_the_training_and_progress_begins_the_count_anew(tmp_path):
    kept = Checkpoints(Store(tmp_path), "demo", "key")
    runs, told, notes = [], [], []

    def lose(losses) -> None:
        told.append(losses)
        runs.append(kept.rounds())
        if len(runs) in {3, 5}:  # twice it gets on
            rounds = 10 * len(runs)
            history = (0.5,) * rounds
            kept.write(Snapshot(b"m", history), RECORD.model_copy(update={"rounds": rounds}))
        if len(runs) == 8:
            kept.write_folds(50, 1, (FoldFigure(learned=3, judged=1, value=0.5),))
        raise LostWorkerError("training worker 2 is gone.")

    with pytest.raises(
        LostWorkerError, match=rf"lost {PATIENCE + 1} times in a row after round 50"
    ):
        go_on_after_losses(lose, kept, notes.append)
    assert runs == [0, 0, 0, 30, 30, 50, 50, 50, 50, 50, 50]
    assert told == [0, 1, 2, 1, 2, 1, 2, 3, 1, 2, 3]
    assert notes[-1] == "training worker 2 is gone. Going on after round 50."


@pytest.mark.parametrize("kind", [DataError, ArclightError, KeyboardInterrupt])
def test_what_is_no_loss_is_not_tried_again(tmp_path, kind):
    runs = []

    def fail(_losses) -> None:
        runs.append(1)
        raise kind("no.")

    with pytest.raises(kind):
        go_on_after_losses(fail, Checkpoints(Store(tmp_path), "demo", "key"), silent_tell)
    assert len(runs) == 1


def test_a_checkpoint_that_cannot_be_written_names_the_round(tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "checkpoints").write_text("in the way")
    else:
        tmp_path.chmod(0o500)
    kept = Checkpoints(Store(tmp_path), "demo", "key")
    with pytest.raises(ArclightError, match="checkpoint after round 7 must be written, but"):
        kept.write(Snapshot(b"m", (0.5,) * 7), RECORD.model_copy(update={"rounds": 7}))
    assert kept.newest() is None
