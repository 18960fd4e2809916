"""How rounds are judged: our formula where a library has none, and the round that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arclight.errors import DataError, EngineError
from arclight.metrics import measure, metric_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray_apps.shards import Doubles
    from ray_apps.trainers import TrainJob


def own_metric(labels: Doubles, predictions: Doubles, job: TrainJob) -> float:
    """Return our formula of the job's metric, for the metrics a library has not.

    Raises:
        DataError: the metric is undefined on these rows.
    """
    value = measure(job.task, job.metric, labels, predictions)
    if value is None:
        raise DataError(
            f"metric '{job.metric}' must be defined on the valid split to choose a round by it, "
            "but it is not for these labels; choose another train.metric."
        )
    return value


def kept_rounds(history: Sequence[float], job: TrainJob) -> int:
    """Return how many rounds to keep: up to the first best one, or all without early stopping.

    Raises:
        EngineError: no round has a finite metric.
    """
    values = np.asarray(history, dtype=np.float64)
    if not np.isfinite(values).any():
        raise EngineError(
            f"the training diverged: '{job.metric}' on the valid split was never a finite number "
            f"in {len(values)} rounds; lower the learning rate."
        )
    if job.early_stopping is None:
        return len(values)
    is_up = metric_for(job.task, job.metric).higher_is_better
    ranked = np.where(np.isfinite(values), values if is_up else -values, -np.inf)
    return int(np.argmax(ranked)) + 1
