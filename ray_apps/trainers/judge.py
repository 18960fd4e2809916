"""How rounds are judged: one number for all workers' rows, and the round that is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from arclight.errors import DataError, DivergedError
from arclight.metrics import best_f1_threshold, measure, metric_for
from arclight.samples import DEFAULT_THRESHOLD
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
        return self.last

    def _measure(self, predictions: Doubles) -> float:
        value = _measured(self._label, predictions, self._job)
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


def own_metric(labels: Doubles, predictions: Doubles, job: TrainJob) -> float:
    """Return our formula of the job's metric, for the metrics a library has not.

    Raises:
        DataError: the metric is undefined on these rows.
    """
    value = _measured(labels, predictions, job)
    if value is None:
        raise _undefined(job)
    return value


def _measured(labels: Doubles, predictions: Doubles, job: TrainJob) -> float | None:
    """Return our formula of the job's metric; F1 at the threshold that is the best for it.

    At 0.5 it is 0 for each round in which no score is as high, as with few positives.
    """
    is_f1 = job.task == "binary" and job.metric == "f1"
    threshold = best_f1_threshold(labels, predictions) if is_f1 else DEFAULT_THRESHOLD
    return measure(job.task, job.metric, labels, predictions, threshold=threshold)


def _undefined(job: TrainJob) -> DataError:
    return DataError(
        f"metric '{job.metric}' must be defined on the rows that judge a round, but it is not for "
        "these labels, or for scores of which none is 0.5; choose another train.metric."
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
