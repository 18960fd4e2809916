"""A network that gets an epoch more: its steps, its figure, what a snapshot of it holds."""

from __future__ import annotations

import copy
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from arclight.errors import EngineError
from cluster.tokens import private_folder
from ray_apps.gang.totals import added, highest, total
from ray_apps.trainers.judge import ValidMetric, kept_rounds
from ray_apps.trainers.torch_adam import AdamW
from ray_apps.trainers.torch_file import Network
from ray_apps.trainers.torch_nets import (
    HEAD,
    build,
    empty_levels,
    lower_names,
    set_dropout,
    shift_scores,
)
from ray_apps.trainers.torch_params import outputs_of, params_at
from ray_apps.trainers.torch_rows import sent
from ray_apps.trainers.torch_scores import score_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ray_apps.gang import Gang
    from ray_apps.trainers import TrainJob
    from ray_apps.trainers.torch_params import Params
    from ray_apps.trainers.torch_rows import TorchData

_ONE_AT_A_TIME = threading.Lock()
"""Fresh weights come from the one generator that all threads of a process share."""
STEP_FLOATS = 1 << 26
"""Numbers that the rows of a step may become at once; their way back takes some three times as
many, about a GiB in all."""
NET, BEST, ADAM = "net.", "best.", "adam."


class Growing:
    """A network that is trained an epoch at a time."""

    def __init__(self, data: TorchData, job: TrainJob, params: Params, gang: Gang) -> None:
        self._device = _device(job)
        self._data = replace(
            data, train=data.train.near(self._device), valid=data.valid.near(self._device)
        )
        self._job, self._params, self._gang = job, params, gang
        self._now = params
        self._metric = ValidMetric(gang, data.valid_label, job)
        self._shape = params.shape(data.inputs, outputs_of(job))
        with _ONE_AT_A_TIME:
            torch.manual_seed(job.seed)
            self._net = build(self._shape)
        self._before = data.init.rounds if data.init else 0
        if data.init is not None:
            _take_over(self._net, data.init.net, job)
        else:
            empty_levels(self._net, _levels_of_all(data, gang))
        _take_first_ones(self._net, gang)
        self._net.to(self._device)
        self._forward: Callable[..., Tensor] = (
            _compiled(self._net) if params.compile else self._net
        )
        self._parameters = _moving(self._net, job)
        self._adam = _adam(self._net, self._parameters, job, params)
        mine = np.array([len(data.train)])
        most = int(highest(gang, mine)[0])
        self._rows = -(-params.batch(int(total(gang, mine)[0])) // gang.world)
        self._steps = -(-most // self._rows)
        self._at_once = max(16, STEP_FLOATS // (self._shape.row_floats * self._shape.depth))
        self._row_weight, self._clip_by = _weights_of_all(data, gang)
        self._history = list(data.start.history)
        self._best = _copy(self._net)
        if data.start.model:
            self._restore(load(data.start.model))

    def grow(self, number: int) -> None:
        """Train one epoch; what it draws depends on its number alone."""
        self._take_params(number)
        seed = _seed(self._job.seed, number, self._gang.rank)
        torch.manual_seed(seed)
        mine = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self._data.train), generator=mine)
        order = order.to(self._data.train.label.device)
        self._net.train()
        for step in range(self._steps):
            places = order[step * self._rows :][: self._rows]
            self._step(places, self._rate(number * self._steps + step))
        # the same gradients move weights otherwise on another kind of processor, by a last bit
        _take_first_ones(self._net, self._gang)

    def judge(self) -> float:
        """Return the metric of this epoch, NaN once a score is no number."""
        network = self._network(self._net, len(self._history) + 1)
        found = score_rows(network, self._data.valid)
        bad = np.array([np.count_nonzero(~np.isfinite(found))], np.int64)
        diverged = bool(highest(self._gang, bad)[0])
        self._history.append(math.nan if diverged else self._metric(found))
        if not diverged and kept_rounds(self._history, self._job) == len(self._history):
            self._best = _copy(self._net)
        return self._history[-1]

    def can_go_on_from(self, rounds: int) -> bool:  # noqa: ARG002 -- the protocol's
        """Every epoch draws from its own seed."""
        return True

    def model(self) -> bytes:
        """Return weights, the best ones so far, and the optimizer's state."""
        tensors = {NET + n: t for n, t in self._net.state_dict().items()}
        tensors |= {BEST + n: t for n, t in self._best.items()}
        tensors |= {ADAM + n: t for n, t in self._adam.state().items()}
        return bytes(save({name: value.contiguous() for name, value in tensors.items()}))

    def best(self, rounds: int) -> Network:
        """Return a network as this one was after the round that is kept."""
        net = copy.deepcopy(self._net)
        net.load_state_dict(self._best)
        return self._network(net, rounds)

    def _network(self, net: nn.Module, rounds: int) -> Network:
        data, rounds = self._data, self._before + rounds
        return Network(
            self._shape, data.inputs, self._job.task, data.label, rounds, (), net.eval()
        )

    def _take_params(self, number: int) -> None:
        """Train from here on with the parameters of an epoch."""
        if not self._job.params_after:
            return
        before, self._now = self._now, params_at(self._params, self._job, number)
        self._adam.weight_decay = self._now.weight_decay
        self._adam.last_rate = _last_rate(self._job, self._now)
        set_dropout(self._net, self._now.dropout)
        if self._params.compile and self._now.dropout != before.dropout:
            self._forward = _compiled(self._net)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step: up along a line, down along half a cosine."""
        whole = self._job.rounds * self._steps
        warm = max(1, round(self._params.warmup * whole))
        if step < warm:
            return self._now.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, whole - warm)
        return self._now.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _step(self, places: Tensor, rate: float) -> None:
        """Take one step by the mean gradient of the rows of all workers.

        Weighted rows are divided by what as many rows weigh on the average of train, not by what
        they weigh themselves: else a rare class would push with full strength only where a step
        has none of the other.
        """
        for one in self._parameters:
            one.grad = torch.zeros_like(one)
        for at in range(0, len(places), self._at_once):
            self._add_gradients(places[at : at + self._at_once])
        # no copy that a GPU would wait for
        rows = torch.full((), len(places), dtype=torch.float32, device=self._device)
        grads = [one.grad for one in self._parameters if one.grad is not None]
        if self._gang.world > 1:
            rows = _add_up(grads, rows, self._gang)
        torch._foreach_div_(grads, rows * self._row_weight)
        nn.utils.clip_grad_norm_(self._parameters, self._now.clip * self._clip_by)
        self._adam.step(grads, rate)

    def _add_gradients(self, places: Tensor) -> None:
        """Add the gradients of some rows to those that are there."""
        taken = self._data.train.take(places)
        *seen, label, weight = (sent(one, self._device) for one in taken)
        is_short = self._params.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_short):
            outputs = self._forward(*seen)
        loss = (_losses(outputs.float(), label, self._job) * weight).sum()
        loss.backward()  # type: ignore[no-untyped-call]

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._net.load_state_dict(_below(tensors, NET))
        self._best = _below(tensors, BEST)
        self._adam.restore(_below(tensors, ADAM))


# --------------------------------------------------------------------------------- inside


def _device(job: TrainJob) -> torch.device:
    """Return where the network is trained.

    Raises:
        EngineError: it shall be a GPU, but torch can use none.
    """
    if job.device == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"torch must train on a GPU, but {torch.__version__} finds none here that it can use; "
            "mend the driver of this node, or use `device: cpu`."
        )
    return torch.device(job.device)


def _compiled(net: nn.Module) -> Callable[..., Tensor]:
    """Return a network as torch compiles it, anew for each number of rows.

    What was compiled before is forgotten: after a few networks, or dropouts of one, torch would
    take the steps as they are. One code for all numbers of rows would hang on which came first,
    so that a training that goes on had other last bits.

    Raises:
        RefusedError: the folder that torch loads compiled code from is another user's.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # noqa: PLC0415 -- brings the compiler

    private_folder(Path(default_cache_dir()))  # whose name anybody can foresee
    torch.compiler.reset()
    compiled: Callable[..., Tensor] = torch.compile(net, dynamic=False)
    return compiled


def _take_over(net: nn.Module, init: nn.Module, job: TrainJob) -> None:
    """Give a network the weights of the one it starts from."""
    assert job.init is not None
    weights, has_new_head = init.state_dict(), job.init.has_new_head
    kept = {n: t for n, t in weights.items() if not (has_new_head and n.startswith(HEAD))}
    net.load_state_dict(kept, strict=not has_new_head)
    if not has_new_head:
        shift_scores(net, -job.shift)  # it is added again in the end


def _moving(net: nn.Module, job: TrainJob) -> list[nn.Parameter]:
    """Return the weights that are trained, the last layer's at the end; the others are frozen."""
    frozen = set(lower_names(net, job.init.freeze if job.init else 0))
    for name, weight in net.named_parameters():
        weight.requires_grad_(name not in frozen)
    return [weight for name, weight in net.named_parameters() if name not in frozen]


def _adam(net: nn.Module, weights: list[nn.Parameter], job: TrainJob, params: Params) -> AdamW:
    """Return what moves the weights, the last layer's at a rate of their own if it has one."""
    has_own = job.init is not None and job.init.head_rate is not None
    return AdamW(
        weights,
        weight_decay=params.weight_decay,
        last=sum(n.startswith(HEAD) for n, _ in net.named_parameters()) if has_own else 0,
        last_rate=_last_rate(job, params),
    )


def _last_rate(job: TrainJob, params: Params) -> float:
    """Return the rate of the last layer, times that of the others."""
    own = job.init.head_rate if job.init else None
    return 1.0 if own is None else own / params.learning_rate


def _take_first_ones(net: nn.Module, gang: Gang) -> None:
    """Have the first worker's weights everywhere."""
    if gang.world == 1:
        return
    found = gang.agree(b"", lambda _: save(net.state_dict()))
    net.load_state_dict(load(found))


def _losses(outputs: Tensor, label: Tensor, job: TrainJob) -> Tensor:
    """Return the loss of each row."""
    if job.task == "multiclass":
        return functional.cross_entropy(outputs, label, reduction="none")
    found = outputs[:, 0]
    if job.task == "binary":
        return functional.binary_cross_entropy_with_logits(found, label, reduction="none")
    return functional.mse_loss(found, label, reduction="none")


def _levels_of_all(data: TorchData, gang: Gang) -> Tensor:
    """Return which levels of all category features some row of train has, on any worker."""
    columns = zip(data.train.codes.numpy().T, data.inputs.levels, strict=True)
    found = [np.bincount(codes, minlength=levels) > 0 for codes, levels in columns]
    mine = np.concatenate(found) if found else np.zeros(0, np.bool_)
    return torch.from_numpy(highest(gang, mine.astype(np.int64)) > 0)


def _weights_of_all(data: TorchData, gang: Gang) -> tuple[float, float]:
    """Return what a row of train weighs on the average, and how much wider a step's gradient is.

    Over all workers. A mean of rows that weigh unlike varies by the root of their mean square in
    place of their mean; clipped where others are it would lose most of the few heavy ones.
    """
    weight = data.train.weight.numpy().astype(np.float64)
    whole, squares, rows = added(
        gang, np.array([weight.sum(), np.square(weight).sum(), len(weight)])
    )
    return float(whole / rows), float(np.sqrt(squares * rows) / whole)


def _add_up(grads: list[Tensor], rows: Tensor, gang: Gang) -> Tensor:
    """Leave the sum of all workers' gradients in each, and return the sum of their rows.

    Every worker adds up one part of all numbers, in the order of ranks, and gives it to the
    others: so all have the same bits.
    """
    mine = torch.cat([*(grad.ravel() for grad in grads), rows.ravel()]).cpu().numpy()
    parts = np.array_split(mine, gang.world)
    found = gang.exchange([part.tobytes() for part in parts])
    part = np.sum([np.frombuffer(one, np.float32) for one in found], axis=0, dtype=np.float32)
    everything = gang.exchange([part.tobytes()] * gang.world)
    summed = torch.from_numpy(np.concatenate([np.frombuffer(p, np.float32) for p in everything]))
    at = 0
    for grad in grads:
        grad.copy_(summed[at : at + grad.numel()].view_as(grad))
        at += grad.numel()
    return summed[-1].to(rows.device)


def _seed(seed: int, number: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, number, rank]).generate_state(1)[0])


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
