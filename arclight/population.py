"""Populations: networks that are trained side by side, of which the worst take over from the best.

Population based training: Jaderberg et al., Population Based Training of Neural Networks (2017),
with truncation as its rule. A trial is one network in one generation: it goes on from the weights
of a trial of the generation before, its own network's or, of the worst quarter, those of one of
the best quarter with other parameters. Every answer is drawn from a stream of its own, and a
generation begins when the one before is over: so the trials do not depend on who is quicker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arclight.search_space import Choice, IntRange, value_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.search_space import Param, Range
    from arclight.trials import Trial
    from arclight.tune_section import Tune

PART = 4
"""One of so many is replaced, and as many are what others go on from."""
ANEW = 0.25
"""How likely a parameter that changes is drawn anew; otherwise it is a step away."""
STEP = 1.25


@dataclass(frozen=True)
class Leg:
    """What a trial of a population trains: the rounds of one generation, and those before.

    Attributes:
        parent: the trial whose network goes on; None: a fresh one.
        params: that the first of those before it began with.
        params_after: rounds -> what changed once these were done.
        begins: rounds that were done before it.
        ends: rounds that are done after it.
    """

    parent: int | None
    params: dict[str, Param]
    params_after: dict[int, dict[str, Param]]
    begins: int
    ends: int


def generation_before(tune: Tune, number: int, by: int = 1) -> range:
    """Return the numbers of the trials of a generation before that of a trial, if there is one."""
    if tune.population is None:
        return range(0)
    first = (_generation(tune, number) - by) * tune.population
    return range(first, first + tune.population) if first >= 0 else range(0)


def is_ready(tune: Tune, number: int, ended: Mapping[int, Trial]) -> bool:
    """Say whether the generation before that of a trial is over."""
    return all(one in ended for one in generation_before(tune, number))


def heir(
    tune: Tune, number: int, ended: Mapping[int, Trial], *, seed: int, higher: bool
) -> tuple[int, dict[str, Param]] | None:
    """Return the trial that another goes on from, and its parameters; None: a fresh network.

    Args:
        tune: the space, and how many networks there are.
        number: of the trial.
        ended: all of the generation before are among them; who failed or was stopped is replaced.
        seed: of the search.
        higher: whether a higher figure is better.
    """
    before = [ended[one] for one in generation_before(tune, number)]
    ranked = _ranked(before, higher=higher)
    if not ranked:
        return None  # the first generation, or all of the one before failed
    count = tune.population or 1
    stay = min(len(ranked), count - max(1, count // PART))
    mine = number - count
    for trial in ranked[:stay]:
        if trial.number == mine:
            return mine, dict(trial.params)
    rng = np.random.default_rng([seed, number])
    # one whose training is over has nothing to go on with
    alive = [t for t in ranked if t.rounds >= t.points[-1][0]] or ranked
    best = alive[: max(1, count // PART)]
    parent = best[int(rng.integers(len(best)))]
    space = sorted(tune.space.items())
    return parent.number, {n: _moved(one, parent.params[n], rng) for n, one in space}


def leg_of(
    tune: Tune,
    rounds: int,
    number: int,
    own: Mapping[str, Param],
    parent: int | None,
    ended: Mapping[int, Trial],
) -> Leg:
    """Return what a trial trains, with everything that its network had before.

    Args:
        tune: how many networks there are.
        rounds: of a whole training.
        number: of the trial.
        own: its parameters.
        parent: the trial that it goes on from.
        ended: it and those before it are among them.
    """
    if tune.population is None:
        return Leg(None, dict(own), {}, 0, rounds)
    line: list[tuple[int, dict[str, Param]]] = []
    params, before = dict(own), parent
    while before is not None:
        line.append((_ends(tune, rounds, _generation(tune, before)), params))
        params, before = dict(ended[before].params), ended[before].parent
    changes, now = {}, params
    for begins, later in reversed(line):
        if changed := {name: value for name, value in later.items() if now[name] != value}:
            changes[begins] = changed
        now = later
    begins = 0 if parent is None else _ends(tune, rounds, _generation(tune, parent))
    return Leg(parent, params, changes, begins, _ends(tune, rounds, _generation(tune, number)))


def line_of(trial: Trial, ended: Mapping[int, Trial]) -> tuple[tuple[int, float], ...]:
    """Return the points of a trial and of all those that its network went through before."""
    points, parent = trial.points, trial.parent
    while parent is not None:
        points, parent = ended[parent].points + points, ended[parent].parent
    return points


# --------------------------------------------------------------------------------- inside


def _generation(tune: Tune, number: int) -> int:
    return number // (tune.population or 1)


def _ends(tune: Tune, rounds: int, generation: int) -> int:
    return round((generation + 1) * rounds / tune.generations)


def _ranked(trials: Sequence[Trial], *, higher: bool) -> list[Trial]:
    """Return the trials that came to the end of their generation, the best there first."""
    sign = -1 if higher else 1
    known = [trial for trial in trials if trial.state == "complete"]
    return sorted(known, key=lambda t: (sign * t.points[-1][1], t.number))


def _moved(one: Range, was: Param, rng: np.random.Generator) -> Param:
    """Return another value of a parameter, a number: a step up or down, or any of its range.

    From an end of the range a step goes the other way.
    """
    anew, place, up = rng.random(), rng.random(), bool(rng.random() < 0.5)
    value = float(was)
    if anew < ANEW:
        return value_at(one, place)
    if isinstance(one, Choice):
        order = sorted(one.choice, key=float)
        at, last = order.index(was), len(order) - 1
        up = up if 0 < at < last else at == 0
        return order[min(max(at + (1 if up else -1), 0), last)]
    if value == 0:  # of which no factor makes another
        return value_at(one, place)
    low, high = one.bounds
    up = up if low < value < high else value <= low
    found = value * (STEP if up else 1 / STEP)
    if isinstance(one, IntRange):
        found = max(round(found), value + 1) if up else min(round(found), value - 1)
        return int(min(max(found, low), high))
    return min(max(found, low), high)
