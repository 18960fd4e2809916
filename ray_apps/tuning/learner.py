"""What Optuna tries next, and what it makes of trials that are known.

Its samplers are asked by their own protocol (`infer_relative_search_space`, `sample_relative`,
`sample_independent`) and not by `Study.ask`: for that each trial that runs would have to be in its
storage, which copies a trial several times and forgets none.
"""

from __future__ import annotations

import functools
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from arclight.errors import SpecError
from arclight.halving import RUNGS, rungs_of
from arclight.pareto import higher_is_better
from arclight.search_space import FloatRange, IntRange
from arclight.tune_section import TRAINER
from ray_apps.lean import lean_imports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.search_space import Param, Range
    from arclight.trials import Trial
    from arclight.tune_section import Tune

STARTUP = 10
"""Trials by chance before the others are learned from."""
NAME = "known"
"""Of the study in a storage that has no other."""


@functools.cache
def optuna_package() -> Any:
    """Return Optuna, which only two samplers and the report need.

    Raises:
        SpecError: it is not there.
    """
    try:
        with lean_imports():
            import optuna  # noqa: PLC0415 -- see above
    except ImportError as error:
        raise SpecError(
            "tune.sampler: tpe and gp need Optuna; run `pip install 'arclight[tune]'`, or use "
            "random."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Learner:
    """Answers from the trials that ended and those that run.

    Args:
        tune: the space; its sampler is tpe or gp.
        higher: whether a higher figure is better.
        heights: of several trainers, how far a trial of each goes that is never stopped.

    Raises:
        SpecError: Optuna is not there.
    """

    def __init__(
        self, tune: Tune, *, higher: bool, heights: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._tune, self._higher, self._axes = tune, higher, _Axes(tune, heights)
        self._storage: Any = None
        self._told: list[int] = []
        self._running: dict[int, Any] = {}

    def answer(
        self, seed: int, ended: Sequence[Trial], running: Mapping[int, Mapping[str, Param]]
    ) -> dict[str, Param]:
        """Return the parameters of a trial.

        Args:
            seed: of what is drawn.
            ended: the trials that ended, in the order in which they did.
            running: number -> parameters of those that run now; a number's never change.
        """
        optuna = optuna_package()
        self._tell(ended)
        self._running = {
            number: self._running.get(number) or self._axes.running(params)
            for number, params in running.items()
        }
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        for number, one in enumerate([*self._running.values(), trial], len(ended)):
            one.number = number
        self._storage.running = list(self._running.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its authors still try out
            sampler = self._sampler(seed)
            # another one each time, since it keeps the trials that it has seen once
            study = optuna.load_study(study_name=NAME, storage=self._storage, sampler=sampler)
            space = self._axes.joint or sampler.infer_relative_search_space(study, trial)
            found = sampler.sample_relative(study, trial, space)

            def value(name: str, axis: Any) -> Any:
                if axis.single():
                    return axis.choices[0]
                if name in found:
                    return found[name]
                return sampler.sample_independent(study, trial, name, axis)

            trainer = str(value(TRAINER, self._axes.trainer)) if self._tune.among else ""
            axes = self._axes.of(trainer)
            own = {
                name: value(self._axes.name(trainer, name), axis) for name, axis in axes.items()
            }
        return {TRAINER: trainer, **own} if self._tune.among else own

    def _sampler(self, seed: int) -> Any:
        samplers = optuna_package().samplers
        if self._tune.sampler == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
        return samplers.TPESampler(
            seed=seed,
            n_startup_trials=STARTUP,
            multivariate=True,
            constant_liar=True,
            group=bool(self._tune.among),
        )

    def _tell(self, ended: Sequence[Trial]) -> None:
        """Let the storage know the trials that it has not heard of."""
        optuna, tune = optuna_package(), self._tune
        numbers = [trial.number for trial in ended]
        if self._storage is None or numbers[: len(self._told)] != self._told:
            self._storage, self._told = _storage_class()(), []
            optuna.create_study(
                study_name=NAME,
                storage=self._storage,
                directions=_directions(self._higher, *map(higher_is_better, tune.also)),
            )
        study = optuna.load_study(study_name=NAME, storage=self._storage)
        all_count = tune.sampler == "gp"
        study.add_trials(
            self._axes.ended(trial, also=tune.also, all_count=all_count)
            for trial in ended[len(self._told) :]
        )
        self._told = numbers


def known_study(tune: Tune, ended: Sequence[Trial], *, higher: bool) -> Any:
    """Return a study of Optuna's that knows some trials, all as complete ones that have a figure.

    Args:
        tune: the space.
        ended: the trials; one that was stopped counts with the figure it was stopped at.
        higher: whether a higher figure is better.

    Raises:
        SpecError: Optuna is not there.
    """
    study, axes = optuna_package().create_study(directions=_directions(higher)), _Axes(tune, {})
    study.add_trials(axes.ended(trial, all_count=True) for trial in ended)
    return study


def figure_of(trial: Trial) -> float | None:
    """Return what a trial teaches: its figure, or where it was when it was stopped."""
    if trial.value is not None or trial.state != "stopped":
        return trial.value
    return trial.points[-1][1] if trial.points else None


# --------------------------------------------------------------------------------- inside


class _Axes:
    """A space as Optuna has it; of several trainers a parameter's name begins with its trainer."""

    def __init__(self, tune: Tune, heights: Mapping[str, int]) -> None:
        self._is_among = bool(tune.among)
        self._rungs = {trainer: rungs_of(height) for trainer, height in heights.items()}
        self._axes = {
            trainer: {name: _axis(one) for name, one in space.items()}
            for trainer, space in tune.spaces.items()
        }
        self.trainer = optuna_package().distributions.CategoricalDistribution(list(self._axes))
        # what Optuna would find by a look at every trial; of several trainers it makes groups
        alone = {} if self._is_among else next(iter(self._axes.values()))
        self.joint = {name: axis for name, axis in sorted(alone.items()) if not axis.single()}

    def of(self, trainer: str) -> dict[str, Any]:
        """Return a trainer's parameters, each with its axis."""
        return self._axes[trainer]

    def name(self, trainer: str, name: str) -> str:
        """Return what Optuna calls a parameter."""
        return f"{trainer}.{name}" if self._is_among else name

    def running(self, params: Mapping[str, Param]) -> Any:
        """Return a trial that runs."""
        trial = optuna_package().trial
        return trial.create_trial(**self._placed(params), state=trial.TrialState.RUNNING)

    def ended(self, trial: Trial, *, also: Sequence[str] = (), all_count: bool) -> Any:
        """Return a trial as Optuna knows it.

        Args:
            trial: one that ended.
            also: further figures that it must have.
            all_count: a stopped trial is a complete one with the figure it was stopped at; a
                Gaussian process learns from no others.
        """
        optuna = optuna_package()
        states, placed = optuna.trial.TrialState, self._placed(trial.params)
        figure = figure_of(trial)
        stopped = states.COMPLETE if all_count and figure is not None else states.PRUNED
        state = {"complete": states.COMPLETE, "stopped": stopped, "failed": states.FAIL}
        found = state[trial.state]
        if also and (found != states.COMPLETE or any(name not in trial.others for name in also)):
            return optuna.trial.create_trial(**placed, state=states.FAIL)
        figures = [figure, *(trial.others[name] for name in also)]
        return optuna.trial.create_trial(
            **placed,
            state=found,
            values=figures if found == states.COMPLETE else None,
            intermediate_values={} if also else self._way(trial),
        )

    def _way(self, trial: Trial) -> dict[int, float]:
        """Return how far a trial was -> its figure there; who was further is better to Optuna.

        Of several trainers the rungs that lie behind are counted, and not rounds, of which one is
        another thing to each: otherwise those of whom most rounds are asked are the best.
        """
        rungs = self._rungs.get(str(trial.params.get(TRAINER))) if self._is_among else None
        if rungs is None:
            return dict(trial.points)
        return {RUNGS - sum(at < rung for rung in rungs): figure for at, figure in trial.points}

    def _placed(self, params: Mapping[str, Param]) -> dict[str, Any]:
        """Return parameters and the axes they lie on."""
        trainer = str(params[TRAINER]) if self._is_among else ""
        own = {
            self.name(trainer, name): value
            for name, value in params.items()
            if not (self._is_among and name == TRAINER)
        }
        axes = {self.name(trainer, name): axis for name, axis in self._axes[trainer].items()}
        if not self._is_among:
            return {"params": own, "distributions": axes}
        chosen, choice = {TRAINER: trainer}, {TRAINER: self.trainer}
        return {"params": chosen | own, "distributions": choice | axes}


@functools.cache
def _storage_class() -> Any:
    """Return where a study of one process has its trials."""

    class Storage(optuna_package().storages.InMemoryStorage):  # type: ignore[misc]
        """Trials that ended, and beside them those that run, as long as they do."""

        running: Sequence[Any] = ()

        def get_all_trials(
            self,
            study_id: int,
            deepcopy: bool = True,  # noqa: FBT001 -- the library's
            states: Any = None,
        ) -> list[Any]:
            """Return the trials of some states, or all; those that run are the caller's own."""
            ended: list[Any] = super().get_all_trials(study_id, deepcopy, states)
            return ended + [one for one in self.running if states is None or one.state in states]

        def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
            """Keep nothing: what a sampler would tell others of its answer."""

    return Storage


def _directions(*higher: bool) -> list[str]:
    return ["maximize" if one else "minimize" for one in higher]


def _axis(one: Range) -> Any:
    distributions = optuna_package().distributions
    if isinstance(one, IntRange):
        return distributions.IntDistribution(*one.bounds, log=one.log)
    if isinstance(one, FloatRange):
        return distributions.FloatDistribution(*one.bounds, log=one.log)
    return distributions.CategoricalDistribution(list(one.choice))
