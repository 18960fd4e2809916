"""Populations: who goes on from whom, and with what."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from arclight.population import heir, is_ready, leg_of, line_of
from arclight.trials import Trial
from arclight.tune_section import Tune

SPACE = {
    "learning_rate": {"float": [1e-4, 1e-1], "log": True},
    "dropout": {"choice": [0.0, 0.1, 0.2, 0.5]},
}


def tune_of(count=8, generations=3, **section):
    given = {
        "space": SPACE,
        "scheduler": "population",
        "sampler": "random",
        "population": count,
        "trials": count * generations,
    }
    return Tune.model_validate_json(json.dumps({**given, **section}))


def trial(number, figure, *, parent=None, rate=0.01, dropout=0.1, rounds=5):
    state = "failed" if figure is None else "complete"
    return Trial(
        number=number,
        params={"learning_rate": rate, "dropout": dropout},
        state=state,
        value=figure,
        points=() if figure is None else ((5, figure),),
        rounds=rounds,
        parent=parent,
    )


def generation(figures):
    return {i: trial(i, figure, rate=0.001 * (i + 1)) for i, figure in enumerate(figures)}


FIGURES = [0.5, 0.9, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("higher", [True, False])
def test_the_worst_quarter_goes_on_from_the_best_quarter(higher):
    tune, ended = tune_of(), generation(FIGURES)
    found = [heir(tune, 8 + i, ended, seed=3, higher=higher) for i in range(8)]
    worst, best = ({5, 6}, {1, 4}) if higher else ({1, 4}, {5, 6})
    for i, (parent, params) in enumerate(found):
        if i in worst:
            assert parent in best
            assert params != ended[parent].params
        else:
            assert (parent, params) == (i, ended[i].params)


def test_who_failed_is_replaced_however_many_they_are():
    tune, ended = tune_of(), generation([None, 0.9, None, None, None, 0.1, 0.2, None])
    parents = [heir(tune, 8 + i, ended, seed=0, higher=True)[0] for i in range(8)]
    assert [parents[i] for i in (1, 5, 6)] == [1, 5, 6]
    assert {parents[i] for i in (0, 2, 3, 4, 7)} <= {1, 6}
    nobody = generation([None] * 8)
    assert heir(tune, 9, nobody, seed=0, higher=True) is None
    assert heir(tune, 3, {}, seed=0, higher=True) is None


def test_nobody_goes_on_from_a_network_whose_training_is_over():
    """Unless there is no other: its weights do not change any more."""
    tune, ended = tune_of(), generation(FIGURES)
    ended[1] = trial(1, 0.9, rounds=3)  # the best one
    parents = {heir(tune, 8 + i, ended, seed=s, higher=True)[0] for i in (5, 6) for s in range(9)}
    assert parents == {4, 3}
    assert heir(tune, 9, ended, seed=0, higher=True)[0] == 1  # it stays what it is
    over = {n: one.model_copy(update={"rounds": 3}) for n, one in ended.items()}
    assert heir(tune, 13, over, seed=0, higher=True)[0] in (1, 4)


def test_an_answer_hangs_on_number_and_seed_alone():
    tune, ended = tune_of(), generation(FIGURES)
    again = dict(reversed(ended.items()))
    one, other = (heir(tune, 13, e, seed=1, higher=True) for e in (ended, again))
    assert one == other
    assert one != heir(tune, 13, ended, seed=2, higher=True)


def test_what_changes_is_a_step_away_or_anew_and_always_in_the_space():
    tune, seen = tune_of(), Counter()
    ended = {i: trial(i, f, rate=0.09, dropout=0.5) for i, f in enumerate(FIGURES)}
    for seed in range(300):
        _, params = heir(tune, 13, ended, seed=seed, higher=True)
        assert 1e-4 <= params["learning_rate"] <= 1e-1
        assert params["dropout"] in (0.0, 0.1, 0.2, 0.5)
        rate = params["learning_rate"]
        kind = {0.09 / 1.25: "down", 0.1: "up, to the end of the range"}.get(rate, "anew")
        seen[kind] += 1
    assert set(seen) == {"down", "up, to the end of the range", "anew"}
    assert 45 < seen["anew"] < 105


@pytest.mark.parametrize(
    ("one", "value"),
    [
        ({"int": [1, 4]}, 1),
        ({"int": [1, 4]}, 2),
        ({"int": [1, 4]}, 4),
        ({"float": [0.0, 0.5]}, 0.5),
        ({"float": [0.1, 0.5]}, 0.1),
        ({"float": [0.0, 0.5]}, 0.0),
        ({"choice": [0.5, 0.0]}, 0.5),
    ],
)
def test_what_is_taken_over_is_changed(one, value):
    """At an end of a range it goes the other way: a copy that stays one is a network less."""
    tune = tune_of(space={"clip": one})
    ended = {
        n: t.model_copy(update={"params": {"clip": value}}) for n, t in generation(FIGURES).items()
    }
    found = [heir(tune, 13, ended, seed=seed, higher=True)[1]["clip"] for seed in range(200)]
    drawn = [f for f in found if f == value]  # of few values the same may be drawn anew
    assert len(drawn) <= (40 if "float" not in one else 0)
    low, high = (one.get("int") or one.get("float") or [0.0, 0.5])[:2]
    assert all(low <= f <= high for f in found)


def test_steps_through_a_choice_of_numbers_go_by_their_size():
    tune = tune_of(space={"clip": {"choice": [8, 1, 4, 2]}})
    ended = {
        n: t.model_copy(update={"params": {"clip": 2}}) for n, t in generation(FIGURES).items()
    }
    found = Counter(heir(tune, 13, ended, seed=s, higher=True)[1]["clip"] for s in range(300))
    assert found[1] > 80
    assert found[4] > 80
    assert found[8] < 40


def test_a_generation_waits_for_the_one_before():
    tune, ended = tune_of(), generation(FIGURES)
    assert all(is_ready(tune, i, {}) for i in range(8))
    assert is_ready(tune, 8, ended)
    del ended[5]
    assert not is_ready(tune, 8, ended)
    assert not is_ready(tune, 15, ended)


def test_without_a_population_nobody_waits():
    tune = Tune.model_validate_json(json.dumps({"space": SPACE}))
    assert all(is_ready(tune, number, {}) for number in range(9))
    assert heir(tune, 5, {}, seed=0, higher=True) is None


def test_a_leg_has_everything_that_its_network_had_before():
    """Only what changed; a network that was taken over brings its own past."""
    tune = tune_of(4, 4)
    ended = {i: trial(i, 0.5, rate=0.01 * (i + 1)) for i in range(4)}
    ended[4] = trial(4, 0.6, parent=2, rate=0.02)
    ended[9] = trial(9, 0.7, parent=4, rate=0.02)
    leg = leg_of(tune, 18, 12, {"learning_rate": 0.02, "dropout": 0.2}, 9, ended)
    assert leg.parent == 9
    assert leg.params == ended[2].params
    assert leg.params_after == {4: {"learning_rate": 0.02}, 14: {"dropout": 0.2}}
    assert (leg.begins, leg.ends) == (14, 18)
    first = leg_of(tune, 18, 3, ended[3].params, None, ended)
    assert (first.params, first.params_after, first.ends) == (ended[3].params, {}, 4)


def test_a_line_has_the_points_of_every_network_before():
    ended = {0: trial(0, 0.5), 1: trial(1, 0.7)}
    ended[4] = trial(4, 0.6, parent=1).model_copy(update={"points": ((10, 0.6),)})
    last = trial(9, 0.8, parent=4).model_copy(update={"points": ((15, 0.8),)})
    assert line_of(last, ended) == ((5, 0.7), (10, 0.6), (15, 0.8))
    assert line_of(ended[0], ended) == ((5, 0.5),)


@pytest.mark.parametrize("rounds", [4, 7, 30, 100])
def test_the_last_generation_ends_with_the_training(rounds):
    tune = tune_of(4, 4)
    ends = [leg_of(tune, rounds, number, {}, None, {}).ends for number in (0, 4, 8, 12)]
    assert ends == sorted(set(ends))
    assert ends[-1] == rounds


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"trials": 20},
            r"has 8 trials a generation, and at least two of them, got 20; set 16 or",
        ),
        ({"trials": 8}, r"set 16 or 24"),
        ({"population": None}, r"a population goes with its size; add such as `population: 8`"),
        ({"scheduler": "asha"}, r"add scheduler: population"),
        ({"sampler": "tpe"}, r"begins by chance .* not by tpe .*; set sampler: random or quasi_"),
        ({"folds": 3}, r"leave out folds, or the population"),
        ({"fidelity": "rows"}, r"leave out fidelity, or the population"),
        ({"also": ["log_loss"]}, r"leave out also, or the population"),
        ({"population": 3}, r"greater than or equal to 4"),
    ],
)
def test_what_a_population_cannot_be(section, words):
    with pytest.raises(ValueError, match=words):
        tune_of(**section)
