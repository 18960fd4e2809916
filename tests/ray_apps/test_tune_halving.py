"""Rung by rung: the same trials go on whatever runs beside them, and none is made twice."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys

import pytest

from arclight.halving import rungs_of
from ray_apps.tuning import turns
from tests.ray_apps.make_dataset import make_dataset
from tests.ray_apps.test_tune import (
    ONE_CORE,
    ROOT,
    SMALL,
    SPACE,
    TWO_CORES,
    searched,
    spec_of,
)

TUNE = {"trials": 18, "scheduler": "halving"}
ROUNDS = 27  # looked at after 1, 3 and 9
COUNTS = [18, 6, 2, 1]


@pytest.fixture
def fresh(tmp_path):
    return make_dataset(tmp_path / "store", rows=SMALL)


def grown(monkeypatch, name):
    """Return a list that gets longer with each round that is made."""
    module = {"xgboost": "xgb", "lightgbm": "lgbm"}[name]
    growing = importlib.import_module(f"ray_apps.trainers.{module}")._Growing
    seen, grow = [], growing.grow
    monkeypatch.setattr(growing, "grow", lambda self, number: seen.append(1) or grow(self, number))
    return seen


def trials_by(name, folder, *, tune=None, cores=1, **section):
    """Return the trials of a search on rows of its own, without what a clock says."""
    made = make_dataset(folder / "store", rows=SMALL)
    profile = ONE_CORE.model_copy(update={"cores": cores})
    spec = spec_of(name, {**TUNE, **(tune or {})}, rounds=ROUNDS, **section)
    _, trials = searched(made, spec, folder, profile=profile)
    return [plain(trial) for _, trial in sorted(trials.ended.items())]


def plain(trial):
    seconds = {"queue_s", "bin_s", "train_s", "judge_s"}
    return trial.model_dump(exclude=seconds)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_the_same_trials_whatever_runs_beside_them_and_waits(name, tmp_path, monkeypatch):
    seen = grown(monkeypatch, name)
    wanted = trials_by(name, tmp_path / "one")
    heights = [*rungs_of(ROUNDS), ROUNDS]
    assert [sum(t["rounds"] >= height for t in wanted) for height in heights] == COUNTS
    assert sum(t["state"] == "complete" for t in wanted) == 1
    once = 18 * 1 + 6 * 2 + 2 * 6 + 18
    assert len(seen) == once  # what waits is not begun anew
    for cores, most in ((2, 16), (4, 16), (2, 2), (3, 0)):
        monkeypatch.setattr(turns, "MOST", most)
        del seen[:]
        assert trials_by(name, tmp_path / f"{cores}-{most}", cores=cores) == wanted
        assert (len(seen) == once) == (most == 16)


def test_each_rung_has_the_best_third_of_those_at_the_one_below(tmp_path):
    trials = trials_by("xgboost", tmp_path)
    for low, high in zip(rungs_of(ROUNDS), (*rungs_of(ROUNDS)[1:], ROUNDS), strict=True):
        came = [(dict(t["points"])[low], t["rounds"]) for t in trials if t["rounds"] >= low]
        went = [figure for figure, rounds in came if rounds >= high]
        assert min(went) >= max(figure for figure, rounds in came if rounds < high)


def test_among_several_trainers_each_has_rungs_of_its_own(tmp_path):
    trainers = {name: {"space": SPACE[name], "rounds": ROUNDS} for name in ("xgboost", "lightgbm")}
    found = [
        trials_by("xgboost", tmp_path / str(n), cores=n, tune={"space": {}, "trainers": trainers})
        for n in (1, 2)
    ]
    assert found[0] == found[1]
    for name in trainers:
        mine = [t for t in found[0] if t["params"]["trainer"] == name]
        assert sum(t["rounds"] >= 3 for t in mine) == len(mine) // 3
        assert sum(t["state"] == "complete" for t in mine) == 1


@pytest.mark.parametrize("about", [{"folds": 3}, {"fidelity": "rows"}], ids=str)
def test_stages_and_networks_begin_anew_when_they_go_on(about, tmp_path):
    found = [trials_by("lightgbm", tmp_path / str(n), cores=n, tune=about) for n in (1, 2)]
    assert found[0] == found[1]
    assert sum(t["state"] == "complete" for t in found[0]) >= 1


def test_networks(tmp_path):
    found = trials_by("torch", tmp_path, tune={"trials": 6})
    assert sum(t["rounds"] >= 3 for t in found) == 2
    assert sum(t["state"] == "complete" for t in found) == 1


def test_several_ways_to_bin(tmp_path):
    space = {"max_bin": {"choice": [16, 32, 64, 128]}, **SPACE["xgboost"]}
    found = [
        trials_by("xgboost", tmp_path / str(n), cores=n, tune={"space": space}) for n in (1, 3)
    ]
    assert found[0] == found[1]


def test_with_early_stopping(tmp_path):
    found = [trials_by("lightgbm", tmp_path / str(n), cores=n, early_stopping=2) for n in (1, 2)]
    assert found[0] == found[1]


def test_more_trials_may_be_asked_for(fresh, tmp_path):
    spec = spec_of("xgboost", TUNE, rounds=ROUNDS)
    searched(fresh, spec, tmp_path)
    more = spec_of("xgboost", {**TUNE, "trials": 36}, rounds=ROUNDS)
    _, trials = searched(fresh, more, tmp_path, profile=TWO_CORES)
    whole = trials_by("xgboost", tmp_path / "whole", tune={"trials": 36})
    mine = [plain(trial) for _, trial in sorted(trials.ended.items())]
    # those that went on as the best of eighteen are no worse known for that
    assert all(a["rounds"] >= b["rounds"] for a, b in zip(mine, whole, strict=True))
    best = max((t for t in whole if t["state"] == "complete"), key=lambda t: t["value"])
    assert best in mine


def test_its_progress_is_one_of_rounds(fresh, tmp_path):
    seen = []
    spec = spec_of("xgboost", TUNE, rounds=ROUNDS)
    searched(fresh, spec, tmp_path, tick=lambda *told: seen.append(told))
    assert seen[-1][:2] == (18, 18)


CHILD = """
import os, signal, sys
from pathlib import Path
from arclight.progress import silent, silent_tell
from arclight.catalog import Catalog
from arclight.spec import Spec
from arclight.store import Store
from arclight.study import open_study
from arclight.trials import Trials
from ray_apps.tune import search
from tests.ray_apps.conftest import ONE_CORE

store, spec, folder, ends = sys.argv[1:]
catalog = Catalog(Store(Path(store)))
spec = Spec.model_validate_json(Path(spec).read_text())
manifest = catalog.dataset("demo")
end, count = Trials.end, 0

def counted(self, trial):
    global count
    end(self, trial)
    count += 1
    if count == int(ends):
        os.kill(os.getpid(), signal.SIGKILL)

Trials.end = counted
study, _ = open_study(catalog.store, manifest, spec)
search(catalog, manifest, spec, study, profile=ONE_CORE, run_folder=Path(folder), tick=silent,
       tell=silent_tell)
"""


def test_U1_killed_at_each_stage_it_comes_to_the_same_trials(fresh, tmp_path):
    wanted = trials_by("lightgbm", tmp_path / "whole")
    spec = spec_of("lightgbm", TUNE, rounds=ROUNDS)
    (tmp_path / "spec.json").write_text(spec.model_dump_json(by_alias=True))
    args = [str(fresh.catalog.store.root), str(tmp_path / "spec.json"), str(tmp_path)]
    for ends in ("7", "12", "3", "2", "1", "1"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *args, ends],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
    _, trials = searched(fresh, spec, tmp_path)
    assert [plain(trial) for _, trial in sorted(trials.ended.items())] == wanted
    assert not any(trials.attempts.values())
