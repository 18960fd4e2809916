"""What `train.params` may say to a network, and what it means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from arclight.errors import SpecError, nearest, printable
from arclight.train_section import MOVING
from ray_apps.trainers.torch_nets import NetName, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ray_apps.trainers import TrainJob
    from ray_apps.trainers.torch_inputs import Inputs

NETS: tuple[NetName, ...] = get_args(NetName)
Precision = Literal["auto", "float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class Params:
    """How a network is built and trained.

    Attributes:
        net: its kind.
        width: of a hidden layer, or of a token.
        depth: hidden layers or blocks.
        embedding: numbers that a category becomes; a transformer's are as wide as its tokens.
        heads: of a transformer's attention; they divide its width.
        learning_rate: the highest, after the warm-up.
        weight_decay: AdamW's.
        batch_rows: rows of all workers between two steps; 0 takes a 256th of train, from 32 to
            1,024.
        warmup: part of all steps in which the rate grows; then it falls to 0 along a cosine.
        clip: the longest step's gradient; longer ones are shortened to it.
        precision: of a step's products; weights and sums stay float32. `auto` is bf16 on a GPU.
        compile: whether torch compiles the network's steps, which takes it a while.
    """

    net: NetName = "mlp"
    width: int = 128
    depth: int = 3
    embedding: int = 16
    heads: int = 8
    dropout: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_rows: int = 0
    warmup: float = 0.05
    clip: float = 1.0
    precision: Precision = "auto"
    compile: bool = False

    def batch(self, rows: int) -> int:
        """Return the rows between two steps for so many train rows."""
        return self.batch_rows or min(1024, max(32, rows // 256))

    def shape(self, inputs: Inputs, outputs: int) -> Shape:
        """Return the network for some inputs."""
        return Shape(
            net=self.net,
            numbers=len(inputs.knots),
            levels=inputs.levels,
            outputs=outputs,
            width=self.width,
            depth=self.depth,
            embedding=self.embedding,
            heads=self.heads,
            dropout=self.dropout,
        )


DEFAULTS: dict[str, dict[str, Any]] = {
    "ft_transformer": {"width": 64, "depth": 3, "learning_rate": 3e-4},
}
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "net": (f"one of {', '.join(NETS)}", lambda v: v in NETS),
    "width": ("a whole number from 1 to 8192", lambda v: _is_whole(v) and 1 <= v <= 8192),
    "depth": ("a whole number from 1 to 64", lambda v: _is_whole(v) and 1 <= v <= 64),
    "embedding": ("a whole number from 1 to 1024", lambda v: _is_whole(v) and 1 <= v <= 1024),
    "heads": ("a whole number from 1 to 64", lambda v: _is_whole(v) and 1 <= v <= 64),
    "dropout": ("a number at least 0 and less than 1", lambda v: _is_number(v) and 0 <= v < 1),
    "learning_rate": ("a finite number more than 0", lambda v: _is_number(v) and v > 0),
    "weight_decay": ("a finite number at least 0", lambda v: _is_number(v) and v >= 0),
    "batch_rows": ("a whole number from 1, or 0", lambda v: _is_whole(v) and v >= 0),
    "warmup": ("a number at least 0 and less than 1", lambda v: _is_number(v) and 0 <= v < 1),
    "clip": ("a finite number more than 0", lambda v: _is_number(v) and v > 0),
    "precision": (f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS),
    "compile": ("true or false", lambda v: isinstance(v, bool)),
}


SHAPE = ("net", "width", "depth", "embedding", "heads")
"""What makes a network's weights fit; those of a model that a training starts from are its own."""


def outputs_of(job: TrainJob) -> int:
    """Return the numbers that a network gives a row."""
    return job.classes if job.task == "multiclass" else 1


def params_at(params: Params, job: TrainJob, number: int) -> Params:
    """Return the parameters of an epoch, by its number from 0.

    Args:
        params: those that the training began with.
        job: has what is another from a round on.
        number: of the epoch.
    """
    changes = [own for after, own in sorted(job.params_after.items()) if after <= number]
    for own in changes:
        params = replace(params, **cast("dict[str, Any]", own))
    return params


def params_from(job: TrainJob, shape: Shape) -> Params:
    """Return the parameters of a job that starts from a network of a shape, checked.

    Raises:
        SpecError: as `params_of`, or one would make another network.
    """
    own = {name: getattr(shape, name) for name in SHAPE}
    for name, value in own.items():
        if job.params.get(name, value) != value:
            raise SpecError(
                f"train.params: {name} must be {value}, that of the network in train.init, got "
                f"{printable(job.params[name])}; leave it out."
            )
    init = job.init
    if init is not None and init.freeze > shape.depth:
        raise SpecError(
            f"train.init: freeze must be at most {shape.depth}, the layers of the network, got "
            f"{init.freeze}."
        )
    return params_of(replace(job, params={"dropout": shape.dropout, **job.params, **own}))


def params_of(job: TrainJob) -> Params:
    """Return a job's parameters, checked.

    Raises:
        SpecError: one is unknown, or has a value that it cannot have.
    """
    _check("train.params", job.params, tuple(RULES), "a network has no")
    for after, changed in job.params_after.items():
        where = f"train.params_after.{after}"
        _check(where, changed, MOVING, "a network that is being trained cannot take another")
    net = str(job.params.get("net", Params.net))
    found = Params(**cast("dict[str, Any]", {**DEFAULTS.get(net, {}), **job.params}))
    if found.precision == "auto":
        found = replace(found, precision="bf16" if job.device == "cuda" else "float32")
    if found.net == "ft_transformer" and found.width % found.heads:
        raise SpecError(
            f"train.params: width must be a multiple of heads ({found.heads}), got {found.width}."
        )
    return found


def _check(where: str, params: Mapping[str, Any], known: Sequence[str], why: str) -> None:
    """Refuse unknown names, and values that cannot be."""
    for name, value in params.items():
        if name not in known:
            raise SpecError(
                f"{where}: {why} '{printable(name)}'.{nearest(name, known)} "
                f"Known here: {', '.join(known)}."
            )
        rule, holds = RULES[name]
        if not holds(value):
            raise SpecError(f"{where}: {name} must be {rule}, got {printable(value)}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and value < float("inf"))
