"""The tune section of a spec: what is searched, how, and for how long."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from arclight.contract import Contract
from arclight.search_space import Choice, FloatRange, IntRange, Range
from arclight.spec_field import FieldError, Params, Text, TrainerName
from arclight.trial_table import check_url

Sampler = Literal["tpe", "gp", "cma_es", "evolution", "quasi_random", "random", "grid"]
Storage = Annotated[str, AfterValidator(check_url)]
BY_CHANCE = ("random", "quasi_random")
TRAINER = "trainer"
"""Among a trial's parameters, where a search chooses among trainers: which one it has."""


GP_VALUES = 1_000_000
"""Of a whole number; Optuna's Gaussian process holds each of them as a float."""
MODEL_BYTES = "model_bytes"
"""The size of a trial's model file, as a figure that it is weighed by; smaller is better."""


class Candidate(Contract):
    """One trainer among which a search chooses."""

    rounds: int | None = Field(default=None, ge=1, le=100_000)
    """None: those of the train section."""
    params: Params = {}
    """What all of its trials have."""
    space: dict[Text, Range] = Field(min_length=1)


AUTO: dict[TrainerName, dict[str, Any]] = {
    "xgboost": {
        "space": {
            "max_depth": {"int": (3, 10)},
            "learning_rate": {"float": (0.02, 0.3), "log": True},
            "min_child_weight": {"float": (1.0, 100.0), "log": True},
            "subsample": {"float": (0.5, 1.0)},
            "colsample_bytree": {"float": (0.4, 1.0)},
            "reg_lambda": {"float": (0.01, 10.0), "log": True},
        },
    },
    "lightgbm": {
        "params": {"bagging_freq": 1},
        "space": {
            "num_leaves": {"int": (7, 255), "log": True},
            "learning_rate": {"float": (0.02, 0.3), "log": True},
            "min_data_in_leaf": {"int": (5, 200), "log": True},
            "bagging_fraction": {"float": (0.5, 1.0)},
            "feature_fraction": {"float": (0.4, 1.0)},
            "lambda_l2": {"float": (0.001, 10.0), "log": True},
        },
    },
    "torch": {
        "rounds": 30,  # each of them goes over all rows
        "space": {
            "net": {"choice": ("mlp", "resnet")},
            "width": {"choice": (64, 128, 256)},
            "learning_rate": {"float": (0.0003, 0.01), "log": True},
            "dropout": {"float": (0.0, 0.3)},
            "weight_decay": {"float": (1e-6, 0.01), "log": True},
        },
    },
}
"""What `auto` searches: ranges wide around the libraries' own defaults."""


Trainers = dict[TrainerName, Candidate]


def _tag(value: Any) -> str:
    return "auto" if isinstance(value, str) else "dict"


class Tune(Contract):
    """A search over a space of the trainer's parameters, or over several trainers."""

    trials: int = Field(default=50, ge=1, le=100_000)
    sampler: Sampler = "tpe"
    scheduler: Literal["asha", "hyperband", "median", "none", "population"] = "asha"
    population: int | None = Field(default=None, ge=4, le=1000)
    """Networks that are trained side by side, where that is how a search goes."""
    time_limit_s: int | None = Field(default=None, ge=1)
    """Of one command, workers that are lost included."""
    trial_limit_s: int | None = Field(default=None, ge=1)
    fidelity: Literal["rounds", "rows"] = "rounds"
    """What the scheduler gives a trial more of: rounds, or row groups, each time from scratch."""
    folds: int | None = Field(default=None, ge=2, le=20)
    """Of train, that a trial learns and is judged on; None: it is judged on valid."""
    also: tuple[Text, ...] = ()
    """Figures beside the metric that trials are weighed by: metrics, or `model_bytes`."""
    target: float | None = None
    """A figure that is good enough: no trial is begun after one that reached it."""
    at_once: int | None = Field(default=None, ge=1)
    """Trials that run at the same time on a node; None: one a core."""
    nodes: int | None = Field(default=None, ge=1)
    """At most so many nodes of a cluster; None: all."""
    storage: Storage | None = None
    """The Postgres database that keeps the trials; None: a file of the store."""
    space: dict[Text, Range] = {}
    """Of the train section's trainer."""
    trainers: Annotated[
        Annotated[Trainers, Tag("dict")] | Annotated[Literal["auto"], Tag("auto")],
        Discriminator(_tag),
    ] = {}
    """Among which is chosen, each with a space of its own."""

    @property
    def among(self) -> Trainers:
        """The trainers among which is chosen; none where it is the train section's."""
        if self.trainers != "auto":
            return self.trainers
        return {name: Candidate.model_validate(AUTO[name]) for name in AUTO if find_spec(name)}

    @property
    def spaces(self) -> dict[str, dict[str, Range]]:
        """Trainer -> its space, of the train section's trainer with no name.

        By name, since the order in a spec is no part of a study.
        """
        given = {str(name): one.space for name, one in self.among.items()} or {"": self.space}
        return {name: dict(sorted(space.items())) for name, space in sorted(given.items())}

    @property
    def generations(self) -> int:
        """How often the networks of a population are compared; without one once."""
        return self.trials // self.population if self.population else 1

    @property
    def unit(self) -> str:
        """What the scheduler counts in."""
        return "fold" if self.folds else "row group" if self.fidelity == "rows" else "round"

    def written_out(self) -> Self:
        """Return the section with the trainers that `auto` stands for."""
        return self.model_copy(update={"trainers": self.among})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.space) == bool(self.trainers):
            how = "not both" if self.space else "such as {max_depth: {int: [3, 10]}}"
            text = f"a search must have a space or trainers with a space each, {how}."
            raise FieldError(text, "space")
        if self.folds and self.fidelity == "rows":
            raise FieldError("folds have all rows; leave them out, or fidelity.", "fidelity")
        self._check_population()
        self._check_sampler()
        for path, space in self._spaces():
            for name, values in space.items():
                if text := self._problem(name, values):
                    raise FieldError(text, *path, name)
        return self

    def _problem(self, name: str, values: Range) -> str:
        """Return what speaks against a parameter of a space; nothing where it may be there."""
        if name == TRAINER:
            return "trainers are chosen among by tune.trainers, each with a space."
        if self.sampler == "cma_es" and isinstance(values, Choice):
            return "cma_es moves along numbers; leave the choice out, or use tpe."
        if self.sampler == "gp" and isinstance(values, IntRange) and _is_wide(values):
            return f"gp goes through every whole number, at most {GP_VALUES:,}; use tpe."
        if self.sampler == "grid" and isinstance(values, FloatRange):
            return "a grid has no steps for a float range; list its values as a choice."
        return ""

    def _check_sampler(self) -> None:
        if twice := next((name for name in self.also if self.also.count(name) > 1), None):
            raise FieldError(f"'{twice}' is there twice; leave one out.", "also")
        if self.also and self.scheduler != "none":
            text = "what is stopped early has no other figures; set `scheduler: none` with also."
            raise FieldError(text, "scheduler")
        if self.also and self.sampler in ("gp", "cma_es", "evolution"):
            text = f"{self.sampler} learns from one figure alone; use tpe with also."
            raise FieldError(text, "sampler")
        if self.trainers and self.sampler in ("gp", "cma_es", "evolution"):
            raise FieldError(
                f"{self.sampler} needs the same parameters in every trial; use tpe to choose "
                "among trainers.",
                "sampler",
            )

    def _check_population(self) -> None:
        count = self.population
        if (count is not None) != (self.scheduler == "population"):
            has = "scheduler: population" if count else "such as `population: 8`"
            raise FieldError(f"a population goes with its size; add {has}.", "population")
        if count is None:
            return
        if self.trials % count or self.trials < 2 * count:
            low = max(2, self.trials // count) * count
            text = f"a population of {count} has {count} trials a generation, and at least two of"
            raise FieldError(
                f"{text} them, got {self.trials}; set {low} or {low + count}.", "trials"
            )
        if self.sampler not in BY_CHANCE:
            is_unsaid = " (which it is where none is given)" if self.sampler == "tpe" else ""
            text = (
                "a population begins by chance and learns from itself, not by "
                f"{self.sampler}{is_unsaid}"
            )
            raise FieldError(f"{text}; set sampler: random or quasi_random.", "sampler")
        given = {"trainers": self.trainers, "folds": self.folds, "also": self.also}
        beside = [name for name, value in given.items() if value]
        beside += ["fidelity"] if self.fidelity == "rows" else []
        if beside:
            text = "a population's networks take over each other's weights, learned from all rows"
            raise FieldError(f"{text}; leave out {beside[0]}, or the population.", beside[0])

    def _spaces(self) -> list[tuple[tuple[str, ...], dict[str, Range]]]:
        below = [(("trainers", "dict", n, "space"), one.space) for n, one in self.among.items()]
        return [(("space",), self.space), *below]


def _is_wide(values: IntRange) -> bool:
    low, high = values.bounds
    return high - low >= GP_VALUES
