"""How rounds are judged: one number for all workers' rows, and the round that is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from arclight.errors import DataError, DivergedError
from arclight.metrics import measure_scores, metric_for
from ray_apps.gang.totals import from_first, to_first
from ray_apps.trainers.imbalance import put_right

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles
    from ray_apps.trainers import TrainJob


class ValidMetric:
    """Our formula of the job's metric over the valid rows of all workers.

    The first worker holds everybody's labels and computes; so the number is that of one process
    with all rows, and early stopping comes to the same end everywhere.
    """

    def __init__(self, gang: Gang, label: Doubles, job: TrainJob) -> None:
        self._gang, self._job = gang, job
        self.last = float("nan")
        self._label = to_first(gang, label)
        self._higher = metric_for(job.task, job.metric).higher_is_better
        self._held: tuple[float, Doubles] | None = None

    def __call__(self, predictions: Doubles) -> float:
        """Return the metric; `predictions` are those of this worker's valid rows.

        Raises:
            DataError: the metric is undefined on these rows.
            LostError: another worker is gone or silent.
        """
        if self._job.shift:
            predictions = put_right(predictions, self._job.shift)
        self.last = from_first(self._gang, predictions, self._measure)
        if math.isnan(self.last):
            raise _undefined(self._job)  # by every worker alike
        if self._job.is_kept and self._may_be_kept():
            self._held = self.last, predictions.copy()  # the library writes over its own
        return self.last

    def scores_of(self, value: float) -> Doubles | None:
        """Return this worker's scores of the round with a figure, the kept one; None: not held."""
        return self._held[1] if self._held is not None and self._held[0] == value else None

    def _may_be_kept(self) -> bool:
        """Say whether the last round is one that `kept_rounds` could choose."""
        if self._job.early_stopping is None or self._held is None:
            return True
        best = self._held[0]
        return self.last > best if self._higher else self.last < best

    def _measure(self, predictions: Doubles) -> float:
        value = measure_scores(self._job.task, self._job.metric, self._label, predictions)
        return math.nan if value is None else value


def mean_of_all(gang: Gang, mine: float, rows: int) -> float:
    """Return the mean of a figure over the rows of all workers; the same number everywhere.

    Args:
        gang: the workers.
        mine: the mean over this worker's rows.
        rows: how many these are, at least one.
    """
    if gang.world == 1:
        return mine

    def judge(parts: Doubles) -> float:
        return float(np.average(parts[:, 0], weights=parts[:, 1]))

    return from_first(gang, np.array([[mine, rows]], np.float64), judge)


def _undefined(job: TrainJob) -> DataError:
    return DataError(
        f"metric '{job.metric}' must be defined on the rows that judge a round, but it is not for "
        "these labels; choose another train.metric."
    )


def is_over(history: Sequence[float], job: TrainJob) -> bool:
    """Say whether so many rounds in a row were no better that the training ends."""
    if job.early_stopping is None or len(history) <= job.early_stopping:
        return False
    return not np.isfinite(history).any() or len(history) - kept_rounds(history, job) >= (
        job.early_stopping
    )


def kept_rounds(history: Sequence[float], job: TrainJob) -> int:
    """Return how many rounds to keep: up to the first best one, or all without early stopping.

    Raises:
        DivergedError: no round has a finite metric, or the last one has none and is to be kept.
    """
    values = np.asarray(history, dtype=np.float64)
    is_last = job.early_stopping is None
    if not np.isfinite(values[-1:] if is_last else values).any():
        raise DivergedError(
            f"the training diverged: '{job.metric}' on the valid split was no finite number "
            f"after {len(values)} rounds; lower the learning rate."
        )
    if is_last:
        return len(values)
    is_up = metric_for(job.task, job.metric).higher_is_better
    ranked = np.where(np.isfinite(values), values if is_up else -values, -np.inf)
    return int(np.argmax(ranked)) + 1
