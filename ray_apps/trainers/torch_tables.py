"""PyTorch: networks for tables, alone or with others, model files in safetensors.

A round is an epoch. Workers add up their gradients over the gang's own connections, so that no
port of torch's is opened; each has the same weights after every step.
"""

from __future__ import annotations

import copy
import math
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from arclight.errors import DataError, SpecError
from arclight.metrics import measure, metric_for
from ray_apps.gang.totals import from_first, highest, to_first, total
from ray_apps.lean import all_imports
from ray_apps.trainers import Fitted, TrainJob
from ray_apps.trainers.boosting import BEGINNING, boost
from ray_apps.trainers.judge import ValidMetric, kept_rounds
from ray_apps.trainers.labels import row_weights
from ray_apps.trainers.torch_adam import AdamW
from ray_apps.trainers.torch_file import Network, pack, unpack
from ray_apps.trainers.torch_inputs import fit_inputs
from ray_apps.trainers.torch_nets import HEAD, build, lower_names
from ray_apps.trainers.torch_params import SHAPE, params_from, params_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Param, Values
    from ray_apps.trainers.boosting import Snapshot, Watch
    from ray_apps.trainers.torch_inputs import Inputs, Seen
    from ray_apps.trainers.torch_nets import Shape
    from ray_apps.trainers.torch_params import Params

SCORED_ROWS = 8192
SCORED_FLOATS = 1 << 25
"""Rows that are scored at once, and numbers that they may become on the way (128 MiB)."""
DEVICE_SHARE = 0.6
"""Of a GPU's free memory, that the rows of a split may take; steps need the rest."""
SHUFFLED_ROWS = 20_000
SHUFFLED_FLOATS = 1 << 29
"""Valid rows of each worker that importance is measured on, and numbers of all its scorings."""
_ONE_AT_A_TIME = threading.Lock()
"""Fresh weights come from the one generator that all threads of a process share."""
NET, BEST, ADAM = "net.", "best.", "adam."


@dataclass(frozen=True)
class Rows:
    """Rows as tensors: numbers, is_null, codes, and a label and a weight each."""

    numbers: Tensor
    is_null: Tensor
    codes: Tensor
    label: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def take(self, places: Tensor) -> tuple[Tensor, ...]:
        """Return some rows of each tensor."""
        return tuple(one.index_select(0, places) for one in self._every)

    def near(self, device: torch.device) -> Rows:
        """Return the rows where a device has them at hand: in its own memory if they fit there."""
        if device.type == "cpu":
            return self
        torch.cuda.empty_cache()  # what a training before this one has left is free as well
        free, _ = torch.cuda.mem_get_info(device)
        if sum(one.nbytes for one in self._every) <= free * DEVICE_SHARE:
            return Rows(*(one.to(device) for one in self._every))
        return self

    @property
    def _every(self) -> tuple[Tensor, ...]:
        return self.numbers, self.is_null, self.codes, self.label, self.weight


@dataclass(frozen=True)
class TorchData:
    """Train and valid rows, what they were made with, and what to go on from."""

    train: Rows
    valid: Rows
    valid_label: Doubles
    inputs: Inputs
    label: tuple[float, float]
    start: Snapshot
    init: Network | None = None


class TorchTrainer:
    """Trains and loads networks."""

    suffix = ".safetensors"
    bins_on_disk = False

    def check_params(self, job: TrainJob) -> None:
        """Refuse unknown names and values that cannot be."""
        _params(job, _init(job))

    def why_no_gpu(self) -> str | None:
        """A build for cores has no kernels for it."""
        if torch.version.cuda is not None:
            return None
        return "the installed torch is built for cores; install one that is built for CUDA"

    def from_scratch(self, job: TrainJob) -> TrainJob:
        """Return the job without the network it starts from, for one of that size."""
        init = _init(job)
        if init is None:
            return job
        params = asdict(_params(job, init))
        own = {name: params[name] for name in (*SHAPE, "dropout")}
        return replace(job, init=None, params={**job.params, **own})

    def least_row_bytes(self, values: Values, *, on_disk: bool = False) -> float:  # noqa: ARG002
        """Numbers as they are read and as the network sees them, and the label."""
        return 8 * values.all + 8

    def bin_key(self, job: TrainJob) -> tuple[Param | None, ...]:  # noqa: ARG002 -- as above
        """Nothing: ranks are learnt from the rows, whatever the network is."""
        return ()

    def goes_on_exactly(self, job: TrainJob) -> bool:
        """Every epoch draws from its own seed, and a snapshot has the optimizer's state.

        A GPU adds up in an order of its own.
        """
        return job.device == "cpu"

    def prepare(
        self, train: Shard, valid: Shard, job: TrainJob, gang: Gang, start: Snapshot = BEGINNING
    ) -> TorchData:
        """Learn ranks and levels from train, and lay both splits out as tensors."""
        matrix, init = _matrix(train), _init(job)
        if init is None:
            inputs = fit_inputs(matrix, job.categorical, gang, seed=job.seed)
        else:
            inputs = init.inputs
        is_kept = init is not None and job.init is not None and not job.init.has_new_head
        scale = init.label if init and is_kept else _label_scale(train.label, job, gang)
        weights = row_weights(train.label, job, gang)
        return TorchData(
            train=_rows(inputs.see(matrix), train.label, weights, job, scale),
            valid=_rows(inputs.see(_matrix(valid)), valid.label, None, job, scale),
            valid_label=valid.label,
            inputs=inputs,
            label=scale,
            start=start,
            init=init,
        )

    def fit(self, data: TorchData, job: TrainJob, gang: Gang, watch: Watch) -> Fitted:
        """Train and keep the best epoch by the metric on valid (the last without stopping)."""
        params = _params(job, data.init)
        imports = all_imports() if params.compile else nullcontext()
        with imports, _threads(job.threads), torch.random.fork_rng(devices=[]):
            growing = _Growing(data, job, params, gang)
            history = boost(growing, job, watch, data.start.history)
            rounds = kept_rounds(history, job)
            network = growing.best(rounds)
            _shift(network.net, job.shift)
            gains = _gains(network, data, job, gang)
            network.net.cpu()  # where it is stored from, and scores
        return Fitted(
            model=pack(replace(network, gains=gains)),
            rounds=network.rounds,
            valid=history[rounds - 1],
            params={
                **asdict(params),
                "seed": job.seed,
                "threads": job.threads,
                "device": job.device,
            },
        )

    def load(self, path: Path, *, threads: int) -> TorchModel:
        """Load a safetensors file whose bytes were checked."""
        torch.set_num_threads(threads)
        return TorchModel(unpack(path))


class TorchModel:
    """A loaded network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def features(self) -> int:
        """Features it was trained on."""
        return self._network.inputs.features

    @property
    def rounds(self) -> int:
        """Epochs it was trained."""
        return self._network.rounds

    def gains(self) -> npt.NDArray[np.float64]:
        """Return how much worse the metric got with each feature shuffled; 0 if it did not."""
        return np.asarray(self._network.gains, np.float64)

    def predict(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """Return probabilities or numbers; safe to call from several threads."""
        if matrix.shape[1] != self.features:
            raise ValueError(f"number of features must be {self.features}, got {matrix.shape[1]}")
        rows, see = _rows_at_once(self._network.shape), self._network.inputs.see
        parts = [
            _scores(self._network, *_tensors(see(matrix[at : at + rows])))
            for at in range(0, max(1, len(matrix)), rows)
        ]
        return np.concatenate(parts)


# --------------------------------------------------------------------------------- inside


class _Growing:
    """A network that is trained an epoch at a time."""

    def __init__(self, data: TorchData, job: TrainJob, params: Params, gang: Gang) -> None:
        self._device = torch.device(job.device)
        self._data = replace(
            data, train=data.train.near(self._device), valid=data.valid.near(self._device)
        )
        self._job, self._params, self._gang = job, params, gang
        self._metric = ValidMetric(gang, data.valid_label, job)
        self._shape = params.shape(data.inputs, _outputs(job))
        with _ONE_AT_A_TIME:
            torch.manual_seed(job.seed)
            self._net = build(self._shape)
        self._before = data.init.rounds if data.init else 0
        if data.init is not None:
            _take_over(self._net, data.init.net, job)
        _take_first_ones(self._net, gang)
        self._net.to(self._device)
        self._forward = torch.compile(self._net) if params.compile else self._net
        self._parameters = _moving(self._net, job)
        self._adam = _adam(self._net, self._parameters, job, params)
        mine = np.array([len(data.train)])
        most = int(highest(gang, mine)[0])
        self._rows = -(-params.batch(int(total(gang, mine)[0])) // gang.world)
        self._steps = -(-most // self._rows)
        self._history = list(data.start.history)
        self._best = _copy(self._net)
        if data.start.model:
            self._restore(load(data.start.model))

    def grow(self, number: int) -> None:
        """Train one epoch; what it draws depends on its number alone."""
        seed = _seed(self._job.seed, number, self._gang.rank)
        torch.manual_seed(seed)
        mine = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self._data.train), generator=mine)
        order = order.to(self._data.train.label.device)
        self._net.train()
        for step in range(self._steps):
            places = order[step * self._rows :][: self._rows]
            self._step(places, self._rate(number * self._steps + step))

    def judge(self) -> float:
        """Return the metric of this epoch, NaN once a score is no number."""
        network = self._network(self._net, len(self._history) + 1)
        found = _score_rows(network, self._data.valid)
        bad = np.array([np.count_nonzero(~np.isfinite(found))], np.int64)
        diverged = bool(highest(self._gang, bad)[0])
        self._history.append(math.nan if diverged else self._metric(found))
        if not diverged and kept_rounds(self._history, self._job) == len(self._history):
            self._best = _copy(self._net)
        return self._history[-1]

    def can_go_on_from(self, rounds: int) -> bool:  # noqa: ARG002 -- the protocol's
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

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step: up along a line, down along half a cosine."""
        whole = self._job.rounds * self._steps
        warm = max(1, round(self._params.warmup * whole))
        if step < warm:
            return self._params.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, whole - warm)
        return self._params.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _step(self, places: Tensor, rate: float) -> None:
        """Take one step by the mean gradient of the rows of all workers."""
        taken = self._data.train.take(places)
        *seen, label, weight = (_sent(one, self._device) for one in taken)
        for one in self._parameters:
            one.grad = torch.zeros_like(one)
        whole = weight.sum()
        if len(places):
            is_short = self._params.precision == "bf16"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=is_short):
                outputs = self._forward(*seen)
            loss = (_losses(outputs.float(), label, self._job) * weight).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        grads = [one.grad for one in self._parameters if one.grad is not None]
        if self._gang.world > 1:
            whole = _add_up(grads, whole, self._gang)
        torch._foreach_div_(grads, whole.clamp_min(1e-12))  # no number leaves a GPU in a step
        nn.utils.clip_grad_norm_(self._parameters, self._params.clip)
        self._adam.step(grads, rate)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._net.load_state_dict(_below(tensors, NET))
        self._best = _below(tensors, BEST)
        self._adam.restore(_below(tensors, ADAM))


def _init(job: TrainJob) -> Network | None:
    """Return the network that a job starts from.

    Raises:
        SpecError: it has other outputs, and its last layer is to be kept.
    """
    if job.init is None:
        return None
    network = unpack(job.init.path)
    outputs = _outputs(job)
    if network.shape.outputs != outputs and not job.init.has_new_head:
        raise SpecError(
            f"train.init: the network must have {outputs} outputs for this task, has "
            f"{network.shape.outputs}; `head: new` trains a last layer of its own."
        )
    return network


def _params(job: TrainJob, init: Network | None) -> Params:
    return params_of(job) if init is None else params_from(job, init.shape)


def _outputs(job: TrainJob) -> int:
    return job.classes if job.task == "multiclass" else 1


def _take_over(net: nn.Module, init: nn.Module, job: TrainJob) -> None:
    """Give a network the weights of the one it starts from."""
    assert job.init is not None
    weights, has_new_head = init.state_dict(), job.init.has_new_head
    kept = {n: t for n, t in weights.items() if not (has_new_head and n.startswith(HEAD))}
    net.load_state_dict(kept, strict=not has_new_head)
    if not has_new_head:
        _shift(net, -job.shift)  # it is added again in the end


def _moving(net: nn.Module, job: TrainJob) -> list[nn.Parameter]:
    """Return the weights that are trained, the last layer's at the end; the others are frozen."""
    frozen = set(lower_names(net, job.init.freeze if job.init else 0))
    for name, weight in net.named_parameters():
        weight.requires_grad_(name not in frozen)
    return [weight for name, weight in net.named_parameters() if name not in frozen]


def _adam(net: nn.Module, weights: list[nn.Parameter], job: TrainJob, params: Params) -> AdamW:
    """Return what moves the weights, the last layer's at a rate of their own if it has one."""
    rate = job.init.head_rate if job.init else None
    last = sum(n.startswith(HEAD) for n, _ in net.named_parameters()) if rate else 0
    return AdamW(
        weights,
        weight_decay=params.weight_decay,
        last=last,
        last_rate=(rate or 0.0) / params.learning_rate,
    )


def _take_first_ones(net: nn.Module, gang: Gang) -> None:
    """Begin with the first worker's weights everywhere."""
    found = gang.agree(b"", lambda _: save(net.state_dict()))
    net.load_state_dict(load(found))


def _shift(net: nn.Module, shift: float) -> None:
    """Add to the raw score of a binary network."""
    *_, last = (one for one in net.modules() if isinstance(one, nn.Linear))
    with torch.no_grad():
        last.bias.add_(shift)


def _matrix(shard: Shard) -> Matrix:
    if not shard.rows:
        raise DataError("a shard must have rows for a network, got none; use fewer workers.")
    return shard.matrix()


def _rows(
    seen: Seen,
    label: Doubles,
    weights: npt.NDArray[np.float32] | None,
    job: TrainJob,
    scale: tuple[float, float],
) -> Rows:
    mean, spread = scale
    wanted = torch.from_numpy((label - mean) / spread)
    kind = torch.int64 if job.task == "multiclass" else torch.float32
    weight = torch.ones(len(label)) if weights is None else torch.from_numpy(weights)
    return Rows(*_tensors(seen), label=wanted.to(kind), weight=weight)


def _tensors(seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(seen.numbers),
        torch.from_numpy(seen.is_null),
        torch.from_numpy(seen.codes),
    )


def _label_scale(label: Doubles, job: TrainJob, gang: Gang) -> tuple[float, float]:
    """Return mean and standard deviation of a regression's label over all workers."""
    if job.task != "regression":
        return 0.0, 1.0
    rows, whole = _sum_up(np.array([len(label), label.sum()]), gang)
    mean = whole / rows
    (squares,) = _sum_up(np.array([np.square(label - mean).sum()]), gang)
    return float(mean), float(np.sqrt(squares / rows)) or 1.0


def _sum_up(mine: Doubles, gang: Gang) -> Doubles:
    """Return the sums over all workers, added in the order of ranks."""
    found = gang.exchange([mine.astype(np.float64).tobytes()] * gang.world)
    return np.sum([np.frombuffer(part) for part in found], axis=0)  # type: ignore[no-any-return]


def _sent(rows: Tensor, device: torch.device) -> Tensor:
    """Return rows on a device, copied there while it computes if they come from memory."""
    return (
        rows
        if rows.device.type == device.type
        else rows.pin_memory().to(device, non_blocking=True)
    )


def _losses(outputs: Tensor, label: Tensor, job: TrainJob) -> Tensor:
    """Return the loss of each row."""
    if job.task == "multiclass":
        return functional.cross_entropy(outputs, label, reduction="none")
    found = outputs[:, 0]
    if job.task == "binary":
        return functional.binary_cross_entropy_with_logits(found, label, reduction="none")
    return functional.mse_loss(found, label, reduction="none")


def _add_up(grads: list[Tensor], weight: Tensor, gang: Gang) -> Tensor:
    """Leave the sum of all workers' gradients in each, and return the sum of their weights.

    Every worker adds up one part of all numbers, in the order of ranks, and gives it to the
    others: so all have the same bits.
    """
    mine = torch.cat([*(grad.ravel() for grad in grads), weight.ravel()]).cpu().numpy()
    parts = np.array_split(mine, gang.world)
    found = gang.exchange([part.tobytes() for part in parts])
    part = np.sum([np.frombuffer(one, np.float32) for one in found], axis=0, dtype=np.float32)
    everything = gang.exchange([part.tobytes()] * gang.world)
    summed = torch.from_numpy(np.concatenate([np.frombuffer(p, np.float32) for p in everything]))
    at = 0
    for grad in grads:
        grad.copy_(summed[at : at + grad.numel()].view_as(grad))
        at += grad.numel()
    return summed[-1].to(weight.device)


def _score_rows(network: Network, rows: Rows) -> npt.NDArray[np.float64]:
    seen = (rows.numbers, rows.is_null, rows.codes)
    step = _rows_at_once(network.shape)
    cuts = [slice(at, at + step) for at in range(0, len(rows), step)]
    device = next(network.net.parameters()).device
    return np.concatenate(
        [_scores(network, *(one[cut].to(device) for one in seen)) for cut in cuts]
    )


def _rows_at_once(shape: Shape) -> int:
    return max(16, min(SCORED_ROWS, SCORED_FLOATS // shape.row_floats))


def _scores(
    network: Network, numbers: Tensor, is_null: Tensor, codes: Tensor
) -> npt.NDArray[np.float64]:
    """Return probabilities or numbers of rows: [rows], or [rows, classes]."""
    with torch.inference_mode():
        outputs = network.net(numbers, is_null, codes).cpu().double()
        if network.task == "multiclass":
            return outputs.softmax(1).numpy()  # type: ignore[no-any-return]
        if network.task == "binary":
            return outputs[:, 0].sigmoid().numpy()  # type: ignore[no-any-return]
    mean, spread = network.label
    return outputs[:, 0].numpy() * spread + mean  # type: ignore[no-any-return]


def _gains(network: Network, data: TorchData, job: TrainJob, gang: Gang) -> tuple[float, ...]:
    """Return how much worse the metric gets on valid rows with each feature shuffled.

    The same on every worker. Breiman, Random Forests (2001), section 10.
    """
    work = network.shape.row_floats * data.inputs.features
    most = min(len(data.valid), SHUFFLED_ROWS, max(256, SHUFFLED_FLOATS // work))
    places = np.linspace(0, len(data.valid) - 1, most)
    some = places.astype(np.int64)
    label = to_first(gang, data.valid_label[some])
    rows = Rows(*data.valid.take(torch.from_numpy(some).to(data.valid.label.device)))

    def judge(scores: Doubles) -> float:
        value = measure(job.task, job.metric, label, scores)
        return math.nan if value is None else value

    whole = from_first(gang, _score_rows(network, rows), judge)
    sign = 1.0 if metric_for(job.task, job.metric).higher_is_better else -1.0
    order = torch.from_numpy(np.random.default_rng(job.seed).permutation(len(rows)))
    mixed = (_shuffled(rows, i, data.inputs, order) for i in range(data.inputs.features))
    lost = [sign * (whole - from_first(gang, _score_rows(network, m), judge)) for m in mixed]
    return tuple(max(0.0, one) if math.isfinite(one) else 0.0 for one in lost)


def _shuffled(rows: Rows, feature: int, inputs: Inputs, order: Tensor) -> Rows:
    names = ("codes",) if feature in inputs.categorical else ("numbers", "is_null")
    places = inputs.categorical if feature in inputs.categorical else inputs.numeric
    place = places.index(feature)
    changed = {}
    for name in names:
        values = getattr(rows, name).clone()
        values[:, place] = values[order, place]
        changed[name] = values
    return replace(rows, **changed)


def _seed(seed: int, number: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, number, rank]).generate_state(1)[0])


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before: Any = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
