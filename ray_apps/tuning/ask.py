"""What a search tries next: one answer for a number, a seed and the trials that are known.

Every answer is drawn from a stream of its own, so that a search that goes on after it was killed
asks what an undisturbed one would.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.errors import SpecError
from arclight.population import heir
from arclight.search_space import Choice, unit_place, value_at
from arclight.tune_section import TRAINER
from ray_apps.tuning.evolve import CmaEs, check_cma_es, offspring
from ray_apps.tuning.learner import STARTUP, Learner, figure_of, optuna_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.search_space import Param, Range
    from arclight.trials import Trial
    from arclight.tune_section import Tune

LEARNING = ("tpe", "gp", "cma_es", "evolution")
"""Samplers that learn from them."""


def trials_of(tune: Tune) -> int:
    """Return how many trials a search makes: a grid has no more than its points."""
    return min(tune.trials, points_of(tune)) if tune.sampler == "grid" else tune.trials


def points_of(tune: Tune) -> int:
    """Return how many points a grid has, of all trainers."""
    return sum(_points(space) for space in tune.spaces.values())


def check_sampler(tune: Tune) -> None:
    """Refuse a sampler whose package is not there.

    Raises:
        SpecError: it names the way out.
    """
    if tune.sampler in ("tpe", "gp"):
        optuna_package()
    if tune.sampler == "cma_es":
        check_cma_es()
    if tune.sampler == "quasi_random" and importlib.util.find_spec("scipy") is None:
        raise SpecError(
            "tune.sampler: quasi_random needs scipy; run `pip install 'arclight[tune]'`, or use "
            "random."
        )
    if tune.sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise SpecError(
            "tune.sampler: gp needs torch; run `pip install 'arclight[torch]'`, or use tpe."
        )


class Asker:
    """Answers what to try, from what is known.

    Args:
        tune: the space and how it is searched.
        seed: of the search.
        higher: whether a higher figure is better.
        shuffles: a grid's points are tried in an order by chance, not as they lie.
        heights: of several trainers, how far a trial of each goes that is never stopped.

    Raises:
        SpecError: the sampler needs a package that is not there.
    """

    def __init__(
        self,
        tune: Tune,
        *,
        seed: int,
        higher: bool,
        shuffles: bool = True,
        heights: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._tune, self._seed, self._higher = tune, seed, higher
        self._spaces = tune.spaces
        self._orders = {
            name: _Shuffled(_points(space), np.random.default_rng([seed, *name.encode()]))
            for name, space in self._spaces.items()
            if tune.sampler == "grid" and shuffles
        }
        self._axes = max(map(len, self._spaces.values())) + bool(tune.among)
        check_sampler(tune)
        self._learner = (
            Learner(tune, higher=higher, heights=heights)
            if tune.sampler in ("tpe", "gp")
            else None
        )
        self._sobol: Any = None
        self._cma_es = CmaEs()

    def ask(
        self, number: int, ended: Sequence[Trial], running: Mapping[int, Mapping[str, Param]]
    ) -> dict[str, Param]:
        """Return the parameters of a trial.

        Args:
            number: of the trial.
            ended: the trials that ended, in the order in which they did.
            running: number -> parameters of those that run now.
        """
        if self._tune.population:
            known = {trial.number: trial for trial in ended}
            found = heir(self._tune, number, known, seed=self._seed, higher=self._higher)
            if found is not None:
                return found[1]
        if self._tune.sampler == "grid":
            return self._grid_point(number)
        if self._tune.sampler == "quasi_random":
            return self._at(self._point(number))
        rng = np.random.default_rng([self._seed, number])
        if self._tune.sampler == "random" or len(ended) < STARTUP:
            return self._at(rng.random(self._axes))
        if self._learner is None:
            return self._evolved(ended, rng)
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return self._learner.answer(seed, ended, running)

    def _at(self, places: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, Param]:
        """Return the parameters at a place in [0, 1) of each axis, [axes]."""
        names, left = list(self._spaces), [float(place) for place in places]
        trainer = names[int(left.pop(0) * len(names))] if self._tune.among else names[0]
        space = self._spaces[trainer]
        own = {
            n: value_at(one, place) for (n, one), place in zip(space.items(), left, strict=False)
        }
        return self._named(trainer, own)

    def _grid_point(self, number: int) -> dict[str, Param]:
        """Return one point of the grids; trainers take turns until they have no other."""
        sizes, begun = {name: _points(space) for name, space in self._spaces.items()}, 0
        while names := [name for name, size in sizes.items() if size > begun]:
            rounds = min(sizes[name] for name in names) - begun
            if number < rounds * len(names):
                place = begun + number // len(names)
                if not self._orders:
                    trainer = names[number % len(names)]
                    return self._named(trainer, _grid_point(self._spaces[trainer], place))
                # another one begins each turn: brackets go by a trial's number too
                trainer = names[(number + place) % len(names)]
                at = self._orders[trainer].at(place)
                return self._named(trainer, _grid_point(self._spaces[trainer], at))
            number, begun = number - rounds * len(names), begun + rounds
        raise IndexError(number)

    def _evolved(self, ended: Sequence[Trial], rng: np.random.Generator) -> dict[str, Param]:
        """Answer from places and figures; failed trials have none."""
        (space,) = self._spaces.values()
        sign = 1.0 if self._higher else -1.0
        known = [
            (np.array([unit_place(one, t.params[n]) for n, one in space.items()]), sign * figure)
            for t in ended
            if (figure := figure_of(t)) is not None
        ]
        if len(known) < STARTUP:
            return self._at(rng.random(self._axes))
        if self._tune.sampler == "evolution":
            choices = [isinstance(one, Choice) for one in space.values()]
            return self._at(offspring(known, choices, rng))
        return self._at(self._cma_es.answer(known, STARTUP, self._seed, rng))

    def _named(self, trainer: str, own: dict[str, Param]) -> dict[str, Param]:
        return {TRAINER: trainer, **own} if self._tune.among else own

    def _point(self, number: int) -> Sequence[float]:
        """Return one point of a scrambled Sobol sequence, [axes]."""
        from scipy.stats import qmc  # noqa: PLC0415 -- slow to import, and others need none

        if self._sobol is None or self._sobol.num_generated > number:
            rng = np.random.default_rng(self._seed)
            self._sobol = qmc.Sobol(self._axes, scramble=True, rng=rng)
        ahead = number - self._sobol.num_generated
        if ahead:
            self._sobol.fast_forward(ahead)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one point is no power of two
            return self._sobol.random(1)[0]  # type: ignore[no-any-return]


class _Shuffled:
    """The numbers below a count in an order by chance, of which the first are drawn as needed.

    Fisher and Yates' shuffle, with the places that it has changed alone: a grid may have more
    points than there is memory.
    """

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._count, self._rng = count, rng
        self._drawn: list[int] = []
        self._moved: dict[int, int] = {}

    def at(self, place: int) -> int:
        """Return the number at a place."""
        for first in range(len(self._drawn), place + 1):
            # 128 bits: a count may be beyond 64
            other = first + int.from_bytes(self._rng.bytes(16), "big") % (self._count - first)
            kept = self._moved.pop(first, first)
            self._drawn.append(kept if other == first else self._moved.get(other, other))
            if other != first:
                self._moved[other] = kept
        return self._drawn[place]


# --------------------------------------------------------------------------------- inside


def _points(space: Mapping[str, Range]) -> int:
    return math.prod(_count(one) for one in space.values())


def _grid_point(space: Mapping[str, Range], number: int) -> dict[str, Param]:
    """Return one point of a grid; the last parameter changes first."""
    found: dict[str, Param] = {}
    for name, one in reversed(list(space.items())):
        number, place = divmod(number, _count(one))
        found[name] = _values(one)[place]
    return {name: found[name] for name in space}


def _count(one: Range) -> int:
    """Return how many values a range has; a range of Python's own has no length past 64 bits."""
    return len(one.choice) if isinstance(one, Choice) else int(one.bounds[1] - one.bounds[0]) + 1


def _values(one: Range) -> Sequence[Param]:
    """Return all values of a range; a float range has none, and is refused in the spec."""
    if isinstance(one, Choice):
        return one.choice
    low, high = one.bounds
    return range(int(low), int(high) + 1)
