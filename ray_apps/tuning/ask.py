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
from arclight.pareto import higher_is_better
from arclight.population import heir
from arclight.search_space import Choice, FloatRange, IntRange, unit_place, value_at
from arclight.tune_section import TRAINER
from ray_apps.lean import lean_imports
from ray_apps.tuning.evolve import CmaEs, check_cma_es, offspring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.search_space import Param, Range
    from arclight.trials import Trial
    from arclight.tune_section import Tune

STARTUP = 10
"""Trials by chance before the others are learned from."""
LEARNING = ("tpe", "gp", "cma_es", "evolution")
"""Samplers that learn from them."""
PASSING = 4
"""Trials that Optuna's study holds for nothing, for each that it learns from."""


def trials_of(tune: Tune) -> int:
    """Return how many trials a search makes: a grid has no more than its points."""
    return min(tune.trials, points_of(tune)) if tune.sampler == "grid" else tune.trials


def points_of(tune: Tune) -> int:
    """Return how many points a grid has, of all trainers."""
    return sum(_points(space) for space in _spaces(tune).values())


def check_sampler(tune: Tune) -> None:
    """Refuse a sampler whose package is not there.

    Raises:
        SpecError: it names the way out.
    """
    if tune.sampler in ("tpe", "gp"):
        _optuna()
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

    Raises:
        SpecError: the sampler needs a package that is not there.
    """

    def __init__(self, tune: Tune, *, seed: int, higher: bool, shuffles: bool = True) -> None:
        self._tune, self._seed, self._higher = tune, seed, higher
        self._spaces = _spaces(tune)
        self._orders = {
            name: _Shuffled(_points(space), np.random.default_rng([seed, *name.encode()]))
            for name, space in self._spaces.items()
            if tune.sampler == "grid" and shuffles
        }
        self._axes = max(map(len, self._spaces.values())) + bool(tune.among)
        check_sampler(tune)
        self._known: Any = None  # Optuna's study
        self._told: list[int] = []
        self._passing = 0
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
        if self._tune.sampler in ("evolution", "cma_es"):
            return self._evolved(ended, rng)
        return self._model(number, ended, running)

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
            if (figure := _figure(t)) is not None
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

    def _model(
        self, number: int, ended: Sequence[Trial], running: Mapping[int, Mapping[str, Param]]
    ) -> dict[str, Param]:
        """Let Optuna answer, by a study of what is known.

        What runs now, and the answer itself, are in that study as failed from then on, which no
        sampler learns from: to make the study anew would take ten times as long as an answer. It
        is made anew once they outnumber what is known: each answer goes through all of them.
        """
        optuna = _optuna()
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its authors still try out
            if self._tune.sampler == "gp":
                sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
            else:
                sampler = optuna.samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=STARTUP,
                    multivariate=True,
                    constant_liar=True,
                    group=bool(self._tune.among),
                )
            study = self._taught(ended)
            study.sampler = sampler
            first = len(study.get_trials(deepcopy=False))
            study.add_trials([_running(self._tune, params) for params in running.values()])
            found = self._answer(study)
            for passing in range(first, first + len(running) + 1):
                study.tell(passing, state=optuna.trial.TrialState.FAIL)
            self._passing += len(running) + 1
            if self._passing > PASSING * (STARTUP + len(ended)):
                self._known = None
        return found

    def _answer(self, study: Any) -> dict[str, Param]:
        """Let a study answer: first the trainer, then what that one has."""
        if not self._tune.among:
            (space,) = self._spaces.values()
            found: dict[str, Param] = study.ask(_axes(space)).params
            return found
        trial = study.ask()
        trainer = str(trial.suggest_categorical(TRAINER, list(self._spaces)))
        space = self._spaces[trainer]
        return self._named(
            trainer, {n: _suggest(trial, f"{trainer}.{n}", space[n]) for n in space}
        )

    def _taught(self, ended: Sequence[Trial]) -> Any:
        """Return Optuna's study, told of the trials that it has not heard of."""
        numbers = [trial.number for trial in ended]
        all_count = self._tune.sampler == "gp"
        if self._known is None or numbers[: len(self._told)] != self._told:
            self._known, self._told, self._passing = (
                known_study(self._tune, (), higher=self._higher, all_count=all_count, weighs=True),
                [],
                0,
            )
        tell(self._known, self._tune, ended[len(self._told) :], all_count=all_count)
        self._told = numbers
        return self._known


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


def known_study(
    tune: Tune,
    ended: Sequence[Trial],
    *,
    higher: bool,
    all_count: bool,
    weighs: bool = False,
) -> Any:
    """Return a study of Optuna's that knows some trials.

    Args:
        tune: the space.
        ended: the trials.
        higher: whether a higher figure is better.
        all_count: a stopped trial counts as a complete one, with the figure it was stopped at.
        weighs: it knows the figures of `tune.also` as well.

    Raises:
        SpecError: Optuna is not there.
    """
    also = [higher_is_better(name) for name in tune.also] if weighs else []
    study = _optuna().create_study(
        directions=["maximize" if one else "minimize" for one in (higher, *also)]
    )
    tell(study, tune, ended, all_count=all_count)
    return study


def tell(study: Any, tune: Tune, ended: Sequence[Trial], *, all_count: bool) -> None:
    """Add trials to a study of Optuna's, as `known_study` does."""
    also = tune.also if len(study.directions) > 1 else ()
    study.add_trials([_known(tune, trial, also, all_count=all_count) for trial in ended])


# --------------------------------------------------------------------------------- inside


def _spaces(tune: Tune) -> dict[str, dict[str, Range]]:
    """Return trainer -> its space; by name, since the order in a spec is no part of a study."""
    given = {str(name): one.space for name, one in tune.among.items()} or {"": tune.space}
    return {name: dict(sorted(space.items())) for name, space in sorted(given.items())}


def _points(space: Mapping[str, Range]) -> int:
    return math.prod(len(_values(one)) for one in space.values())


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
            "random."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _known(tune: Tune, trial: Trial, also: Sequence[str], *, all_count: bool) -> Any:
    """Return a trial as Optuna knows it; a Gaussian process learns from complete ones only."""
    optuna = _optuna()
    states = optuna.trial.TrialState
    figure = _figure(trial)
    stopped = states.COMPLETE if all_count and figure is not None else states.PRUNED
    state = {"complete": states.COMPLETE, "stopped": stopped, "failed": states.FAIL}[trial.state]
    if also and (state != states.COMPLETE or any(name not in trial.others for name in also)):
        return optuna.trial.create_trial(**_placed(tune, trial.params), state=states.FAIL)
    figures = [figure, *(trial.others[name] for name in also)]
    return optuna.trial.create_trial(
        **_placed(tune, trial.params),
        state=state,
        values=figures if state == states.COMPLETE else None,
        intermediate_values={} if also else dict(trial.points),
    )


def _figure(trial: Trial) -> float | None:
    """Return what a trial teaches: its figure, or where it was when it was stopped."""
    if trial.value is not None or trial.state != "stopped":
        return trial.value
    return trial.points[-1][1] if trial.points else None


def _running(tune: Tune, params: Mapping[str, Param]) -> Any:
    optuna = _optuna()
    return optuna.trial.create_trial(
        **_placed(tune, params), state=optuna.trial.TrialState.RUNNING
    )


def _placed(tune: Tune, params: Mapping[str, Param]) -> dict[str, Any]:
    """Return parameters and the axes they lie on; those of several trainers by their names."""
    spaces = _spaces(tune)
    if not tune.among:
        return {"params": dict(params), "distributions": _axes(spaces[""])}
    trainer = str(params[TRAINER])
    own = {f"{trainer}.{n}": v for n, v in params.items() if n != TRAINER}
    choice = _optuna().distributions.CategoricalDistribution(list(spaces))
    axes = {f"{trainer}.{n}": axis for n, axis in _axes(spaces[trainer]).items()}
    return {"params": {TRAINER: trainer, **own}, "distributions": {TRAINER: choice, **axes}}


def _axes(space: Mapping[str, Range]) -> dict[str, Any]:
    return {name: _axis(one) for name, one in space.items()}


def _suggest(trial: Any, name: str, one: Range) -> Param:
    """Let a trial of Optuna's take a value on an axis."""
    if isinstance(one, IntRange):
        found: Param = trial.suggest_int(name, *one.bounds, log=one.log)
    elif isinstance(one, FloatRange):
        found = trial.suggest_float(name, *one.bounds, log=one.log)
    else:
        found = trial.suggest_categorical(name, list(one.choice))
    return found


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
