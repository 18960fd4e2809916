"""What a trained model is worth: its threshold, and the metric on train and valid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from arclight.metrics import measure
from arclight.samples import DEFAULT_THRESHOLD
from arclight.thresholds import best_f1_threshold, cheapest_threshold
from ray_apps.finetune import Scores
from ray_apps.gang.totals import to_first
from ray_apps.shards import dense

if TYPE_CHECKING:
    from arclight.plan import Matrix
    from arclight.train_section import Costs
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import Model, TrainJob

PROVEN_ROWS = 10_000
"""Of valid, on which a model as read back must give a training's own scores to the last bit."""


@dataclass(frozen=True)
class Judged:
    """A model on the rows of all workers; of the others than the first one nothing."""

    valid: Scores
    threshold: float | None = None
    figures: dict[str, float] = field(default_factory=dict)


def judge_model(
    train: tuple[Matrix, Doubles],
    valid: tuple[Doubles, Doubles],
    model: Model,
    job: TrainJob,
    gang: Gang,
    costs: Costs | None,
) -> Judged:
    """Return the threshold, and the metric on train and valid; every worker calls it.

    Args:
        train: this worker's sample of train, and its labels.
        valid: this worker's labels of valid, and its scores (`valid_scores`).
        model: as read back.
        job: how it was trained.
        gang: the workers that trained it.
        costs: of a wrong answer; None: the threshold is that of the best F1.
    """
    rows, train_label = train
    mine = (*valid, train_label, model.predict(rows))
    label, scores, train_label, train_scores = (to_first(gang, values) for values in mine)
    judged = Scores(label, scores)
    if gang.rank:
        return Judged(judged)
    threshold = _threshold(label, scores, costs) if job.task == "binary" else None
    at = threshold if threshold is not None and job.metric == "f1" else DEFAULT_THRESHOLD
    found = {
        "train": measure(job.task, job.metric, train_label, train_scores, threshold=at),
        "valid": measure(job.task, job.metric, label, scores, threshold=at),
    }
    known = {split: value for split, value in found.items() if value is not None}
    return Judged(judged, threshold, known)


def valid_scores(model: Model, valid: Shard, held: Doubles | None, seed: int) -> Doubles:
    """Return the scores that a model as read back gives to rows of valid.

    Where the training held its own, and the model gives the same to the last bit for ten thousand
    rows out of a few parts, these are they; so the rows are not read and scored again.

    Args:
        model: as read back.
        valid: the rows.
        held: `Fitted.scores`.
        seed: of the rows that are looked at.
    """
    if held is not None and len(held) == valid.rows:
        some, places = valid.sample(PROVEN_ROWS, seed)
        if np.array_equal(model.predict(some), held[places]):
            return held
    return np.concatenate([model.predict(dense(table)) for table in valid.tables])


# --------------------------------------------------------------------------------- inside


def _threshold(label: Doubles, scores: Doubles, costs: Costs | None) -> float:
    """Return what makes an answer positive: the best F1 on valid, or the least cost."""
    if costs is None:
        return best_f1_threshold(label, scores)
    return cheapest_threshold(
        label,
        scores,
        false_positive=costs.false_positive,
        false_negative=costs.false_negative,
    )
