"""Training on several Ray workers: the model of a gang, and errors that name the worker."""

from __future__ import annotations

import contextlib
import os
from functools import partial

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
from ray.exceptions import OutOfMemoryError

from arclight.errors import DataError, EngineError, LostWorkerError
from arclight.progress import silent
from cluster.profiles import Profile
from cluster.sizing import Crew
from ray_apps.fit_files import OUTCOME
from ray_apps.ray_gang import _first_cause, fit_in_gang
from tests.ray_apps.conftest import train_here
from tests.ray_apps.make_dataset import make_dataset, make_spec

pytestmark = pytest.mark.ray

TWO_CORES = Profile(name="two", cores=2, memory_gib=4.0)
train = partial(train_here, profile=TWO_CORES)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_two_ray_workers_come_to_the_metric_of_one_process(ray_cluster, trained, tmp_path, name):
    _, alone = trained("binary", name)
    made = make_dataset(tmp_path / "store")
    seen = []
    spec = make_spec(trainer=name, workers=2)
    bundle = train(made, spec, tmp_path, tick=lambda *a: seen.append(a))
    assert bundle.train_metrics["valid"] == pytest.approx(alone.train_metrics["valid"], abs=0.01)
    assert seen[-1][0] == seen[-1][1]
    assert list((tmp_path / "fit").iterdir()) == []


def test_the_error_of_one_worker_is_told_and_not_that_the_others_missed_it(
    ray_cluster, fit_folder
):
    # one worker alone has the bad labels
    folder = fit_folder(
        workers=2, label={"train": pa.array(np.r_[[7.0], np.resize([0.0, 1.0], 399)])}
    )
    with pytest.raises(DataError, match="0 or 1, but 1 of 200 rows of the train split"):
        fit_in_gang(folder, silent, Crew(2, 1))


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.timeout(120)
def test_a_killed_worker_is_named_and_nobody_hangs(ray_cluster, fit_folder, name):
    folder = fit_folder(name, workers=2, rounds=100_000, early_stopping=None)
    killed = []

    def kill(done, _total, _note):
        if done > 10 and not killed:
            killed.append(gang_processes()[-1])
            killed[0].kill()

    with pytest.raises(EngineError, match=r"Ray lost training worker \d of 2"):
        fit_in_gang(folder, kill, Crew(2, 1))
    assert not (folder / OUTCOME).exists()
    _, alive = psutil.wait_procs(gang_processes(), timeout=10)
    assert alive == []


class Gone:
    """A worker whose process ends, or whose library fails."""

    def fit(self, dies: bool) -> None:
        if dies:
            os._exit(1)
        raise EngineError("XGBoost failed: a connection was closed; see the run's log.")


def test_a_worker_that_is_gone_is_told_and_not_that_a_library_failed_elsewhere(
    ray_cluster, tmp_path
):
    """The training goes on after the one, and ends with the other."""
    actors = [ray.remote(num_cpus=0)(Gone).remote() for _ in range(2)]
    running = [actor.fit.remote(bool(rank)) for rank, actor in enumerate(actors)]
    ray.wait(running, num_returns=2, timeout=60)  # a process may take longer to start than to fail
    told = _first_cause(running, tmp_path)
    assert isinstance(told, LostWorkerError)
    assert "Ray lost training worker 2 of 2" in str(told)


def test_one_that_ray_ended_for_its_memory_is_gone_as_well(monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    failures = {0: OutOfMemoryError("1 worker(s) were killed due to the node"), 1: None}
    monkeypatch.setattr("ray_apps.ray_gang.failure_of", failures.get)
    told = _first_cause([0, 1], tmp_path)
    assert isinstance(told, LostWorkerError)
    assert "Ray lost training worker 1 of 2" in str(told)


@pytest.mark.parametrize("name", ["xgboost", pytest.param("lightgbm", marks=pytest.mark.fault)])
@pytest.mark.timeout(120)
def test_T1_a_gang_that_loses_a_worker_goes_on(ray_cluster, tmp_path, name):
    rounds = {"xgboost": 300, "lightgbm": 60}[name]  # a quick one is done before anybody looks
    section = {"trainer": name, "rounds": rounds, "early_stopping": None, "workers": 2}
    undisturbed, disturbed = (
        make_dataset(tmp_path / place, rows=(1200, 400, 100)) for place in ("one", "other")
    )
    wanted = train(undisturbed, make_spec(**section), tmp_path)
    killed, notes = [], []

    def kill(done, _total, note):
        if done > 20 and note.startswith("valid") and not killed:
            killed.append(gang_processes()[-1])
            killed[0].kill()

    again = make_spec(checkpoint_every="0s", **section)
    found = train(disturbed, again, tmp_path, tick=kill, tell=notes.append)
    assert killed
    assert any(note.startswith("Ray lost training worker") for note in notes)
    assert (found.rounds, len(found.resumed)) == (wanted.rounds, 1)
    assert found.train_metrics["valid"] == pytest.approx(wanted.train_metrics["valid"], abs=1e-3)
    (again,) = found.resumed
    assert (again.workers, again.exact) == (2, False)
    assert again.rounds > 20


@pytest.mark.parametrize(("name", "more"), [("lightgbm", set()), ("xgboost", {"0.0.0.0"})])
def test_workers_listen_on_their_nodes_address_only(ray_cluster, fit_folder, name, more):
    """XGBoost binds its own ports to all interfaces; if it does not any more, tell the README."""
    folder = fit_folder(name, workers=2, rounds=100_000, early_stopping=None)
    seen = []

    class Enough(Exception):
        pass

    def look(done, _total, _note):
        if done > 2:
            seen.extend(listening({process.pid for process in gang_processes()}))
            raise Enough

    with pytest.raises(Enough):
        fit_in_gang(folder, look, Crew(2, 1))
    assert {address.removeprefix("::ffff:") for address, _ in seen} == {"127.0.0.1", *more}


def test_more_workers_than_the_cluster_has_cores_for(ray_cluster, fit_folder):
    with pytest.raises(LostWorkerError, match="3 workers with 4 cores each do not fit any more"):
        fit_in_gang(fit_folder(workers=3), silent, Crew(3, 4))


def gang_processes() -> list[psutil.Process]:
    """Return the workers' processes in the order of their pids."""
    mine = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "GangWorker" in " ".join(process.cmdline()):
                mine.append(process)
    return sorted(mine, key=lambda process: process.pid)


def listening(pids: set[int]) -> set[tuple[str, int]]:
    """Return where some processes listen; tests beside this one start others."""
    found = [one for one in psutil.net_connections("tcp") if one.pid in pids]
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}
