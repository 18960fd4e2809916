"""What both libraries get wrong about labels: checked and weighted here, once for all trainers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arclight.errors import DataError
from ray_apps.gang.totals import total

if TYPE_CHECKING:
    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import TrainJob

_RANKED = ("auc", "average_precision", "macro_auc")


def check_labels(
    train: Doubles, valid: Doubles, job: TrainJob, gang: Gang, judged: str = "valid split"
) -> None:
    """Refuse labels a model must not be trained on; LightGBM takes any without a word.

    Values are checked by every worker, classes by all of them together.

    Raises:
        DataError: a label is NaN, infinite or in no class, or all are of one class.
    """
    for split, labels in (("train split", train), (judged, valid)):
        wrong = int(np.count_nonzero(~_allowed(labels, job)))
        if wrong:
            rule = _RULES[job.task].format(classes=job.classes)
            raise DataError(
                f"every label of a {job.task} task must be {rule}, but {wrong:,} of "
                f"{len(labels):,} rows of the {split} are not; clean them in etl.sql."
            )
    if job.task == "regression":
        return
    for split, labels in (("train split", train), (judged, valid)):
        counts = class_counts(labels, job, gang)
        found = np.flatnonzero(counts)
        if len(found) < 2 and (split != judged or job.metric in _RANKED):
            raise DataError(
                f"the {split} must have rows of two classes at least, but all "
                f"{counts.sum():,} are of class {found[0]}; split otherwise or add data."
            )


def check_rows(shard: Shard, purpose: str, gang: Gang) -> None:
    """Refuse, on every worker, rows of which a worker has none.

    Raises:
        DataError: a worker has no rows; it is named.
    """
    if without := _without(shard.rows, gang):
        raise DataError(
            f"there must be rows {purpose} on every worker, but worker {without[0] + 1} of "
            f"{gang.world} has none; use fewer train.workers or more rows."
        )


@dataclass(frozen=True)
class Sign:
    """What an objective of a regression asks of labels of train: none is negative.

    Attributes:
        is_positive: none is 0.
        some: one is not 0.
        on_each: not of all together but of every worker's.
    """

    is_positive: bool = False
    some: bool = True
    on_each: bool = False


def check_sign(labels: Doubles, objective: str, sign: Sign | None, gang: Gang) -> None:
    """Refuse, on every worker, labels that an objective cannot learn from, before they are binned.

    Raises:
        DataError: how many, or which worker's.
    """
    if sign is None:
        return
    low = labels <= 0 if sign.is_positive else labels < 0
    wrong, above, rows = total(gang, np.array([low.sum(), (labels > 0).sum(), len(labels)]))
    if wrong:
        raise DataError(
            f"every label must be {'above 0' if sign.is_positive else '0 or more'} for the "
            f"objective '{objective}', but {wrong:,} of {rows:,} rows of the train split are not; "
            "use another objective, or clean them in etl.sql."
        )
    if sign.some and not above:
        raise DataError(
            f"some label must be above 0 for the objective '{objective}', but all of {rows:,} "
            "rows of the train split are 0; add data."
        )
    if sign.on_each and (without := _without(int((labels > 0).sum()), gang)):
        raise DataError(
            f"some label must be above 0 on every worker for LightGBM's objective '{objective}', "
            f"but worker {without[0] + 1} of {gang.world} has zeros alone; use fewer "
            "train.workers, or XGBoost."
        )


def _without(count: int, gang: Gang) -> list[int]:
    """Return the ranks of the workers that have none of what others count."""
    have = gang.agree(count.to_bytes(8), b"".join)
    return [rank for rank in range(gang.world) if not any(have[8 * rank : 8 * rank + 8])]


def class_counts(labels: Doubles, job: TrainJob, gang: Gang) -> npt.NDArray[np.int64]:
    """Return how many rows of each class all workers have."""
    classes = job.classes if job.task == "multiclass" else 2
    return total(gang, np.bincount(labels.astype(np.int64), minlength=classes))


_RULES = {
    "binary": "0 or 1",
    "multiclass": "one of the {classes} classes of the plan",
    "regression": "a finite number",
}


def _allowed(labels: Doubles, job: TrainJob) -> npt.NDArray[np.bool_]:
    if job.task == "regression":
        return np.isfinite(labels)
    if job.task == "binary":
        return np.isin(labels, (0.0, 1.0))
    is_class: npt.NDArray[np.bool_] = np.isfinite(labels) & (labels >= 0) & (labels < job.classes)
    return is_class


def row_weights(labels: Doubles, job: TrainJob, gang: Gang) -> npt.NDArray[np.float32] | None:
    """Return a weight per row that gives every class the same total; None: every row weighs 1.

    With `weight` a row weighs 1 on average, with `upsample` a row of the most frequent class does.
    """
    if job.imbalance in ("none", "downsample"):
        return None
    counts = class_counts(labels, job, gang)
    present = np.count_nonzero(counts)
    share = np.zeros(len(counts), dtype=np.float32)
    whole = counts.max() if job.imbalance == "upsample" else counts.sum() / present
    share[counts > 0] = whole / counts[counts > 0]
    weights: npt.NDArray[np.float32] = share[labels.astype(np.int64)]
    return weights
