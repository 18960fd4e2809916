"""PyTorch: networks for tables, alone or with others, model files in safetensors.

A round is an epoch. Workers add up their gradients over the gang's own connections, so that no
port of torch's is opened; each has the same weights after every step.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from arclight.errors import DataError, SpecError
from ray_apps.gang.totals import added
from ray_apps.lean import all_imports
from ray_apps.trainers import Fitted, TrainJob
from ray_apps.trainers.boosting import BEGINNING, boost
from ray_apps.trainers.judge import kept_rounds
from ray_apps.trainers.labels import row_weights
from ray_apps.trainers.torch_file import Network, pack, unpack
from ray_apps.trainers.torch_growing import Growing
from ray_apps.trainers.torch_inputs import fit_inputs
from ray_apps.trainers.torch_nets import shift_scores
from ray_apps.trainers.torch_params import SHAPE, outputs_of, params_from, params_of
from ray_apps.trainers.torch_rows import TorchData, rows_of, tensors
from ray_apps.trainers.torch_scores import gains, rows_at_once, scores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Param, Values
    from ray_apps.trainers.boosting import Snapshot, Watch
    from ray_apps.trainers.torch_params import Params


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
        """Numbers as they are read and, twice as long, as the network sees them; label, weight."""
        return 12 * values.all + 16

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
        with ThreadPoolExecutor(job.threads, thread_name_prefix="see") as pool:
            seen, other = (inputs.see(rows, pool.map) for rows in (matrix, _matrix(valid)))
        return TorchData(
            train=rows_of(seen, train.label, weights, job, scale),
            valid=rows_of(other, valid.label, None, job, scale),
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
            growing = Growing(data, job, params, gang)
            history = boost(growing, job, watch, data.start.history)
            rounds = kept_rounds(history, job)
            network = growing.best(rounds)
            shift_scores(network.net, job.shift)
            # measuring them takes as long as a few epochs
            none = (0.0,) * data.inputs.features
            found = gains(network, data, job, gang) if job.is_kept else none
            network.net.cpu()  # where it is stored from, and scores
        return Fitted(
            model=pack(replace(network, gains=found)),
            rounds=network.rounds,
            valid=history[rounds - 1],
            params={
                **asdict(params),
                "seed": job.seed,
                "threads": job.threads,
                "device": job.device,
            },
            kept=rounds,
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
        rows, see = rows_at_once(self._network.shape), self._network.inputs.see
        parts = [
            scores(self._network, *tensors(see(matrix[at : at + rows])))
            for at in range(0, max(1, len(matrix)), rows)
        ]
        return np.concatenate(parts)


# --------------------------------------------------------------------------------- inside


def _init(job: TrainJob) -> Network | None:
    """Return the network that a job starts from.

    Raises:
        SpecError: it has other outputs, and its last layer is to be kept.
    """
    if job.init is None:
        return None
    network = unpack(job.init.path)
    outputs = outputs_of(job)
    if network.shape.outputs != outputs and not job.init.has_new_head:
        raise SpecError(
            f"train.init: the network must have {outputs} outputs for this task, has "
            f"{network.shape.outputs}; `head: new` trains a last layer of its own."
        )
    return network


def _params(job: TrainJob, init: Network | None) -> Params:
    return params_of(job) if init is None else params_from(job, init.shape)


def _matrix(shard: Shard) -> Matrix:
    if not shard.rows:
        raise DataError("a shard must have rows for a network, got none; use fewer workers.")
    return shard.matrix()


def _label_scale(label: Doubles, job: TrainJob, gang: Gang) -> tuple[float, float]:
    """Return mean and standard deviation of a regression's label over all workers."""
    if job.task != "regression":
        return 0.0, 1.0
    rows, whole = added(gang, np.array([len(label), label.sum()]))
    mean = whole / rows
    (squares,) = added(gang, np.array([np.square(label - mean).sum()]))
    return float(mean), float(np.sqrt(squares / rows)) or 1.0


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before: Any = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
