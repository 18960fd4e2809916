"""Who passes a rung: pure decisions, in the order in which trials come."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arclight.halving import Halving, Passing, rungs_of
from arclight.trials import Trial
from arclight.tune_section import Tune


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


def stopped(number, *points):
    return Trial(number=number, params={}, state="stopped", points=points, rounds=points[-1][0])


def over(number, state="complete", points=()):
    return Trial(number=number, params={}, state=state, points=points)


class Search:
    """Trials of known figures that are made in an order of chance, some of them at a time."""

    def __init__(self, figures, rounds, rng, *, fails=()):
        self.figures, self.rng, self.fails = figures, rng, fails
        self.halving = Halving(range(len(figures)), rounds, higher=True)
        self.rungs, self.rounds = rungs_of(rounds), rounds
        self.new = list(range(len(figures)))
        self.at = dict.fromkeys(self.new, 0)
        self.ended = {}

    def run(self, at_once):
        busy = []
        while True:
            while len(busy) < at_once:
                number = self.halving.next_up(busy) if not self.new else self.new.pop(0)
                if number is None:
                    break
                busy.append(number)
            if not busy:
                return
            number = busy[self.rng.integers(len(busy))]
            if not self.step(number):
                busy.remove(number)

    def step(self, number):
        """Take a trial to its next rung, or to its end; say whether it runs on."""
        place = self.at[number]
        if number in self.fails and place == self.fails[number]:
            self.end(over(number, "failed"))
            return False
        points = tuple((height, self.figures[number]) for height in self.rungs[: place + 1])
        if place == len(self.rungs):
            self.end(over(number, points=(*points, (self.rounds, self.figures[number]))))
            return False
        self.at[number] += 1
        if self.halving.passes(number, self.rungs[place], self.figures[number]):
            return True
        self.end(stopped(number, *points))
        return False

    def end(self, trial):
        self.ended[trial.number] = trial
        self.halving.ended(trial)

    @property
    def heights(self):
        return [self.at[n] for n in sorted(self.at)]


@given(st.integers(1, 60), st.integers(0, 10**6), st.booleans())
def test_the_same_trials_go_on_in_whatever_order_they_come(count, seed, has_ties):
    rng = np.random.default_rng(seed)
    figures = rng.integers(0, 5, count).tolist() if has_ties else rng.random(count).tolist()
    fails = {n: int(rng.integers(0, 5)) for n in range(count) if rng.random() < 0.1}
    found = []
    for at_once in (1, 2, 5, count):
        search = Search(figures, 81, rng, fails=fails)
        search.run(at_once)
        assert set(search.ended) == set(range(count))
        found.append((search.heights, {n: t.state for n, t in search.ended.items()}))
    assert all(one == found[0] for one in found)


def test_a_third_of_all_goes_on_from_each_rung_and_the_best_ones_do():
    rng = np.random.default_rng(0)
    figures = rng.random(100).tolist()
    search = Search(figures, 162, rng)
    search.run(3)
    best = sorted(range(100), key=lambda n: -figures[n])
    for place, count in enumerate([100, 33, 11, 3]):
        assert sorted(n for n in range(100) if search.at[n] > place) == sorted(best[:count])
    assert [n for n, t in search.ended.items() if t.state == "complete"] == best[:1]
    assert search.halving.done == (200 + 33 * 4 + 11 * 12 + 3 * 36 + 108,) * 2


def test_who_fails_leaves_its_place_to_the_next_one():
    search = Search([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 9, np.random.default_rng(0), fails={0: 1})
    search.run(2)
    assert rungs_of(9) == (1, 3)
    assert search.ended[0].state == "failed"
    # of six two go on; of the two the first one failed on its way to the second rung
    assert search.heights == [1, 2, 1, 1, 1, 1]
    assert search.ended[1].state == "complete"


def test_of_more_trials_more_go_on_as_if_all_had_been_asked_for_at_once():
    rng = np.random.default_rng(5)
    figures = rng.random(40).tolist()
    first = Search(figures[:20], 81, rng)
    first.run(2)
    second = Search(figures, 81, rng)
    second.new = second.new[20:]
    for trial in first.ended.values():
        second.halving.recall(trial)
    second.at |= first.at
    second.run(2)
    whole = Search(figures, 81, rng)
    whole.run(2)
    assert [max(a, b) for a, b in zip(whole.heights, first.heights + [0] * 20, strict=True)] == (
        second.heights
    )
    fewer = Halving(range(10), 81, higher=True)
    for trial in second.ended.values():
        fewer.recall(trial)
    assert all(number < 10 for chosen in fewer._chosen() for number in chosen)


def test_a_trial_that_is_over_before_a_rung_is_not_waited_for():
    halving = Halving(range(3), 9, higher=True)
    assert not halving.passes(0, 1, 0.5)
    halving.ended(stopped(0, (1, 0.5)))
    assert halving.next_up(()) is None
    halving.ended(over(1, "stopped", ((2, 0.9),)))  # by a limit
    halving.ended(over(2))  # stopped early by itself: there is nothing to go on with
    assert halving.next_up(()) == 0
    assert halving.next_up((0,)) is None


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {},
            r"halving must know all trials .* which tpe \(which it is where none is given\) does",
        ),
        ({"sampler": "evolution"}, r"which evolution does not; set sampler: random, quasi_random"),
        ({"time_limit_s": 60}, r"leave out time_limit_s, or set scheduler: asha"),
        ({"target": 0.9}, r"leave out target, or set scheduler: asha"),
    ],
)
def test_what_halving_cannot_be(section, words):
    chosen = {} if section == {} else {"sampler": "random"}
    body = {"scheduler": "halving", "space": {"a": {"int": [1, 3]}}, **chosen, **section}
    with pytest.raises(ValueError, match=words):
        Tune.model_validate_json(json.dumps(body))
    fine = {**body, "sampler": "grid", "time_limit_s": None, "target": None}
    assert Tune.model_validate_json(json.dumps(fine)).scheduler == "halving"
