"""A host of a search with libraries and a clock of the tests' own: limits, bins, figures."""

from __future__ import annotations

import threading
import time

import pytest

from arclight.errors import LostWorkerError
from arclight.study import open_study
from arclight.trials import Trials
from ray_apps.trainers import Fitted
from ray_apps.trainers.boosting import boost
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from ray_apps.tuning.running import Running
from ray_apps.tuning.stages import Stage
from tests.ray_apps.make_dataset import make_dataset
from tests.ray_apps.test_tune import SMALL, ended, spec_of
from tests.ray_apps.trainers.test_trainers import make_job


def run_host(study, trials, trainer, job, *, at_once=1, clock=time.monotonic):
    controller = Controller(study, trials, clock=clock)
    trainers = {study.train.trainer: trainer}
    Host(
        study, controller, trainers, (Stage(0, None, None, job),), at_once=at_once, clock=clock
    ).run()


class Growing:
    """A model whose rounds take a second of a clock each, and are worth what they are told."""

    model = None

    def __init__(self, now, figure):
        self.now, self.figure, self.rounds = now, figure, 0

    def grow(self, _):
        self.now[0] += 1.0
        self.rounds += 1

    def judge(self):
        return self.figure(self.rounds)

    def can_go_on_from(self, _):
        return False


def run_with_clock(root, spec):
    made = make_dataset(root / "store", rows=SMALL)
    study, trials = open_study(made.catalog.store, made.manifest, spec)
    now = [0.0]

    class Ticking:
        bin_key = staticmethod(lambda _: ())
        check_params = staticmethod(lambda _: None)
        prepare = staticmethod(lambda *_: object())

        def fit(self, _data, job, _gang, watch):
            history = []
            for number in range(job.rounds):
                now[0] += 1.0
                history.append(0.5 + number / 100)
                if not watch(history, None):
                    break
            return type("Fitted", (), {"valid": history[-1], "rounds": len(history)})

    run_host(study, trials, Ticking(), make_job(rounds=9), clock=lambda: now[0])
    return [trial for _, trial in sorted(trials.ended.items())]


class Waiting:
    """A library whose rounds take as long as it is told, once so many trials have begun."""

    bin_key = staticmethod(lambda _: ())
    prepare = staticmethod(lambda *_: object())

    def __init__(self, trials, count, clock, round_s):
        self.trials, self.count = trials, count
        self.clock, self.round_s, self.rounds = clock, round_s, 0

    def fit(self, _data, job, _gang, watch):
        while len(self.trials.begun) < self.count:
            time.sleep(0.01)
        history = []
        for _ in range(job.rounds):
            self.clock.pass_by(self.round_s)
            self.rounds += 1
            history.append(0.5)
            if not watch(history, None):
                break
        return Fitted(b"", len(history), history[-1], {}, len(history))


class SharedClock:
    """Seconds that pass when somebody says so."""

    def __init__(self):
        self.now, self.lock = 0.0, threading.Lock()

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        with self.lock:
            self.now += seconds


def test_trials_that_wait_when_the_time_is_over_are_left(tmp_path):
    """They would train a round each, one network after another, and be stopped for good."""
    made = make_dataset(tmp_path / "store", rows=SMALL)
    tune = {"trials": 20, "scheduler": "none", "time_limit_s": 5}
    study, trials = open_study(made.catalog.store, made.manifest, spec_of("torch", tune, rounds=3))
    clock = SharedClock()
    library = Waiting(trials, 8, clock, round_s=2.0)
    run_host(study, trials, library, make_job(rounds=3), at_once=8, clock=clock)
    assert library.rounds == 3
    assert [(t.rounds, t.state) for t in ended(trials)] == [(3, "stopped")]
    again = Trials.read(trials.lines)
    assert len(again.begun) == 7  # they are trained by the next command
    assert all(again.attempts[number] == 0 for number in again.begun)


def test_slow_rounds_are_no_trial_that_hangs(tmp_path):
    """Each of them ends within a minute, the one that gives the figure after the limit as well."""
    made = make_dataset(tmp_path / "store", rows=SMALL)
    tune = {"trials": 1, "scheduler": "none", "trial_limit_s": 60}
    study, trials = open_study(made.catalog.store, made.manifest, spec_of(tune=tune))
    clock = SharedClock()
    host = Host(study, Controller(study, trials), {}, (), at_once=1, clock=clock)
    number, params = host._controller.next(0)
    host._live[number] = Running(number, params, 0.0, begun_s=0.0, heard_s=100.0, rounds=2)
    clock.pass_by(159.0)
    host._end_hung()
    clock.pass_by(2.0)
    with pytest.raises(LostWorkerError, match="from round 3 in 160 s"):
        host._end_hung()
    assert trials.ended[number].state == "failed"


@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_a_trial_that_a_limit_ends_has_the_figure_of_where_it_was(tmp_path, scheduler):
    """Though nobody had asked for that round: it goes on for one more."""
    made = make_dataset(tmp_path / "store", rows=SMALL)
    tune = {"trials": 2, "scheduler": scheduler, "trial_limit_s": 5}
    study, trials = open_study(
        made.catalog.store, made.manifest, spec_of("xgboost", tune, rounds=9)
    )
    now = [0.0]

    class Counting:
        bin_key = staticmethod(lambda _: ())
        prepare = staticmethod(lambda *_: object())

        def fit(self, _data, job, _gang, watch):
            growing = Growing(now, lambda rounds: 0.5 + rounds / 100)
            history = boost(growing, job, watch, ())
            return Fitted(b"", len(history), history[-1], {}, len(history))

    job = make_job(rounds=9, early_stopping=None)
    run_host(study, trials, Counting(), job, clock=lambda: now[0])
    first = trials.ended[0]
    assert (first.state, first.rounds) == ("stopped", 6)
    assert first.points[-1] == (6, first.value) == (6, 0.56)
    assert first.reason == "a trial's 5 s are over"


def test_U3_limits_of_time_keep_the_best_so_far(tmp_path):
    """One second a round, by a clock of the test's own."""
    spec = spec_of("xgboost", {"trials": 9, "scheduler": "none", "trial_limit_s": 5})
    ended = run_with_clock(tmp_path / "a", spec)
    assert [t.rounds for t in ended] == [5] * 9
    assert {t.reason for t in ended} == {"a trial's 5 s are over"}
    spec = spec_of("xgboost", {"trials": 9, "scheduler": "none", "time_limit_s": 20})
    ended = run_with_clock(tmp_path / "b", spec)
    assert [t.rounds for t in ended] == [9, 9, 2]
    assert [t.state for t in ended] == ["complete", "complete", "stopped"]
    assert ended[-1].reason == "the search's 20 s are over"


def test_no_more_ways_to_bin_than_two_are_held(tmp_path):
    """Four at a time, each of its own bins: the others wait."""
    alive, most = set(), []

    class Binning:
        bin_key = staticmethod(lambda job: (job.params["max_depth"],))
        check_params = staticmethod(lambda _: None)

        def prepare(self, _train, _valid, job, _gang):
            found = Bins(job.params["max_depth"])
            most.append(len(alive))
            return found

        def fit(self, data, job, _gang, watch):
            time.sleep(0.02)
            watch([0.5], None)
            return type("Fitted", (), {"valid": 0.5, "rounds": 1})

    class Bins:
        def __init__(self, key):
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    made = make_dataset(tmp_path / "store", rows=SMALL)
    tune = {"trials": 12, "sampler": "grid", "space": {"max_depth": {"int": [1, 12]}}}
    study, trials = open_study(made.catalog.store, made.manifest, spec_of(tune=tune))
    run_host(study, trials, Binning(), make_job(rounds=1), at_once=4)
    assert len(trials.ended) == 12
    assert max(most) <= 3  # the one that is being made included


def test_without_early_stopping_the_last_round_counts(tmp_path):
    made = make_dataset(tmp_path / "store", rows=SMALL)
    spec = spec_of(tune={"trials": 1, "scheduler": "none", "trial_limit_s": 5})
    now = [0.0]

    class Worse:
        bin_key = staticmethod(lambda _: ())
        prepare = staticmethod(lambda *_: object())

        def fit(self, _data, job, _gang, watch):
            growing = Growing(now, lambda rounds: 0.91 - rounds / 100)
            history = boost(growing, job, watch, ())
            return Fitted(b"", len(history), history[-1], {}, len(history))

    values = []
    for stopping in (None, 50):
        study, trials = open_study(made.catalog.store, made.manifest, spec, new=True)
        job = make_job(rounds=9, early_stopping=stopping)
        run_host(study, trials, Worse(), job, clock=lambda: now[0])
        values.append(trials.ended[0].value)
    assert values == [pytest.approx(0.85), pytest.approx(0.9)]  # of round 6, and of round 1
