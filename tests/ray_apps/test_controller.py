"""Who decides: a trial is at one host at a time, and what a host leaves is another's."""

from __future__ import annotations

import threading

import pytest

from arclight.trial_file import TrialFile
from arclight.trials import Trial, Trials
from arclight.tune_section import Tune
from ray_apps.tuning.controller import Controller
from tests.arclight.pages.made_up_study import made_up_study


class Made:
    """A controller of random trials, and its file."""

    def __init__(self, folder, trials=4, *, clock=lambda: 0.0, **section):
        study = made_up_study(trials)
        tune = study.tune.model_dump() | {"sampler": "random", "trials": trials, **section}
        self.study = study.model_copy(update={"tune": Tune.model_validate(tune)})
        self.path = folder / "trials.jsonl"
        self.controller = Controller(self.study, Trials(TrialFile(self.path)), clock=clock)

    def begin(self, host):
        return self.controller.next(host)[0]

    def end(self, number, host, value=0.6):
        self.controller.end(
            Trial(number=number, params={}, state="complete", value=value, host=host)
        )

    def file(self):
        return Trials.read(TrialFile(self.path))


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_what_a_host_leaves_is_begun_by_another(made):
    first, second = made.begin(0), made.begin(0)
    params = made.file().begun[second]
    made.end(first, 0)
    made.controller.leave(second, 0)
    assert not made.controller.is_done()
    assert made.controller.next(1) == (second, params)
    assert made.file().attempts[second] == 1  # it was not to blame


def test_the_trials_of_a_lost_host_are_begun_by_another_and_counted(made):
    first = made.begin(0)
    assert made.controller.lost(0, "it was killed") == 1
    assert made.begin(1) == first
    assert made.file().attempts[first] == 2
    assert made.file().why_gone == {}  # it runs again
    made.end(first, 0, value=0.9)  # it lives after all
    assert first not in made.file().ended
    made.controller.leave(first, 0)
    made.end(first, 1, value=0.7)
    assert made.file().ended[first].value == 0.7


def test_a_lost_host_begins_nothing_any_more(made):
    made.controller.lost(0, "it was killed")
    assert made.controller.next(0) is None
    assert made.file().begun == {}
    assert made.begin(1) == 0


def test_after_a_stop_nothing_ends_and_all_is_left(made):
    first, second = made.begin(0), made.begin(1)
    made.controller.stop()
    assert not made.controller.passes(first, 2, 0.9)
    made.end(first, 0)
    assert made.controller.next(0) is None
    known = made.file()
    assert known.ended == {}
    assert [known.attempts[n] for n in (first, second)] == [0, 0]


def test_it_is_done_when_nothing_may_begin_any_more(tmp_path):
    now = [0.0]
    made = Made(tmp_path, clock=lambda: now[0], time_limit_s=10)
    made.begin(0)
    made.controller.lost(0, "it was killed")
    assert not made.controller.is_done()
    now[0] = 11.0
    assert made.controller.is_done()


def test_it_is_done_after_the_last_trial(made):
    for _ in range(4):
        number = made.begin(0)
        assert not made.controller.is_done()
        made.end(number, 0)
    assert made.controller.is_done()
    assert made.controller.next(0) is None


def test_a_trial_that_was_gone_twice_is_alone_on_its_host(made):
    suspect, other = made.begin(0), made.begin(0)
    for host in (0, 1):
        made.controller.lost(host, "it was killed")
        assert made.begin(host + 1) == suspect
        assert host == 1 or made.begin(1) == other
    # the third time it is alone: the other one, which was gone twice as well, waits
    begun = []
    thread = threading.Thread(target=lambda: begun.append(made.begin(2)), daemon=True)
    thread.start()
    thread.join(0.3)
    assert not begun
    made.end(suspect, 2)
    thread.join(10)
    assert begun == [other]


def test_a_healthy_trial_that_was_beside_a_bad_one_is_not_failed(made):
    bad, healthy = made.begin(0), made.begin(0)
    for host in range(3):
        made.controller.lost(host, "it was killed")
        assert made.begin(host + 1) == (bad if host < 2 else healthy)
        assert host > 0 or made.begin(host + 1) == healthy
    made.end(healthy, 3)
    made.begin(3)  # another one
    ended = {number: trial.state for number, trial in made.file().ended.items()}
    assert ended == {bad: "failed", healthy: "complete"}
    assert made.file().ended[bad].reason == (
        "its process was gone 3 times before it ended, the last time: it was killed"
    )


def test_a_host_is_not_kept_waiting_by_what_waits_at_another(made):
    suspect, other = made.begin(0), made.begin(0)
    for host in (0, 1):
        made.controller.lost(host, "it was killed")
        made.begin(host + 1)
        if host == 0:
            made.begin(1)
    waiting = threading.Thread(target=lambda: made.begin(2), daemon=True)
    waiting.start()  # for the suspect to end
    waiting.join(0.2)
    assert waiting.is_alive()
    assert made.begin(3) == other
    made.end(suspect, 2)
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_trial_that_was_gone_twice_waits_for_those_beside_it(made):
    suspect = made.begin(0)
    made.controller.lost(0, "it was killed")
    assert made.begin(1) == suspect
    beside = made.begin(2)
    made.controller.lost(1, "it was killed")
    begun = []
    thread = threading.Thread(target=lambda: begun.append(made.begin(2)), daemon=True)
    thread.start()
    thread.join(0.3)
    assert not begun
    made.end(beside, 2)
    thread.join(10)
    assert begun == [suspect]


def test_the_forecast_is_of_what_it_has_seen_within_the_limit_and_stands_first(tmp_path):
    """After a loss another one decides, to which the trials before have taken no time."""
    now = [0.0]
    made = Made(tmp_path, trials=1000, clock=lambda: now[0])
    for _ in range(30):
        number = made.begin(0)
        now[0] += 2.0
        made.end(number, 0)
    done, whole, said = made.controller.said()
    assert (done, whole) == (30, 1000)
    assert said.startswith("30.0/min, 1940 s left, best 0.60000 (trial 0), ")
    limited = made.study.tune.model_copy(update={"time_limit_s": 100})
    study = made.study.model_copy(update={"tune": limited})
    after = Controller(study, made.file(), clock=lambda: now[0], spent_s=60.0)
    number, params = after.next(0)
    now[0] += 3.0
    after.end(Trial(number=number, params=params, state="complete", value=0.5))
    assert after.said()[2].startswith("20.0/min, 37 s left, ")
