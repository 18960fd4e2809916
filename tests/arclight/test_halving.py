"""Who passes a rung: pure decisions, in the order in which trials come."""

from __future__ import annotations

import numpy as np
import pytest

from arclight.halving import Passing, rungs_of
from arclight.trials import Trial


@pytest.mark.parametrize(
    ("rounds", "rungs"),
    [(300, (4, 12, 34, 100)), (81, (1, 3, 9, 27)), (10, (1, 2, 4)), (2, (1,)), (1, ())],
)
def test_rungs_rise_threefold_and_end_below_the_last_round(rounds, rungs):
    assert rungs_of(rounds) == rungs


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_third_passes_and_the_best_one_always_does(higher):
    passing = Passing("asha", 81, higher=higher)
    values = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.65, 0.1, 0.8]
    found = [passing.passes(n, 1, v if higher else -v) for n, v in enumerate(values)]
    assert found == [True, False, True, False, True, False, True, False, True]


def test_of_many_in_any_order_about_a_third_passes():
    rng = np.random.default_rng(0)
    passing = Passing("asha", 81, higher=True)
    kept = sum(passing.passes(n, 1, float(v)) for n, v in enumerate(rng.random(3000)))
    assert 900 < kept < 1150


def test_rungs_are_apart():
    passing = Passing("asha", 81, higher=True)
    for number in range(9):
        passing.passes(number, 1, 0.9)
    assert passing.passes(9, 3, 0.1)


def test_hyperbands_brackets_begin_higher_and_are_apart():
    passing = Passing("hyperband", 81, higher=True)
    assert [passing.rungs(n) for n in range(4)] == [
        (1, 3, 9, 27), (3, 9, 27), (9, 27), (1, 3, 9, 27),
    ]  # fmt: skip
    for number in range(0, 30, 3):
        passing.passes(number, 3, 0.9)
    assert passing.passes(1, 3, 0.1)  # of a bracket where nobody was


def test_the_median_of_those_before_is_to_be_reached():
    passing = Passing("median", 81, higher=True)
    assert all(passing.passes(n, 1, v) for n, v in enumerate([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert not passing.passes(5, 1, 0.29)
    assert passing.passes(6, 1, 0.3)


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_trial_that_comes_by_again_counts_once(scheduler):
    """Its host was lost, or the search: those after it are judged as if nothing had been."""
    values = [0.9, 0.1, 0.2, 0.3, 0.4]
    undisturbed, disturbed = (Passing(scheduler, 81, higher=True) for _ in range(2))
    for passing, times in ((undisturbed, 1), (disturbed, 3)):
        for number, value in enumerate(values):
            for _ in range(times):
                passing.passes(number, 1, value)
    for number, value in enumerate([0.85, 0.25, 0.5, 0.15], len(values)):
        told = [passing.passes(number, 1, value) for passing in (undisturbed, disturbed)]
        assert told[0] == told[1]


def test_without_a_scheduler_nobody_is_looked_at():
    assert Passing("none", 300, higher=True).rungs(0) == ()


def test_what_ended_before_counts_as_if_it_came_by_again():
    values = [0.5, 0.9, 0.7, 0.4, 0.8, 0.6]
    whole, again = Passing("asha", 81, higher=True), Passing("asha", 81, higher=True)
    for number, value in enumerate(values):
        whole.passes(number, 1, value)
    ended = [
        Trial(number=n, params={}, state="stopped", value=v, rounds=1, points=((1, v),))
        for n, v in enumerate(values)
    ]
    for trial in ended:
        again.recall(trial)
    for number, value in enumerate((0.55, 0.85, 0.3, 0.75), 6):
        assert whole.passes(number, 1, value) == again.passes(number, 1, value)
