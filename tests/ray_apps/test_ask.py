"""What a search tries next: answers in the space, that hang on number, seed and what is known."""

from __future__ import annotations

import numpy as np
import pytest

from arclight.search_space import Choice, FloatRange, IntRange, unit_place, value_at
from arclight.trials import Trial
from arclight.tune_section import Candidate, Tune
from ray_apps.tuning.ask import Asker, points_of, trials_of

SAMPLERS = ("tpe", "cma_es", "evolution", "quasi_random", "random")


class TestAsking:
    """What is tried next."""

    SPACE = {
        "a": IntRange(bounds=(1, 4)),
        "b": FloatRange(bounds=(1e-3, 1.0), log=True),
        "c": Choice(choice=("x", "y", True)),
        "d": IntRange(bounds=(1, 1000), log=True),
    }
    NUMBERS = {name: one for name, one in SPACE.items() if name != "c"}

    def asker(self, sampler, **changes):
        space = self.NUMBERS if sampler == "cma_es" else self.SPACE
        tune = Tune.model_construct(sampler=sampler, trials=100, space=changes.pop("space", space))
        return Asker(tune, seed=changes.pop("seed", 3), higher=True)

    @pytest.mark.parametrize("sampler", [*SAMPLERS, "gp"])
    def test_answers_lie_in_the_space_and_hang_on_number_and_seed_alone(self, sampler):
        asker, known = self.asker(sampler), []
        for number in range(14 if sampler in ("tpe", "gp") else 60):
            beside = {99: {"a": 1 + number % 4, "b": 0.5, "c": "y", "d": 7}} if number % 2 else {}
            params = asker.ask(number, known, beside)
            # one that was told of the trials as they came answers as one that hears of all now
            assert params == self.asker(sampler).ask(number, known, beside)
            assert 1 <= params["a"] <= 4
            assert isinstance(params["a"], int)
            assert 1e-3 <= params["b"] <= 1.0
            assert params.get("c", "x") in ("x", "y", True)
            assert 1 <= params["d"] <= 1000
            value = -abs(params["a"] - 3) - params["b"]
            known.append(Trial(number=number, params=params, state="complete", value=value))
        assert self.asker(sampler, seed=4).ask(0, [], {}) != self.asker(sampler).ask(0, [], {})

    @pytest.mark.parametrize("sampler", ["quasi_random", "random"])
    def test_every_part_of_the_space_is_as_likely(self, sampler):
        asker = self.asker(sampler)
        drawn = [asker.ask(number, [], {}) for number in range(512)]
        for value in (1, 2, 3, 4):
            assert sum(d["a"] == value for d in drawn) == pytest.approx(128, abs=35)
        assert sum(d["b"] < 0.0316 for d in drawn) == pytest.approx(256, abs=45)
        assert sum(d["d"] <= 31 for d in drawn) == pytest.approx(256, abs=50)

    def test_quasi_random_points_are_more_even_than_random_ones(self):
        space = {"u": FloatRange(bounds=(0.0, 1.0)), "v": FloatRange(bounds=(0.0, 1.0))}

        def empty(sampler):
            asker = self.asker(sampler, space=space)
            cells = {
                (int(8 * p["u"]), int(8 * p["v"]))
                for p in (asker.ask(n, [], {}) for n in range(64))
            }
            return 64 - len(cells)

        assert empty("quasi_random") < empty("random")

    def test_a_grid_is_gone_through_once(self):
        tune = Tune.model_construct(
            sampler="grid", trials=100,
            space={"a": IntRange(bounds=(1, 3)), "c": Choice(choice=("x", "y"))},
        )  # fmt: skip
        assert trials_of(tune) == 6
        asker = Asker(tune, seed=0, higher=True)
        points = [tuple(asker.ask(n, [], {}).values()) for n in range(6)]
        assert sorted(points) == [(a, c) for a in (1, 2, 3) for c in ("x", "y")]
        assert trials_of(tune.model_copy(update={"trials": 4})) == 4
        # a study of an older release goes on as it began
        older = Asker(tune, seed=0, higher=True, shuffles=False)
        assert [tuple(older.ask(n, [], {}).values()) for n in range(6)] == sorted(points)

    def test_a_part_of_a_grid_is_from_all_over_it(self):
        """The first parameters by name would have their first values alone."""
        axis = Choice(choice=(1, 2, 3))
        tune = Tune.model_construct(
            sampler="grid", trials=12, space=dict.fromkeys("abcdefgh", axis)
        )
        for seed in range(5):
            asker = Asker(tune, seed=seed, higher=True)
            points = [asker.ask(n, [], {}) for n in range(24)]
            assert all({p[name] for p in points} == {1, 2, 3} for name in "abcdefgh")
            # of Hyperband's brackets as well, which go by a trial's number
            assert all(len({p["h"] for p in points[bracket::3]}) > 1 for bracket in range(3))
            assert points == [
                Asker(tune, seed=seed, higher=True).ask(n, [], {}) for n in range(24)
            ]
        huge = tune.model_copy(update={"space": {f"p{n}": axis for n in range(60)}})
        assert len({str(Asker(huge, seed=0, higher=True).ask(n, [], {})) for n in range(9)}) == 9

    def test_a_grid_may_have_more_points_than_64_bits_count(self):
        """Python takes the length of no range that is longer than 63 bits say."""
        tune = Tune(sampler="grid", trials=3, space={"a": IntRange(bounds=(0, 2**63 - 1))})
        assert (points_of(tune), trials_of(tune)) == (2**63, 3)
        found = [Asker(tune, seed=0, higher=True).ask(number, [], {})["a"] for number in range(3)]
        assert len({f for f in found if 0 <= f < 2**63}) == 3

    @pytest.mark.parametrize("sampler", ["tpe", "gp"])
    def test_the_space_is_the_one_that_optuna_would_find_in_the_trials(self, sampler):
        one_value = Choice(choice=("z",))
        known = [
            Trial(
                number=n,
                params={"a": 1 + n % 4, "b": 0.1 + n / 40, "c": "xy"[n % 2], "d": 3 + n, "e": "z"},
                state=("complete", "stopped", "failed")[n % 3],
                value=None if n % 3 == 2 else n % 7,
                points=((1, n % 5),),
            )
            for n in range(24)
        ]
        for count in (11, 24):  # of the first ones too few have a figure
            space = {**self.SPACE, "e": one_value}
            ours, theirs = (self.asker(sampler, space=space) for _ in range(2))
            theirs._learner._axes.joint = {}
            for number in range(30, 33):
                asked = (number, known[:count], {40: known[0].params})
                assert ours.ask(*asked) == theirs.ask(*asked)

    def test_trainers_of_a_grid_are_in_all_brackets(self):
        space = {"a": IntRange(bounds=(1, 9))}
        among = {n: Candidate(space=space) for n in ("lightgbm", "torch", "xgboost")}
        tune = Tune.model_construct(sampler="grid", trials=27, trainers=among, space={})
        asker = Asker(tune, seed=0, higher=True)
        points = [asker.ask(n, [], {}) for n in range(27)]
        assert len({tuple(p.values()) for p in points}) == 27
        assert all(len({p["trainer"] for p in points[b::3]}) == 3 for b in range(3))

    @pytest.mark.parametrize("sampler", ["tpe", "gp"])
    def test_what_ran_meanwhile_is_not_held(self, sampler):
        """Each answer goes through all that Optuna holds; it is that of who was never asked."""
        space = {"u": FloatRange(bounds=(0.0, 1.0))}
        known = [
            Trial(number=n, params={"u": n / 12}, state="complete", value=-abs(n / 12 - 0.4))
            for n in range(12)
        ]
        ran = {n: {"u": n / 1000} for n in range(100, 160)}
        running = {n: {"u": n / 1000} for n in range(330, 390)}
        asker = self.asker(sampler, space=space)
        for number in (18, 19):
            asker.ask(number, known[: number - 8], ran)
        assert len(asker._learner._storage.get_all_trials(0)) == 11 + 60
        found = asker.ask(20, known, running)
        assert len(asker._learner._storage.get_all_trials(0)) == 12 + 60
        assert found == self.asker(sampler, space=space).ask(20, known, running)
        assert found != self.asker(sampler, space=space).ask(20, known, {})

    @pytest.mark.parametrize("sampler", ["tpe", "cma_es", "evolution"])
    def test_it_comes_nearer_to_what_was_good(self, sampler):
        space = {"u": FloatRange(bounds=(0.0, 1.0)), "v": FloatRange(bounds=(0.0, 1.0))}
        asker, known = self.asker(sampler, space=space), []
        for number in range(60):
            params = asker.ask(number, known, {})
            value = -((params["u"] - 0.7) ** 2) - (params["v"] - 0.2) ** 2
            known.append(Trial(number=number, params=params, state="complete", value=value))
        early, late = (np.mean([t.value for t in part]) for part in (known[:10], known[-20:]))
        assert late > early / 4

    @pytest.mark.parametrize("name", list(SPACE))
    def test_a_value_stands_where_it_comes_from(self, name):
        one = self.SPACE[name]
        for place in np.linspace(0, 1, 201)[:-1]:
            value = value_at(one, place)
            assert value_at(one, unit_place(one, value)) == pytest.approx(value)
            assert 0 <= unit_place(one, value) < 1

    @pytest.mark.parametrize("sampler", ["cma_es", "evolution"])
    def test_trials_without_a_figure_teach_nothing(self, sampler):
        def ended(number, value):
            params = {"a": 1 + number % 4, "b": 0.1, "d": 3 + number, "c": "x"}
            state = "stopped" if value is None else "complete"
            return Trial(number=number, params=params, state=state, value=value)

        known = [ended(n, 0.1 * (n % 7)) for n in range(24)]
        beside = [ended(99 + n, None) for n in range(3)]
        asked = [self.asker(sampler).ask(200, k, {}) for k in (known, known[:9] + beside)]
        assert self.asker(sampler).ask(200, [*known, *beside], {}) == asked[0]
        # with nine figures it is still by chance
        assert asked[1] == self.asker(sampler).ask(200, [], {})
        # one that was stopped between stages teaches what it had come to
        late = [t.model_copy(update={"points": ((1, 0.9),)}) for t in beside]
        assert self.asker(sampler).ask(200, [*known[:9], *late], {}) != asked[1]

    def test_what_runs_now_is_not_asked_again(self):
        space = {"u": FloatRange(bounds=(0.0, 1.0))}
        asker, known = self.asker("tpe", space=space), []
        for number in range(20):
            params = {"u": 0.5 + 0.4 * np.sin(number)}
            value = -((params["u"] - 0.5) ** 2)
            known.append(Trial(number=number, params=params, state="complete", value=value))
        alone = asker.ask(20, known, {})
        beside = asker.ask(20, known, {n: {"u": alone["u"]} for n in range(30, 36)})
        assert beside != alone
