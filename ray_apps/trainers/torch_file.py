"""A network as one safetensors file: weights, inputs and shape; nothing in it can run code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.overrides import TorchFunctionMode

from arclight.errors import IntegrityError, printable
from ray_apps.trainers.torch_inputs import Inputs
from ray_apps.trainers.torch_nets import Shape, build

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor, nn

WEIGHTS = "net."
FORMAT = "arclight-table-network-1"
_BROKEN = (
    SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError,
    MemoryError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A trained network, with what it needs to score rows.

    Attributes:
        task: decides what its outputs mean.
        label: mean and standard deviation of a regression's label on train.
        rounds: epochs it was trained.
        gains: how much worse the metric got on valid with each feature shuffled, [features].
    """

    shape: Shape
    inputs: Inputs
    task: str
    label: tuple[float, float]
    rounds: int
    gains: tuple[float, ...]
    net: nn.Module


def pack(network: Network) -> bytes:
    """Return the file; the same network gives the same bytes."""
    tensors = {WEIGHTS + name: value.cpu() for name, value in network.net.state_dict().items()}
    for name in ("knots", "scores"):
        for place, values in enumerate(getattr(network.inputs, name)):
            tensors[f"{name}.{place}"] = torch.from_numpy(values)
    about = {
        "format": FORMAT,
        "shape": asdict(network.shape),
        "features": network.inputs.features,
        "categorical": network.inputs.categorical,
        "task": network.task,
        "label": network.label,
        "rounds": network.rounds,
        "gains": network.gains,
    }
    return bytes(save(tensors, {"about": json.dumps(about, sort_keys=True)}))


def unpack(path: Path) -> Network:
    """Read a file whose bytes were checked.

    Raises:
        IntegrityError: it is not such a network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _network(about, tensors)
    except _BROKEN as error:
        raise IntegrityError(
            f"'{path}' is not a network Arclight can read ({printable(error)}); restore it from "
            "a backup or train again."
        ) from error


class _Undrawn(TorchFunctionMode):
    """Within a block, weights are made and not drawn: they are about to be read.

    The one generator that all threads share stays as it is, for a network in training on another.
    Not torch's device `meta`, with which an embedding imports torch's compiler.
    """

    DRAWS = ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, unless it draws."""
        named = kwargs or {}
        if func.__name__ in self.DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def _network(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Network:
    shape = Shape(**{**about["shape"], "levels": tuple(about["shape"]["levels"])})
    count = shape.numbers
    inputs = Inputs(
        features=int(about["features"]),
        categorical=tuple(about["categorical"]),
        knots=tuple(_values(tensors, f"knots.{i}") for i in range(count)),
        scores=tuple(_values(tensors, f"scores.{i}") for i in range(count)),
        levels=shape.levels,
    )
    _check(inputs, shape, about)
    with _Undrawn():
        net = build(shape)
    net.load_state_dict(
        {n.removeprefix(WEIGHTS): t for n, t in tensors.items() if n.startswith(WEIGHTS)}
    )
    return Network(
        shape=shape,
        inputs=inputs,
        task=str(about["task"]),
        label=(float(about["label"][0]), float(about["label"][1])),
        rounds=int(about["rounds"]),
        gains=tuple(float(gain) for gain in about["gains"]),
        net=net.eval(),
    )


def _check(inputs: Inputs, shape: Shape, about: Mapping[str, Any]) -> None:
    """Refuse parts that do not fit each other.

    Raises:
        ValueError: they do not.
    """
    features = len(inputs.knots) + len(shape.levels)
    rising = all(np.isfinite(k).all() and (np.diff(k) > 0).all() for k in inputs.knots)
    sizes = [len(k) == len(s) > 0 for k, s in zip(inputs.knots, inputs.scores, strict=True)]
    if not (rising and all(sizes)):
        raise ValueError("knots must rise, with a score each")
    if not (features == inputs.features == len(about["gains"])) or len(inputs.numeric) != len(
        inputs.knots
    ):
        raise ValueError(f"{inputs.features} features must be as many as its parts have")


def _values(tensors: Mapping[str, Tensor], name: str) -> npt.NDArray[np.float32]:
    return np.array(tensors[name].numpy(), np.float32)
