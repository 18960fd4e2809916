"""What a network says of rows, and how much each feature has to do with it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from arclight.metrics import measure_scores, metric_for
from ray_apps.gang.totals import from_first, highest, to_first
from ray_apps.trainers.torch_rows import Rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles
    from ray_apps.trainers import TrainJob
    from ray_apps.trainers.torch_file import Network
    from ray_apps.trainers.torch_inputs import Inputs
    from ray_apps.trainers.torch_nets import Shape
    from ray_apps.trainers.torch_rows import TorchData

SCORED_ROWS = 8192
SCORED_FLOATS = 1 << 25
"""Rows that are scored at once, and numbers that they may become on the way (128 MiB)."""
SHUFFLED_ROWS = 20_000
SHUFFLED_FLOATS = 1 << 29
"""Valid rows of each worker that importance is measured on, and numbers of all its scorings; more
only where the metric is undefined on these."""


def score_rows(network: Network, rows: Rows) -> npt.NDArray[np.float64]:
    """Return probabilities or numbers of rows, wherever they are: [rows], or [rows, classes]."""
    seen = (rows.numbers, rows.is_null, rows.codes)
    step = rows_at_once(network.shape)
    cuts = [slice(at, at + step) for at in range(0, len(rows), step)]
    device = next(network.net.parameters()).device
    return np.concatenate(
        [scores(network, *(one[cut].to(device) for one in seen)) for cut in cuts]
    )


def rows_at_once(shape: Shape) -> int:
    """Return how many rows are scored at the same time."""
    return max(16, min(SCORED_ROWS, SCORED_FLOATS // shape.row_floats))


def scores(
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


def gains(network: Network, data: TorchData, job: TrainJob, gang: Gang) -> tuple[float, ...]:
    """Return how much worse the metric gets on valid rows with each feature shuffled.

    The same on every worker. Breiman, Random Forests (2001), section 10.
    """
    work = network.shape.row_floats * data.inputs.features
    most = min(SHUFFLED_ROWS, max(256, SHUFFLED_FLOATS // work))
    whole = int(highest(gang, np.array([len(data.valid)]))[0])
    found = _gains(network, data, job, gang, most)
    while found is None and most < whole:
        most *= 4
        found = _gains(network, data, job, gang, most)
    return found or (0.0,) * data.inputs.features


def _gains(
    network: Network, data: TorchData, job: TrainJob, gang: Gang, most: int
) -> tuple[float, ...] | None:
    """Return them by at most so many rows of each worker; None: the metric is undefined there."""
    places = np.linspace(0, len(data.valid) - 1, min(len(data.valid), most))
    some = places.astype(np.int64)
    label = to_first(gang, data.valid_label[some])
    rows = Rows(*data.valid.take(torch.from_numpy(some).to(data.valid.label.device)))

    def judge(scores: Doubles) -> float:
        value = measure_scores(job.task, job.metric, label, scores)
        return math.nan if value is None else value

    whole = from_first(gang, score_rows(network, rows), judge)
    if math.isnan(whole):
        return None
    sign = 1.0 if metric_for(job.task, job.metric).higher_is_better else -1.0
    order = torch.from_numpy(np.random.default_rng(job.seed).permutation(len(rows)))
    mixed = (_shuffled(rows, i, data.inputs, order) for i in range(data.inputs.features))
    lost = [sign * (whole - from_first(gang, score_rows(network, m), judge)) for m in mixed]
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
