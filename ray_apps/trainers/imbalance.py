"""An uneven binary task evened out for training, and its scores put right again.

Taking rows of one class out, or in again, multiplies the odds of every row by the same factor; so
its logarithm, taken off the raw score, gives the probabilities of the data as it is. Elkan, The
foundations of cost-sensitive learning (IJCAI 2001), theorem 2.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from arclight.bundle import WEIGHING
from arclight.errors import DataError, SpecError
from arclight.train_section import SAMPLED
from ray_apps.trainers.labels import check_rows, class_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from ray_apps.gang import Gang
    from ray_apps.shards import Doubles, Shard
    from ray_apps.trainers import TrainJob


def even_out(train: Shard, job: TrainJob, gang: Gang) -> tuple[Shard, TrainJob]:
    """Return the rows to train on, and the job with the shift that puts scores right.

    Down: every row of the rarer class, and of the other one as many by chance. Up: all rows, those
    of the rarer class weighing as if they were there so often (`labels.row_weights`).

    Args:
        train: this worker's rows of train, of two classes.
        job: what to fit.
        gang: the workers that train together.

    Raises:
        DataError: a worker, or the more frequent class, has no rows left.
    """
    if job.imbalance not in SAMPLED:
        return train, job
    counts = class_counts(train.label, job, gang)
    rare = int(np.argmin(counts))
    factor = float(counts.max() / counts.min())
    # the odds of class 1 are so many times those of the data as it is, or so many times less
    job = replace(job, shift=-math.log(factor) if rare == 1 else math.log(factor))
    if job.imbalance == "upsample":
        return train, job
    masks = [
        (label == rare) | (_chances(train, place, job.seed) < 1 / factor)
        for place, label in enumerate(train.labels)
    ]
    chosen = train.where(masks)
    check_rows(chosen, "left by imbalance: downsample", gang)
    if not class_counts(chosen.label, job, gang).all():
        raise DataError(
            "imbalance: downsample must leave rows of both classes, but beside the "
            f"{counts[rare]:,} of class {rare} chance left none of the {counts[1 - rare]:,} of "
            f"class {1 - rare}; use imbalance: upsample or more rows."
        )
    return chosen, job


def refuse_weights(params: Mapping[str, object], job: TrainJob) -> None:
    """Refuse parameters that would make classes weigh otherwise once more.

    Args:
        params: the user's, by the library's main names.
        job: what to fit.

    Raises:
        SpecError: one is set together with weights, or with down- or upsampling.
    """
    for name in WEIGHING if job.imbalance == "weight" else ():
        if params.get(name, WEIGHING[name]) != WEIGHING[name]:
            raise SpecError(
                f"train.params: {name} must not be set with imbalance: weight, which weighs the "
                "classes itself; leave one of them out."
            )
    for name in (*WEIGHING, "base_score", "linear_tree") if job.imbalance in SAMPLED else ():
        if name in params:
            raise SpecError(
                f"train.params: {name} must not be set with imbalance: {job.imbalance}, after "
                "which scores are put right by the classes' own shares; leave one of them out."
            )


def put_right(scores: Doubles, shift: float) -> Doubles:
    """Return probabilities of class 1 with a shift added to their logits."""
    odds = math.exp(shift)
    return scores * odds / (scores * odds + (1 - scores))


def _chances(train: Shard, place: int, seed: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) per row of a part: the same one whichever worker reads the row."""
    if not train.pieces:
        return np.random.default_rng([seed, place]).random(len(train.labels[place]))
    piece = train.pieces[place]
    content = int(piece.file.sha256[:16], 16)
    whole = np.random.default_rng([seed, content, piece.group])
    return whole.random(piece.file.row_groups[piece.group])[piece.start :][: piece.rows]
