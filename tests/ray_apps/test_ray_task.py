"""Training in a Ray task: the same model as in this process, and errors that say why."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import numpy as np
import psutil
import pyarrow as pa
import pytest

from arclight.errors import DataError, EngineError
from arclight.progress import silent
from cluster.sizing import Crew
from ray_apps.fit import run_fit
from ray_apps.fit_files import OUTCOME
from ray_apps.ray_task import END_S, STOP, _ended_on_demand, fit_in_task, fit_worker
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.make_dataset import make_dataset, make_spec
from tests.ray_apps.test_tune import searched
from tests.ray_apps.test_tune import spec_of as search_of

pytestmark = pytest.mark.ray

SAMPLED = {"bagging_fraction": 0.6, "bagging_freq": 1, "feature_fraction": 0.6}


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_T5_a_ray_worker_gives_the_bytes_of_this_process(ray_cluster, trained, tmp_path, name):
    _, here = trained("binary", name)
    made = make_dataset(tmp_path / "store")
    seen = []
    there = train(
        made, make_spec(trainer=name, workers=1), tmp_path, tick=lambda *a: seen.append(a)
    )
    assert there.model_digest == here.model_digest
    assert there.key == here.key
    assert seen
    assert list((tmp_path / "fit").iterdir()) == []


def test_RT1_rounds_cost_no_poll_of_the_controller(ray_cluster, tmp_path):
    """With a report per round this takes two seconds a round, or more than three minutes."""
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    spec = make_spec(trainer="lightgbm", workers=1, rounds=100, early_stopping=None)
    start = time.monotonic()
    assert train(made, spec, tmp_path).rounds == 100
    assert time.monotonic() - start < 100


def test_a_task_and_this_process_give_the_same_bytes(ray_cluster, fit_folder):
    folder = fit_folder()
    run_fit(folder, silent)
    here = (folder / "model.txt").read_bytes()
    (folder / "model.txt").unlink()
    fit_in_task(folder, silent, Crew(1, 1))
    assert (folder / "model.txt").read_bytes() == here


def test_a_tasks_error_comes_back_as_it_was_raised(ray_cluster, fit_folder):
    folder = fit_folder(label={"train": pa.array(np.resize([0.0, 7.0], 400))})
    with pytest.raises(DataError, match="0 or 1, but 200 of 400 rows of the train split"):
        fit_in_task(folder, silent, Crew(1, 1))


def test_T1_a_killed_worker_is_an_error_and_not_a_hang(ray_cluster, fit_folder):
    folder = fit_folder(rounds=100_000, early_stopping=None)
    killed = []

    def kill(done, _total, _note):
        if done > 10 and not killed:
            mine = [p for p in psutil.Process().children(recursive=True) if _is_fit(p)]
            killed.extend(mine)
            for process in mine:
                process.kill()

    lost = r"lost the training worker .* it held 0\.\d GiB when last heard of; see the run's log"
    with pytest.raises(EngineError, match=f"(?s){lost}"):
        fit_in_task(folder, kill, Crew(1, 1))
    assert len(killed) == 1
    assert not (folder / OUTCOME).exists()


def test_T1_a_killed_worker_costs_the_rounds_since_its_checkpoint(ray_cluster, tmp_path):
    section = {"trainer": "lightgbm", "rounds": 300, "early_stopping": None, "params": SAMPLED}
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    wanted = train(
        make_dataset(tmp_path / "other", rows=(400, 100, 100)),
        make_spec(workers=0, **section),
        tmp_path,
    )
    notes, lost = [], []

    def kill(done, _total, note):
        if note.startswith("valid") and len(lost) < 2 and done > (10, 150)[len(lost)]:
            lost.append(done)
            for process in psutil.Process().children(recursive=True):
                if _is_fit(process):
                    process.kill()

    spec = make_spec(workers=1, checkpoint_every="0s", **section)
    found = train(made, spec, tmp_path, tick=kill, tell=notes.append)
    assert found.model_digest == wanted.model_digest
    assert len(found.resumed) == len(lost) == 2
    assert all(r.exact and r.rounds > 10 for r in found.resumed)
    assert sum("Ray lost the training worker" in note for note in notes) == 2


@pytest.mark.parametrize("keeps", ["file", "postgres"])
def test_U1_a_search_that_loses_its_worker_goes_on(ray_cluster, tmp_path, keeps, request):
    """One trial at a time: the trials are those of a search that lost nothing.

    The processes of Ray have the password of the server by the command alone.
    """
    tune = {"trials": 14, "sampler": "tpe", "scheduler": "none", "at_once": 1}
    kept = {"storage": request.getfixturevalue("postgres").url} if keeps == "postgres" else {}
    spec = search_of("lightgbm", {**tune, **kept}, rounds=400, workers=1)
    wanted, whole = searched(
        make_dataset(tmp_path / "other", rows=(400, 100, 100)),
        search_of("lightgbm", tune, rounds=400),
        tmp_path,
    )
    lost, notes = [], []

    def kill(done, _total, _note):
        if done >= 4 and not lost:
            lost.append(done)
            for process in psutil.Process().children(recursive=True):
                if _is_fit(process):
                    process.kill()

    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    found, trials = searched(made, spec, tmp_path, tick=kill, tell=notes.append)
    assert len(lost) == 1
    assert "Going on after trial" in notes[0]
    assert found == wanted
    assert {n: (t.params, t.value, t.rounds) for n, t in trials.ended.items()} == {
        n: (t.params, t.value, t.rounds) for n, t in whole.ended.items()
    }


def interrupted_in_its_rounds(folder):
    """Interrupt a training and see that its worker is gone."""
    workers = []

    def interrupt(done, _total, _note):
        if done > 10:
            workers.extend(p for p in psutil.Process().children(recursive=True) if _is_fit(p))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_in_task(folder, interrupt, Crew(1, 1))
    assert len(workers) == 1
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_an_interrupted_training_writes_no_more(ray_cluster, fit_folder):
    interrupted_in_its_rounds(fit_folder(rounds=100_000, early_stopping=None))


def test_a_task_that_is_interrupted_before_its_first_word_ends(
    ray_cluster, fit_folder, monkeypatch
):
    folder = fit_folder(rounds=100_000, early_stopping=None)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ray_apps.ray_task.check_room", interrupt)
    # looked at at once: a worker that is there already says its first word within a poll
    monkeypatch.setattr("ray_apps.ray_task.POLL_S", 0.0)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fit_in_task(folder, silent, Crew(1, 1))
    assert time.monotonic() - begun < END_S + 5
    left = [p for p in psutil.Process().children(recursive=True) if _is_fit(p)]
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []
    assert not (folder / OUTCOME).exists()


@pytest.mark.fault
def test_a_worker_that_does_not_see_the_file_is_ended_by_ray(ray_cluster, fit_folder, monkeypatch):
    """A network's file system may show it too late."""
    monkeypatch.setattr("ray_apps.ray_task.STOP", "another")  # in this process only
    interrupted_in_its_rounds(fit_folder(rounds=100_000, early_stopping=None))


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(EngineError, match="put the store on a folder that every node mounts"):
        fit_worker(str(tmp_path / "elsewhere"))


def test_a_slow_look_at_a_folder_does_not_end_what_comes_after(tmp_path, monkeypatch):
    """The task is over and its folder is gone before an answer comes."""
    begun = threading.Event()

    def slow(_folder):
        begun.set()
        time.sleep(1)
        return {STOP}

    monkeypatch.setattr("ray_apps.ray_task._names", slow)
    monkeypatch.setattr("ray_apps.ray_task.POLL_S", 0.01)
    monkeypatch.setattr("os._exit", lambda _: pytest.fail("the process was ended"))
    with _ended_on_demand(tmp_path):
        begun.wait(5)
    time.sleep(1.5)
    assert not [t for t in threading.enumerate() if t.name == "ended-on-demand"]


def _is_fit(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        said = " ".join(process.cmdline())
        return "fit_worker" in said or "search_worker" in said
    return False


def test_ctrl_c_stays_with_the_command(ray_cluster, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    train(made, make_spec(trainer="lightgbm", workers=1, rounds=3), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_workers_error_comes_back_as_it_was_raised(ray_cluster, tmp_path):
    labels = np.resize([0.0, 1.0], 400)
    labels[17] = np.nan
    made = make_dataset(
        tmp_path / "store", rows=(400, 100, 100), label={"train": pa.array(labels)}
    )
    with pytest.raises(DataError, match="0 or 1, but 1 of 400 rows of the train split"):
        train(made, make_spec(trainer="lightgbm", workers=1), tmp_path)
    assert list(made.catalog.models("demo")) == []
