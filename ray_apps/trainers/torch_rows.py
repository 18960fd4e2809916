"""Rows of a table as tensors, where a device has them at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from ray_apps.shards import Doubles
    from ray_apps.trainers import TrainJob
    from ray_apps.trainers.boosting import Snapshot
    from ray_apps.trainers.torch_file import Network
    from ray_apps.trainers.torch_inputs import Inputs, Seen

DEVICE_SHARE = 0.6
"""Of a GPU's free memory, that the rows of a split may take; steps need the rest."""


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


def rows_of(
    seen: Seen,
    label: Doubles,
    weights: npt.NDArray[np.float32] | None,
    job: TrainJob,
    scale: tuple[float, float],
) -> Rows:
    """Return rows with their labels and weights.

    Args:
        seen: what the network sees of them.
        label: of each row.
        weights: of each row; None: 1.
        job: its task decides what a label is.
        scale: mean and spread that a regression's label is less and divided by.
    """
    mean, spread = scale
    wanted = torch.from_numpy((label - mean) / spread)
    kind = torch.int64 if job.task == "multiclass" else torch.float32
    weight = torch.ones(len(label)) if weights is None else torch.from_numpy(weights)
    return Rows(*tensors(seen), label=wanted.to(kind), weight=weight)


def tensors(seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
    """Return numbers, is_null and codes, in the memory that they are in."""
    return (
        torch.from_numpy(seen.numbers),
        torch.from_numpy(seen.is_null),
        torch.from_numpy(seen.codes),
    )


def sent(rows: Tensor, device: torch.device) -> Tensor:
    """Return rows on a device, copied there while it computes if they come from memory."""
    if rows.device.type == device.type:
        return rows
    return rows.pin_memory().to(device, non_blocking=True)
