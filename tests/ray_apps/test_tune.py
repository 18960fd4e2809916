"""Searches on real rows: what is tried, what is stopped, what is kept through a kill."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from arclight.errors import (
    ArclightError,
    EngineError,
    IntegrityError,
    LostWorkerError,
    RefusedError,
    SpecError,
)
from arclight.progress import silent, silent_tell
from arclight.study import newest_study, open_study, trial_lines, with_params
from arclight.trials import Trial, Trials
from arclight.tune_section import Tune
from cluster.sizing import Crew
from ray_apps import tune
from ray_apps.gang import Alone
from ray_apps.trainers import load_trainer
from ray_apps.tune import check_space, search
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from ray_apps.versions import versions_that_count
from tests.ray_apps.conftest import ONE_CORE, train_here
from tests.ray_apps.make_dataset import make_dataset, make_spec
from tests.ray_apps.trainers.test_trainers import make_job, make_shard

ROOT = Path(__file__).parents[2]
SMALL = (600, 200, 100)
TWO_CORES = ONE_CORE.model_copy(update={"cores": 2})
SPACE = {
    "xgboost": {
        "max_depth": {"int": [2, 5]},
        "learning_rate": {"float": [0.05, 0.5], "log": True},
    },
    "lightgbm": {"num_leaves": {"int": [3, 15]}, "learning_rate": {"float": [0.05, 0.5]}},
    "torch": {
        "width": {"choice": [8, 16]},
        "learning_rate": {"float": [0.001, 0.05], "log": True},
    },
}
SAMPLERS = ("tpe", "cma_es", "evolution", "quasi_random", "random")


def spec_of(name="xgboost", tune=None, **section):
    given = {"space": SPACE[name], "trials": 6, "sampler": "random", **(tune or {})}
    spec = make_spec(trainer=name, **{"rounds": 9, "early_stopping": None, **section})
    return spec.model_copy(update={"tune": Tune.model_validate_json(json.dumps(given))})


def searched(made, spec, folder, *, profile=ONE_CORE, tick=silent, tell=silent_tell):
    study, _ = open_study(made.catalog.store, made.manifest, spec)
    found = search(
        made.catalog, made.manifest, spec, study,
        profile=profile, run_folder=folder, tick=tick, tell=tell,
    )  # fmt: skip
    return found, Trials.read(trial_lines(made.catalog.store, study))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("s") / "store", rows=SMALL)


@pytest.fixture
def fresh(tmp_path):
    return make_dataset(tmp_path / "store", rows=SMALL)


def ended(trials):
    return list(trials.ended.values())


def count_calls(monkeypatch, name):
    """Return a list that gets longer with each figure on valid."""
    module = {"xgboost": "xgb", "lightgbm": "lgbm"}[name]
    growing = importlib.import_module(f"ray_apps.trainers.{module}")._Growing
    seen, judge = [], growing.judge
    monkeypatch.setattr(growing, "judge", lambda self: seen.append(1) or judge(self))
    return seen


class TestTrials:
    """What becomes of trials."""

    @pytest.mark.parametrize("name", ["xgboost", "lightgbm", "torch"])
    def test_the_best_trial_is_what_training_with_its_parameters_gives(
        self, fresh, tmp_path, name
    ):
        spec = spec_of(name, {"trials": 4, "scheduler": "none"})
        found, trials = searched(fresh, spec, tmp_path)
        assert (found.trials, found.stopped, found.failed) == (4, 0, 0)
        assert [t.rounds for t in trials.ended.values()] == [9] * 4
        values = {n: t.value for n, t in trials.ended.items()}
        assert found.value == max(values.values()) == values[found.trial]
        train = spec.train.model_copy(
            update={"params": {**spec.train.params, **trials.ended[found.trial].params}}
        )
        bundle = train_here(fresh, spec.model_copy(update={"train": train}), tmp_path)
        assert bundle.train_metrics["valid"] == pytest.approx(found.value, abs=1e-6)

    @pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
    def test_trials_side_by_side_give_the_figures_of_trials_alone(self, tmp_path, name):
        section = {"params": {"subsample": 0.7} if name == "xgboost" else {}}
        figures = []
        for place, profile in (("one", ONE_CORE), ("two", TWO_CORES)):
            made = make_dataset(tmp_path / place / "store", rows=SMALL)
            spec = spec_of(name, {"trials": 8, "scheduler": "none"}, **section)
            _, trials = searched(made, spec, tmp_path / place, profile=profile)
            figures.append({n: (t.params, t.value) for n, t in trials.ended.items()})
        assert figures[0] == figures[1]

    @pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
    @pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
    def test_rounds_that_nobody_asks_about_change_no_figure(
        self, tmp_path, monkeypatch, name, scheduler
    ):
        """They are judged at rungs and at the end; to be judged each time is the same search."""
        told, judged, real = [], [], Host._job
        for place in ("seldom", "always"):
            if place == "always":
                monkeypatch.setattr(
                    Host, "_job", lambda *asked: replace(real(*asked), judged=None)
                )
            made = make_dataset(tmp_path / place / "store", rows=SMALL)
            spec = spec_of(name, {"trials": 10, "scheduler": scheduler}, rounds=27)
            seen = count_calls(monkeypatch, name)
            _, trials = searched(made, spec, tmp_path / place)
            judged.append(len(seen))
            told.append([(t.params, t.state, t.points, t.value, t.rounds) for t in ended(trials)])
            assert all(0 < t.judge_s < t.train_s for t in ended(trials))
        assert told[0] == told[1]
        assert judged[0] * 2 < judged[1]

    @pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
    def test_without_early_stopping_the_model_has_the_figure_that_was_told(
        self, fresh, tmp_path, scheduler
    ):
        """One that was stopped on the way may look better than all, and be trained to be worse."""
        tune = {"trials": 12, "scheduler": scheduler, "space": {"max_depth": {"int": [6, 12]}}}
        section = {"rounds": 81, "metric": "log_loss", "params": {"learning_rate": 1.5}}
        spec = spec_of("xgboost", tune, **section)
        found, trials = searched(fresh, spec, tmp_path)
        figures = [t.value for t in ended(trials)]
        assert min(figures) < found.value  # it overfits
        assert trials.ended[found.trial].state == "complete"
        train = with_params(spec.train, spec.tune, found.params)
        model = train_here(fresh, spec.model_copy(update={"train": train}), tmp_path)
        assert model.train_metrics["valid"] == pytest.approx(found.value, abs=1e-6)
        study = newest_study(fresh.catalog.store, spec.name)
        assert study.ranked(trials)[-1].state == "stopped"
        early = study.train.model_copy(update={"early_stopping": 5})
        assert study.model_copy(update={"train": early}).best(trials).value == min(figures)

    def test_a_target_is_one_of_a_model(self, fresh, tmp_path):
        """Without early stopping not of a trial that was stopped on the way."""
        study, trials = open_study(
            fresh.catalog.store, fresh.manifest, spec_of(tune={"trials": 9, "target": 0.7})
        )
        controller = Controller(study, trials)
        for state, goes_on in (("stopped", True), ("complete", False)):
            number, params = controller.next(0)
            controller.end(Trial(number=number, params=params, state=state, value=0.8))
            asked = controller.next(0)
            assert (asked is not None) == goes_on
            if asked:
                controller.leave(asked[0], 0)

    def test_a_search_whose_time_is_over_at_once_says_so(self, fresh, tmp_path, monkeypatch):
        monkeypatch.setattr(Host, "_is_late", lambda _: True)
        monkeypatch.setattr(Controller, "_is_over", lambda _: True)
        with pytest.raises(
            ArclightError, match=r"no trial of study demo@1 ended within tune"
        ) as e:
            searched(fresh, spec_of(tune={"trials": 3, "time_limit_s": 1}), tmp_path)
        assert e.value.exit_status == 1

    def test_with_early_stopping_each_round_is_judged(self, fresh, tmp_path, monkeypatch):
        spec = spec_of("xgboost", {"trials": 3, "scheduler": "none"}, rounds=9, early_stopping=4)
        seen = count_calls(monkeypatch, "xgboost")
        _, trials = searched(fresh, spec, tmp_path)
        assert len(seen) == sum(t.rounds for t in ended(trials))

    def test_rows_are_binned_once_for_those_that_bin_alike(self, fresh, tmp_path, monkeypatch):
        made = []
        trainer = type(load_trainer("xgboost"))
        prepare = trainer.prepare
        monkeypatch.setattr(
            trainer, "prepare", lambda self, *a, **k: made.append(a[2]) or prepare(self, *a, **k)
        )
        space = {**SPACE["xgboost"], "max_bin": {"choice": [16, 64]}}
        tune = {"sampler": "grid", "trials": 8, "space": {"max_bin": space["max_bin"],
                "max_depth": {"int": [2, 5]}}}  # fmt: skip
        _, trials = searched(fresh, spec_of("xgboost", tune), tmp_path)
        assert len(trials.ended) == 8
        assert sorted(job.params["max_bin"] for job in made) == [16, 64]

    def test_asha_stops_most_and_keeps_the_best(self, fresh, tmp_path):
        tune = {"trials": 20, "scheduler": "asha"}
        found, trials = searched(fresh, spec_of("xgboost", tune, rounds=27), tmp_path)
        ended = list(trials.ended.values())
        stopped = [t for t in ended if t.state == "stopped"]
        assert 8 <= len(stopped) < 20
        assert found.stopped == len(stopped)
        assert all(t.rounds in (1, 3, 9) for t in stopped)
        assert all(t.reason.startswith("not among the best after") for t in stopped)
        assert all(t.points[-1][1] == t.value for t in stopped)
        assert sum(t.rounds for t in ended) < 0.6 * 20 * 27

    def test_U2_what_fails_is_listed_with_its_reason_and_never_the_best(
        self, fresh, tmp_path, monkeypatch
    ):
        trainer = type(load_trainer("xgboost"))
        fit = trainer.fit

        def fails(self, data, job, gang, watch):
            if job.params["max_depth"] == 2:
                raise EngineError("no more of it.")
            if job.params["max_depth"] == 3:
                return fit(self, data, job, gang, lambda _h, m: watch([float("nan")], m))
            return fit(self, data, job, gang, watch)

        monkeypatch.setattr(trainer, "fit", fails)
        tune = {"sampler": "grid", "trials": 9, "space": {"max_depth": {"int": [2, 5]}}}
        found, trials = searched(fresh, spec_of("xgboost", tune), tmp_path)
        assert (found.trials, found.failed) == (4, 1)
        (failed,) = [t for t in ended(trials) if t.state == "failed"]
        assert (failed.params["max_depth"], failed.value) == (2, None)
        assert failed.reason == "no more of it."
        assert found.params["max_depth"] in (3, 4, 5)

    def test_U2_when_all_fail_the_first_reason_is_told(self, fresh, tmp_path, monkeypatch):
        trainer = type(load_trainer("xgboost"))

        def fails(self, *_):
            raise EngineError("it is broken.")

        with monkeypatch.context() as broken:
            broken.setattr(trainer, "fit", fails)
            told = r"of 6 trials of study demo@1 none .*: it is broken\. .* with --new-study"
            with pytest.raises(RefusedError, match=told):
                searched(fresh, spec_of(), tmp_path)
        # what has ended is not made again, though it would succeed by now
        with pytest.raises(RefusedError, match=told):
            searched(fresh, spec_of(), tmp_path)

    @pytest.mark.parametrize("profile", [ONE_CORE, TWO_CORES], ids=["one", "two at a time"])
    def test_U3_a_trial_that_hangs_in_a_round_fails_and_the_others_are_made(
        self, fresh, tmp_path, monkeypatch, profile
    ):
        trainer, told, ended = type(load_trainer("xgboost")), [], threading.Event()
        fit = trainer.fit

        def hanging(self, data, job, gang, watch):
            if job.params["max_depth"] == 3:
                ended.wait(60)
            return fit(self, data, job, gang, watch)

        monkeypatch.setattr(trainer, "fit", hanging)
        monkeypatch.setattr("ray_apps.tuning.host.HUNG_S", 0.5)
        space = {"max_depth": {"int": [2, 5]}}
        tune = {"trials": 4, "sampler": "grid", "space": space, "trial_limit_s": 1}
        spec = spec_of(tune={**tune, "scheduler": "none"})
        try:
            found, trials = searched(fresh, spec, tmp_path, profile=profile, tell=told.append)
        finally:
            ended.set()
        assert (found.trials, found.failed) == (4, 1)
        (hung,) = [t for t in trials.ended.values() if t.state == "failed"]
        assert hung.params == {"max_depth": 3}
        assert hung.reason == "did not come back from round 1 in 2 s"
        assert "Going on after trial" in told[0]
        lines = trials.lines.path.read_text().splitlines()
        assert sum('"ended"' in line for line in lines) == 4

    def test_a_trial_that_finds_no_memory_fails_and_the_others_do_not(
        self, fresh, tmp_path, monkeypatch
    ):
        trainer, told, beside = type(load_trainer("xgboost")), [], []
        fit, running = trainer.fit, set()

        def greedy(self, data, job, gang, watch):
            depth = job.params["max_depth"]
            running.add(depth)
            try:
                if depth == 3:
                    beside.append(len(running))
                    raise MemoryError
                return fit(self, data, job, gang, watch)
            finally:
                running.discard(depth)

        monkeypatch.setattr(trainer, "fit", greedy)
        space = {"max_depth": {"int": [2, 5]}}
        spec = spec_of(tune={"trials": 4, "sampler": "grid", "space": space, "scheduler": "none"})
        found, trials = searched(fresh, spec, tmp_path, profile=TWO_CORES, tell=told.append)
        assert (found.trials, found.failed) == (4, 1)
        (greedy_one,) = [t for t in trials.ended.values() if t.state == "failed"]
        assert greedy_one.params == {"max_depth": 3}
        assert greedy_one.reason == (
            "its process was gone 3 times before it ended, the last time: "
            "it asked for more memory than there is"
        )
        assert "asked for more memory than there is" in told[0]
        assert len(beside) == 3
        assert beside[-1] == 1  # nobody else is to blame

    def test_a_trial_that_takes_its_process_with_it_fails_after_three_times(self, fresh, tmp_path):
        spec = spec_of(tune={"trials": 3, "scheduler": "none"})
        _, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
        for _ in range(3):
            trials.begin(0, {"max_depth": 3, "learning_rate": 0.1})
        found, after = searched(fresh, spec, tmp_path)
        assert (found.trials, found.failed) == (3, 1)
        assert after.ended[0].reason == "its process was gone 3 times before it ended"

    def test_what_is_known_of_a_process_that_is_gone_stands_with_its_trial(
        self, fresh, tmp_path, monkeypatch
    ):
        spec, losses = spec_of(tune={"trials": 2, "scheduler": "none"}), []
        search_with = tune._search_with

        def killed(*args, **more):
            if len(losses) == 3:
                return search_with(*args, **more)
            _, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
            trials.begin(0, {"max_depth": 3, "learning_rate": 0.1})
            assert 1 not in trials.why_gone  # it was gone with another command
            losses.append(f"Ray lost the training worker; it held {len(losses)}.5 GiB.")
            raise LostWorkerError(losses[-1])

        _, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
        for number in (0, 1):
            trials.begin(number, {"max_depth": 3, "learning_rate": 0.1})
        trials.leave(0)
        monkeypatch.setattr(tune, "_search_with", killed)
        found, after = searched(fresh, spec, tmp_path, profile=TWO_CORES, tell=lambda _: None)
        assert (found.trials, found.failed) == (2, 1)
        assert after.ended[1].state == "complete"
        assert after.ended[0].reason == (
            "its process was gone 3 times before it ended, the last time: Ray lost the training "
            "worker; it held 2.5 GiB."
        )

    def test_a_worker_of_another_release_makes_no_trial(self, fresh, tmp_path, monkeypatch):
        spec = spec_of("lightgbm", tune={"trials": 2})
        monkeypatch.setattr(
            tune, "versions_that_count", lambda name: {**versions_that_count(name), name: "1.0"}
        )
        with pytest.raises(RefusedError, match=r"must run lightgbm 1\.0 as the command does, but"):
            searched(fresh, spec, tmp_path)
        _, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
        assert trials.begun == {}

    def test_what_is_wrong_with_the_data_ends_the_search_and_no_trial(self, fresh, tmp_path):
        trainer = type(load_trainer("xgboost"))
        spec = spec_of(tune={"trials": 3})

        def damaged(self, *args, **more):
            raise IntegrityError("restore it.")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "prepare", damaged)
            with pytest.raises(IntegrityError, match="restore it"):
                searched(fresh, spec, tmp_path, profile=TWO_CORES)
        _, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
        assert trials.ended == {}
        assert set(trials.attempts.values()) <= {0}  # no trial is to blame
        found, _ = searched(fresh, spec, tmp_path)
        assert (found.trials, found.failed) == (3, 0)

    def test_a_target_that_is_reached_ends_the_search(self, fresh, tmp_path):
        tune = {"trials": 30, "scheduler": "none", "target": 0.6}
        found, trials = searched(fresh, spec_of("xgboost", tune), tmp_path)
        assert found.value >= 0.6
        assert len(trials.ended) < 30

    def test_ended_trials_are_not_run_again_and_more_may_be_asked_for(self, fresh, tmp_path):
        first, before = searched(fresh, spec_of(tune={"trials": 4}), tmp_path)
        again, after = searched(fresh, spec_of(tune={"trials": 7}), tmp_path)
        assert (first.trials, again.trials) == (4, 7)
        assert all(after.ended[n] == trial for n, trial in before.ended.items())

    def test_networks_run_one_after_another(self, fresh, tmp_path):
        seen = []
        spec = spec_of("torch", {"trials": 3, "scheduler": "none"}, rounds=1)
        searched(fresh, spec, tmp_path, profile=TWO_CORES, tick=lambda *a: seen.append(a[2]))
        assert not any("2 running" in note for note in seen)
        assert "best" in seen[-1]


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

root, folder, spec, count = sys.argv[1:]
catalog, spec = Catalog(Store(Path(root))), Spec.model_validate_json(spec)
manifest = catalog.dataset("demo")
study, _ = open_study(catalog.store, manifest, spec)
end, begun = Trials.end, Trials.begin
def counted(self, trial):
    end(self, trial)
def begins(self, number, params):
    begun(self, number, params)
    if number == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
Trials.end, Trials.begin = counted, begins
search(catalog, manifest, spec, study, profile=ONE_CORE, run_folder=Path(folder),
       tick=silent, tell=silent_tell)
"""


@pytest.mark.parametrize(
    ("sampler", "keeps"), [("tpe", "file"), ("quasi_random", "file"), ("tpe", "postgres")]
)
def test_U1_killed_at_trial_five_of_twelve_it_makes_the_trials_of_an_undisturbed_one(
    tmp_path, sampler, keeps, request
):
    """U6 as well: the fifth had begun, and is run with the parameters it had."""
    tune = {"trials": 16, "sampler": sampler, "scheduler": "asha"}
    if keeps == "postgres":
        tune |= {"storage": request.getfixturevalue("postgres").url}
    spec = spec_of("lightgbm", tune, rounds=27)
    other = make_dataset(tmp_path / "other", rows=SMALL)
    wanted, whole = searched(other, spec, tmp_path)
    made = make_dataset(tmp_path / "store", rows=SMALL)
    for count in (5, 13):
        done = subprocess.run(
            [
                sys.executable, "-c", CHILD, str(made.catalog.store.root), str(tmp_path),
                spec.model_dump_json(by_alias=True), str(count),
            ],
            cwd=ROOT, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
    study, before = open_study(made.catalog.store, made.manifest, spec)
    assert sorted(before.ended) == list(range(13))
    assert list(before.begun) == [13]
    found, trials = searched(made, spec, tmp_path)
    assert found == wanted

    def told(these):
        return {
            n: (t.params, t.value, t.rounds, t.state, t.points) for n, t in these.ended.items()
        }

    assert told(trials) == told(whole)
    lines = [json.loads(line) for line in trial_lines(made.catalog.store, study).after(0)[0]]
    assert len([li for li in lines if "ended" in li]) == 16


def test_an_interrupt_ends_it_between_rounds_and_loses_no_trial(fresh, tmp_path):
    calls = []

    def tick(done, total, note):
        calls.append(done)
        if done >= 2:
            raise KeyboardInterrupt

    spec = spec_of("xgboost", {"trials": 200, "scheduler": "none"}, rounds=40)
    with pytest.raises(KeyboardInterrupt):
        searched(fresh, spec, tmp_path, tick=tick)
    _, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
    assert 2 <= len(trials.ended) < 200
    assert all(t.state == "complete" for t in trials.ended.values())
    assert threading.active_count() < 10


def test_an_interrupt_is_noted_though_its_worker_is_let_go_of_by_and_by(
    fresh, tmp_path, monkeypatch
):
    """As by a database, which sees a moment later that a process has ended."""
    spec = spec_of("xgboost", {"trials": 3})
    study, trials = open_study(fresh.catalog.store, fresh.manifest, spec)
    lets_go = []

    def worker(*_args, **_how):
        held = trials.lines.held()
        assert held.__enter__()
        trials.begin(0, {"max_depth": 3})
        lets_go.append(threading.Timer(1.0, held.__exit__, (None, None, None)))
        lets_go[0].start()
        raise KeyboardInterrupt

    monkeypatch.setattr("ray_apps.tune._search_with", worker)
    with pytest.raises(KeyboardInterrupt):
        searched(fresh, spec, tmp_path)
    lets_go[0].join()
    known = Trials.read(trial_lines(fresh.catalog.store, study))
    assert (known.begun, known.attempts) == ({0: {"max_depth": 3}}, {0: 0})


def test_the_test_split_is_not_read(tmp_path):
    made = make_dataset(tmp_path / "store", rows=SMALL)
    home = made.catalog.folder(made.manifest)
    for file in made.manifest.files_of("test"):
        os.truncate(home / file.path, 3)
    found, _ = searched(made, spec_of(tune={"trials": 2}), tmp_path)
    assert found.trials == 2


WRONG = [
    ("xgboost", {"max_depht": {"int": [2, 4]}}, r"tune.space.max_depht: .*max_depht"),
    ("xgboost", {"learning_rate": {"float": [-1.0, 0.1]}}, "tune.space.learning_rate: "),
    ("lightgbm", {"num_leaves": {"choice": [1, 31]}}, "tune.space.num_leaves: "),
    ("xgboost", {"eta": {"float": [0.1, 0.2]}}, "'learning_rate' and 'eta' are the same"),
    (
        "xgboost",
        {"reg_alpha": {"float": [0.1, 0.2]}, "alpha": {"float": [0.1, 0.2]}},
        "'reg_alpha' and 'alpha' are the same",
    ),
    ("lightgbm", {"machines": {"choice": ["a"]}}, "must not be set"),
    ("torch", {"net": {"choice": ["mlp", "rnn"]}}, "tune.space.net: "),
]


@pytest.mark.parametrize(("name", "space", "told"), WRONG)
def test_a_space_that_the_library_would_not_use_is_refused_before_anything(name, space, told):
    spec = spec_of(name, {"space": space}, params={"learning_rate": 0.1})
    if name == "torch":
        spec = spec.model_copy(update={"train": spec.train.model_copy(update={"params": {}})})
    with pytest.raises(SpecError, match=told):
        check_space(spec)


def test_what_the_model_cannot_be_trained_with_is_refused_before_a_trial(
    fresh, tmp_path, monkeypatch
):
    for section, told in (
        ({"workers": 3}, "train.workers: 3 workers with 1 cores each must fit into nodes of 1"),
        ({"device": "cuda"}, "train.device"),
    ):
        with pytest.raises((RefusedError, SpecError), match=told):
            searched(fresh, spec_of("xgboost", **section), tmp_path)
    linear = {"space": {"linear_tree": {"choice": [False, True]}}}
    monkeypatch.setattr(tune, "first_crew", lambda *_: Crew(2, 1))  # two nodes, for `auto`
    with pytest.raises(SpecError, match=r"tune.space.linear_tree: .* for several workers"):
        searched(fresh, spec_of("lightgbm", linear, workers="auto"), tmp_path)
    monkeypatch.setattr(tune, "first_crew", lambda *_: Crew(500, 1))
    with pytest.raises(RefusedError, match=r"must be at most 200, the rows of .* got 500"):
        searched(fresh, spec_of(workers="auto"), tmp_path)
    monkeypatch.undo()
    # a study without trials keeps nobody from another space
    found, _ = searched(fresh, spec_of("lightgbm", {"trials": 1}), tmp_path)
    assert (found.study, found.trials) == ("demo@3", 1)


def test_a_parameter_of_a_space_may_need_another_one_of_it():
    bags = {"bagging_fraction": {"float": [0.01, 0.9]}, "bagging_freq": {"int": [1, 5]}}
    check_space(spec_of("lightgbm", {"space": bags}))
    fractions = {"bagging_fraction": bags["bagging_fraction"]}
    check_space(spec_of("lightgbm", {"space": fractions}, params={"bagging_freq": 1}))
    for space in (fractions, {**bags, "bagging_freq": {"int": [0, 5]}}):
        with pytest.raises(SpecError, match=r"tune\.space\.bagging_fraction: .* set bagging_freq"):
            check_space(spec_of("lightgbm", {"space": space}))


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_space_is_tried_with_the_features_of_the_dataset(name, made):
    plan = made.manifest.plan
    ways = [str(int(place in plan.categorical)) for place in range(len(plan.features))]
    spec = spec_of(name, {"space": {"monotone_constraints": {"choice": [f"({','.join(ways)})"]}}})
    with pytest.raises(SpecError, match=r"tune\.space\.mono\w+: .* must be 0 for a category"):
        check_space(spec, plan)


def test_a_shared_data_set_takes_every_other_parameter(tmp_path):
    """LightGBM keeps some parameters in a data set; those are what makes another one."""
    trainer = load_trainer("lightgbm")
    rows, valid = make_shard(900), make_shard(300, seed=1)
    job = make_job(rounds=5, early_stopping=None, threads=1, is_trial=True)
    shared = trainer.prepare(rows, valid, job, Alone())
    for params in (
        {"min_data_in_leaf": 3}, {"num_leaves": 4, "lambda_l1": 0.5}, {"feature_fraction": 0.5},
        {"extra_trees": True}, {"cat_smooth": 1.0, "max_cat_threshold": 2}, {"path_smooth": 1.0},
    ):  # fmt: skip
        own = replace(job, params=params)
        assert trainer.bin_key(own) == trainer.bin_key(job)
        kept = replace(own, is_trial=False)  # as the model will be trained
        alone = trainer.fit(trainer.prepare(rows, valid, kept, Alone()), kept, Alone(), go_on)
        beside = trainer.fit(shared, own, Alone(), go_on)
        assert beside.valid == alone.valid, params
        assert trees(beside) == trees(alone), params
    for params in ({"max_bin": 15}, {"min_data_in_bin": 30}, {"linear_tree": True}):
        assert trainer.bin_key(replace(job, params=params)) != trainer.bin_key(job)


def trees(fitted):
    return fitted.model.split(b"parameters:")[0]


def go_on(_history, _model):
    return True


MANY = """
import json, os, sys
from pathlib import Path
from arclight.catalog import Catalog
from arclight.progress import silent_tell
from arclight.spec import Spec
from arclight.store import Store
from arclight.study import open_study
from ray_apps.tune import search
from tests.ray_apps.conftest import ONE_CORE

root, folder, spec = sys.argv[1:]
catalog, spec = Catalog(Store(Path(root))), Spec.model_validate_json(spec)
manifest, seen = catalog.dataset("demo"), []
study, _ = open_study(catalog.store, manifest, spec)
def tick(done, *_):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    seen.append((done, pages * os.sysconf("SC_PAGESIZE"), len(os.listdir("/proc/self/fd"))))
search(catalog, manifest, spec, study, profile=ONE_CORE, run_folder=Path(folder),
       tick=tick, tell=silent_tell)
print(json.dumps(seen))
"""


@pytest.mark.fault
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_thousand_short_trials_leave_nothing_behind(tmp_path, name):
    """Memory and files of the last ones are those of early ones."""
    made = make_dataset(tmp_path / "store", rows=(3000, 600, 300))
    spec = spec_of(name, {"trials": 1000, "scheduler": "asha"}, rounds=9)
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(made.catalog.store.root), str(tmp_path),
         spec.model_dump_json(by_alias=True)],
        capture_output=True, text=True, timeout=280, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    seen = json.loads(done.stdout.splitlines()[-1])
    early = [(size, files) for at, size, files in seen if 200 <= at < 400]
    late = [(size, files) for at, size, files in seen if at >= 800]
    assert seen[-1][0] == 1000
    assert early
    assert max(size for size, _ in late) < max(size for size, _ in early) + (16 << 20)
    assert max(files for _, files in late) < max(files for _, files in early) + 20  # of hundreds
