"""What a search tries next: one answer for a number, a seed and the trials that are known.

Every answer is drawn from a stream of its own, so that a search that goes on after it was killed
asks what an undisturbed one would.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.errors import SpecError
from arclight.search_space import Choice, FloatRange, IntRange
from ray_apps.lean import lean_imports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.search_space import Range
    from arclight.spec import Tune
    from arclight.study import Param, Trial

STARTUP = 10
"""Trials by chance before the others are learned from."""


def trials_of(tune: Tune) -> int:
    """Return how many trials a search makes: a grid has no more than its points."""
    if tune.sampler != "grid":
        return tune.trials
    return min(tune.trials, math.prod(len(_values(r)) for r in tune.space.values()))


def check_sampler(tune: Tune) -> None:
    """Refuse a sampler whose package is not there.

    Raises:
        SpecError: it names the way out.
    """
    if tune.sampler in ("tpe", "gp"):
        _optuna()
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

    Raises:
        SpecError: the sampler needs a package that is not there.
    """

    def __init__(self, tune: Tune, *, seed: int, higher: bool) -> None:
        # by name: the order in which a spec has them is no part of a study
        space = dict(sorted(tune.space.items()))
        self._tune, self._seed, self._higher = (
            tune.model_copy(update={"space": space}), seed, higher,
        )  # fmt: skip
        check_sampler(tune)

    def ask(
        self, number: int, ended: Sequence[Trial], running: Mapping[int, Mapping[str, Param]]
    ) -> dict[str, Param]:
        """Return the parameters of a trial.

        Args:
            number: of the trial.
            ended: the trials that ended, in the order of their numbers.
            running: number -> parameters of those that run now.
        """
        space = self._tune.space
        if self._tune.sampler == "grid":
            return _grid_point(space, number)
        if self._tune.sampler == "quasi_random":
            return self._at(_sobol(len(space), self._seed, number))
        if self._tune.sampler == "random" or len(ended) < STARTUP:
            return self._at(np.random.default_rng([self._seed, number]).random(len(space)))
        return self._model(number, ended, running)

    def _at(self, places: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, Param]:
        space = self._tune.space
        return {n: _at(one, float(u)) for (n, one), u in zip(space.items(), places, strict=True)}

    def _model(
        self, number: int, ended: Sequence[Trial], running: Mapping[int, Mapping[str, Param]]
    ) -> dict[str, Param]:
        """Let Optuna answer, by a study made of what is known."""
        optuna = _optuna()
        axes = {name: _axis(one) for name, one in self._tune.space.items()}
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its authors still try out
            if self._tune.sampler == "gp":
                sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
            else:
                sampler = optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True
                )
            direction = "maximize" if self._higher else "minimize"
            study = optuna.create_study(direction=direction, sampler=sampler)
            for trial in ended:
                study.add_trial(_known(trial, axes, all_count=self._tune.sampler == "gp"))
            for params in running.values():
                study.add_trial(_running(params, axes))
            found: dict[str, Param] = study.ask(axes).params
        return found


# --------------------------------------------------------------------------------- inside


def _grid_point(space: Mapping[str, Range], number: int) -> dict[str, Param]:
    """Return one point of a grid; the last parameter changes first."""
    found: dict[str, Param] = {}
    for name, one in reversed(list(space.items())):
        number, place = divmod(number, len(_values(one)))
        found[name] = _values(one)[place]
    return {name: found[name] for name in space}


def _optuna() -> Any:
    try:
        with lean_imports():
            import optuna  # noqa: PLC0415 -- other samplers need none
    except ImportError as error:
        raise SpecError(
            "tune.sampler: tpe and gp need Optuna; run `pip install 'arclight[tune]'`, or use "
            "random or quasi_random."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _known(trial: Trial, axes: Mapping[str, Any], *, all_count: bool) -> Any:
    """Return a trial as Optuna knows it; a Gaussian process learns from complete ones only."""
    optuna = _optuna()
    states = optuna.trial.TrialState
    stopped = states.COMPLETE if all_count and trial.value is not None else states.PRUNED
    state = {"complete": states.COMPLETE, "stopped": stopped, "failed": states.FAIL}[trial.state]
    return optuna.trial.create_trial(
        params=dict(trial.params),
        distributions=dict(axes),
        state=state,
        value=trial.value if state == states.COMPLETE else None,
        intermediate_values=dict(trial.points),
    )


def _running(params: Mapping[str, Param], axes: Mapping[str, Any]) -> Any:
    optuna = _optuna()
    state = optuna.trial.TrialState.RUNNING
    return optuna.trial.create_trial(params=dict(params), distributions=dict(axes), state=state)


def _axis(one: Range) -> Any:
    distributions = _optuna().distributions
    if isinstance(one, IntRange):
        return distributions.IntDistribution(*one.bounds, log=one.log)
    if isinstance(one, FloatRange):
        return distributions.FloatDistribution(*one.bounds, log=one.log)
    return distributions.CategoricalDistribution(list(one.choice))


def _values(one: Range) -> Sequence[Param]:
    """Return all values of a range; a float range has none, and is refused in the spec."""
    if isinstance(one, Choice):
        return one.choice
    low, high = one.bounds
    return range(int(low), int(high) + 1)


def _at(one: Range, place: float) -> Param:
    """Return the value at a place in [0, 1) of a range."""
    if isinstance(one, Choice):
        return one.choice[int(place * len(one.choice))]
    low, high = one.bounds
    # a whole number stands for half a step to both sides
    edge = 0.5 if isinstance(one, IntRange) else 0.0
    ends = (low - edge, high + edge)
    if one.log:
        begin, end = (math.log(max(x, 1e-300)) for x in ends)
        found = math.exp(begin + place * (end - begin))
    else:
        found = ends[0] + place * (ends[1] - ends[0])
    if isinstance(one, IntRange):
        return int(min(max(round(found), low), high))
    return min(max(found, low), high)


def _sobol(axes: int, seed: int, number: int) -> np.ndarray[Any, Any]:
    """Return one point of a scrambled Sobol sequence."""
    from scipy.stats import qmc  # noqa: PLC0415 -- slow to import, and other samplers need none

    sequence = qmc.Sobol(axes, scramble=True, rng=np.random.default_rng(seed))
    if number:
        sequence.fast_forward(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one point is no power of two
        return sequence.random(1)[0]  # type: ignore[no-any-return]
