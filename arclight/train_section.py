"""The train section of a spec: the library, its parameters, what it starts from, and where."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from arclight.contract import Contract
from arclight.spec_field import Duration, FieldError, ModelRef, Params, TrainerName
from arclight.workers import Workers

Device = Literal["auto", "cpu", "cuda"]
MOVING = ("learning_rate", "weight_decay", "dropout", "clip")
"""Of a network's parameters, what may change on the way: its weights have the same shape."""
_ROUNDS = re.compile("[1-9][0-9]{0,4}")
ELSEWHERE = ("workers", "device", "bins", "checkpoint_every")
"""Of a train section: where it is trained, and what is left on the way."""


def _by_rounds(value: Any) -> Any:
    """Return rounds as numbers; what is none, or another way to write one, is refused."""
    if not isinstance(value, dict):
        return value
    for name in value:
        if not _ROUNDS.fullmatch(str(name)):
            raise ValueError(
                f"'{name}' must be a number of rounds from 1 to 99999, such as "
                "{10: {dropout: 0.3}}."
            )
    return {int(name): own for name, own in value.items()}


ParamsAfter = Annotated[dict[int, Params], BeforeValidator(_by_rounds)]


class Costs(Contract):
    """What a wrong answer of a binary task costs, in any one unit."""

    false_positive: float = Field(gt=0)
    false_negative: float = Field(gt=0)


SAMPLED = ("downsample", "upsample")
"""Values of `train.imbalance` after which a model's scores are put right."""
AT_ONE_HALF = ("accuracy", "precision", "recall")
"""Metrics of a binary task that judge each round at a threshold of 0.5."""


class Init(Contract):
    """A registered model that a training starts from."""

    model: ModelRef
    freeze: int = Field(default=0, ge=0, le=64)
    """Of a network: so many layers stay as they are, and what is below them; 0 moves all."""
    head: Literal["kept", "new"] = "kept"
    """Of a network: whether its last layer is kept, or drawn anew for another label."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Of a network's last layer; None is that of the others."""
    against_scratch: bool = False
    """Whether the same is trained from scratch as well, for as many rounds, and compared."""


def _init(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class Train(Contract):
    """One training: the library, its own parameters, and when to stop."""

    trainer: TrainerName = "xgboost"
    rounds: int = Field(default=300, ge=1, le=100_000)
    early_stopping: int | None = Field(default=20, ge=1)
    metric: str | None = None
    params: Params = {}
    params_after: ParamsAfter = {}
    """Rounds -> parameters of a network that are others once so many rounds are done."""
    init: Annotated[
        Init | None, BeforeValidator(_init, json_schema_input_type=Init | str | None)
    ] = None
    """What it starts from; None starts from scratch."""
    imbalance: Literal["none", "weight", "downsample", "upsample"] = "none"
    costs: Costs | None = None
    """What the threshold is chosen by, on valid; None chooses the best F1."""
    folds: int | None = Field(default=None, ge=2, le=20)
    """Of a cross-validation on train beside the model; None does without."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    workers: Workers = "auto"
    """Processes that train, on Ray; `auto`: one a node, 0: this process, without Ray."""
    device: Device = "auto"
    """What each of them computes on; `auto`: a GPU where there is one that the library can use."""
    bins: Literal["auto", "memory", "disk"] = "auto"
    """Where XGBoost's bins are; `auto`: on disk once memory is known to have no room for them."""
    checkpoint_every: Duration = "30s"
    """What a killed training loses at most."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.bins == "disk" and (self.trainer != "xgboost" or self.device == "cuda"):
            raise FieldError(
                "bins on disk are for XGBoost on cores; leave it out, or set it to auto.", "bins"
            )
        self._check_params_after()
        if self.init is None:
            return self
        if self.folds is not None:
            raise FieldError(
                "folds of a training that starts from a model would be judged on rows which that "
                "model may have learned from; leave folds or init out.",
                "folds",
            )
        for name in ("freeze", "head", "head_learning_rate"):
            is_set = getattr(self.init, name) != Init.model_fields[name].default
            if is_set and self.trainer != "torch":
                raise FieldError(
                    f"{name} is for a network; trees are added to those of {self.trainer} as they "
                    "are. Leave it out.",
                    "init",
                    name,
                )
        return self

    def _check_params_after(self) -> None:
        if self.params_after and self.trainer != "torch":
            text = f"{self.trainer} keeps its parameters; only a network's can change on the way."
            raise FieldError(f"{text} Leave it out.", "params_after")
        empty = [after for after, own in self.params_after.items() if not own]
        if empty:
            text = f"after {empty[0]:,} rounds nothing changes; name a parameter, or leave it out."
            raise FieldError(text, "params_after")
        late = [after for after in self.params_after if after >= self.rounds]
        if late:
            text = f"a training of {self.rounds:,} rounds does not go on after {late[0]:,}"
            raise FieldError(f"{text}; leave that out, or set more rounds.", "params_after")
