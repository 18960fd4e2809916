"""A search by several hosts: the trials of one, whoever is lost, and nobody to blame."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ray.exceptions import OutOfMemoryError

from arclight.errors import ConflictError, IntegrityError, LostWorkerError
from arclight.progress import silent, silent_tell
from arclight.study import alone, open_study, trial_lines
from arclight.trials import Trials
from cluster.sizing import Crew
from ray_apps import ray_search
from ray_apps.crews import Room
from ray_apps.ray_search import RemoteController, search_on_nodes
from ray_apps.train import fit_request
from ray_apps.tuning.worker import REQUEST, SearchRequest
from tests.ray_apps.make_dataset import make_dataset
from tests.ray_apps.test_tune import searched, spec_of

ROOT = Path(__file__).parents[2]
SMALL = (600, 200, 100)
TUNE = {"trials": 24, "sampler": "random", "scheduler": "none"}
ROUNDS = 400


class Asked:
    """A study and the folder of its request, as the command makes them."""

    def __init__(self, tmp_path, **tune):
        self.made = make_dataset(tmp_path / "store", rows=SMALL)
        self.spec = spec_of("lightgbm", {**TUNE, **tune}, rounds=ROUNDS, workers=1)
        catalog, manifest = self.made.catalog, self.made.manifest
        self.study, _ = open_study(catalog.store, manifest, self.spec)
        self.folder = tmp_path / "work"
        self.folder.mkdir()
        request = SearchRequest(
            study=self.study, fit=fit_request(catalog, manifest, self.spec, Crew(2, 1)),
            room=Room(at_once=1, row_bytes={}, bins_bytes=0), since=time.time(),
        )  # fmt: skip
        (self.folder / REQUEST).write_text(request.to_json())

    def trials(self):
        return Trials.read(trial_lines(self.made.catalog.store, self.study))

    def search(self, tick=silent, tell=silent_tell):
        search_on_nodes(self.folder, tick, tell, Crew(2, 1))


def processes(*names):
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            said = " ".join(process.cmdline())
        except psutil.Error:
            continue
        found += [process] if any(name in said for name in names) else []
    return found


def killer(name, after=4, is_time=lambda: True):
    """Return a tick that kills the first process of a name once so many trials ended."""
    killed = []

    def tick(done, _total, _note):
        if done >= after and not killed and is_time():
            victim = processes(name)[0]
            killed.append(done)
            victim.kill()

    return tick, killed


def gone(*names):
    _, alive = psutil.wait_procs(processes(*names), timeout=10)
    return not alive


@pytest.mark.ray
def test_two_hosts_make_the_trials_of_one(ray_cluster, tmp_path):
    asked, notes = Asked(tmp_path / "a"), []
    asked.search(lambda *a: notes.append(a))
    ended = asked.trials().ended
    assert sorted(ended) == list(range(24))
    assert {trial.host for trial in ended.values()} == {0, 1}
    spec = spec_of("lightgbm", TUNE, rounds=ROUNDS)
    alone = searched(make_dataset(tmp_path / "b", rows=SMALL), spec, tmp_path)[1].ended
    assert {n: (t.params, t.value) for n, t in ended.items()} == {
        n: (t.params, t.value) for n, t in alone.items()
    }
    assert notes[0][2] == "reading on 2 nodes"
    assert notes[-1][:2] == (24, 24)
    assert gone("HostProcess", "ControllerProcess")


@pytest.mark.ray
def test_U1_what_a_lost_host_was_at_goes_to_the_others(ray_cluster, tmp_path):
    asked, told = Asked(tmp_path), []

    def both_have_begun():  # one that still reads is at no trial
        return {trial.host for trial in asked.trials().ended.values()} == {0, 1}

    tick, killed = killer("HostProcess.search", is_time=both_have_begun)
    asked.search(tick, told.append)
    assert killed
    (count,) = [int(n) for text in told for n in re.findall(r"Its (\d+) trials go to the", text)]
    trials = asked.trials()
    assert sorted(trials.ended) == list(range(24))
    assert {t.state for t in trials.ended.values()} == {"complete"}
    lines = [json.loads(line) for line in trials.lines.path.read_text().splitlines()]
    assert sum("ended" in line for line in lines) == 24
    assert sum("begun" in line for line in lines) == 24 + count  # 0 between two trials


@pytest.mark.ray
def test_U1_one_that_decides_is_lost_and_the_same_goes_on(ray_cluster, tmp_path):
    asked = Asked(tmp_path)
    tick, killed = killer("ControllerProcess")
    with pytest.raises(LostWorkerError, match="decides for the search"):
        asked.search(tick)
    before = asked.trials()
    assert killed[0] <= len(before.ended) < 24
    asked.search()
    after = asked.trials()
    assert sorted(after.ended) == list(range(24))
    assert all(after.ended[n] == trial for n, trial in before.ended.items())


ENDED = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory. Memory")


def test_a_host_that_ray_ended_for_its_memory_is_one_that_is_lost(monkeypatch):
    """Ray has another error for it than for a process that was killed by others."""
    told, asked = [], []

    class Decides:
        said = staticmethod(lambda: (0, 4, ""))

        def lost(self, host, why):
            asked.append((host, why))
            return 2

    monkeypatch.setattr(ray_search.ray, "wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr(ray_search, "failure_of", {"a": None, "b": ENDED}.get)
    assert ray_search._watch({"a": 0, "b": 1}, Decides(), silent, told.append) == 1
    assert [host for host, _ in asked] == [1]
    assert told[0].startswith("Ray lost host 2 of 2 of the search (1 worker(s) were killed due to")


def test_so_is_one_that_decides(monkeypatch):
    def get(_):
        raise ENDED

    monkeypatch.setattr(ray_search.ray, "get", get)
    with pytest.raises(LostWorkerError, match="lost the process that decides"):
        RemoteController(None)._wait_for(None)


@pytest.mark.ray
def test_an_interrupt_leaves_what_ran_and_no_process(ray_cluster, tmp_path):
    asked = Asked(tmp_path)

    def tick(done, _total, _note):
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked.search(tick)
    trials = asked.trials()
    assert 3 <= len(trials.ended) < 24
    assert trials.begun
    assert all(trials.attempts[n] == 0 for n in trials.begun)
    assert gone("HostProcess", "ControllerProcess")


@pytest.mark.ray
def test_what_is_wrong_with_the_data_ends_it_and_blames_no_trial(ray_cluster, tmp_path):
    asked = Asked(tmp_path)
    home = asked.made.catalog.folder(asked.made.manifest)
    os.truncate(home / asked.made.manifest.files_of("train")[0].path, 30)
    with pytest.raises(IntegrityError, match="train"):
        asked.search()
    assert asked.trials().ended == {}


@pytest.mark.ray
def test_hosts_whose_trials_are_in_a_database(ray_cluster, tmp_path, postgres):
    """Who decides has the password by the command alone; the server is gone for a while."""
    asked = Asked(tmp_path, storage=postgres.url)
    stopped = []

    def tick(done, _total, _note):
        if done >= 4 and not stopped:
            postgres.stop()
            stopped.append(done)
            time.sleep(0.5)
            postgres.start()

    asked.search(tick=tick)
    trials = asked.trials()
    assert len(stopped) == 1
    assert sorted(trials.ended) == list(range(24))
    assert {t.state for t in trials.ended.values()} == {"complete"}
    assert len(trials.lines.after(0)[0]) == 1 + 2 * 24  # what it may spend; none was begun twice


@pytest.mark.ray
def test_another_command_that_searches_is_said_and_not_waited_for(ray_cluster, tmp_path):
    asked, told = Asked(tmp_path), []
    lines = trial_lines(asked.made.catalog.store, asked.study)
    with alone(lines, asked.study), pytest.raises(ConflictError, match="by another command"):
        asked.search(tell=told.append)
    assert told == []
    assert gone("HostProcess", "ControllerProcess")


@pytest.mark.fault
def test_U1_a_node_is_lost_while_a_search_runs_on_three(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "tests.ray_apps.searching_nodes", str(tmp_path)],
        cwd=ROOT, timeout=240, check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
    )  # fmt: skip
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["lost"]
    assert told["hosts"] == [0, 1, 2]
    assert told["nodes"] == 3
    assert (told["ended"], told["states"]) == (40, ["complete"])
    # all nodes are of one machine here, and the one that decides may be on the one that is lost
    said = ("go to the others", "lost the process that decides")
    assert any(text in note for note in told["notes"] for text in said)
