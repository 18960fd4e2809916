"""What a trial trains: all rows once, fold after fold, or more and more row groups.

Where there are several stages each is a training of its own, and between two of them a trial may
be stopped, as at a rung of rounds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arclight.halving import rungs_of
from arclight.metrics import measure_scores
from arclight.tune_section import MODEL_BYTES
from ray_apps.folds import check_folds, deal
from ray_apps.gang import Alone
from ray_apps.shards import dense
from ray_apps.trainers import load_trainer
from ray_apps.trainers.imbalance import even_out
from ray_apps.trainers.labels import check_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.folds import FoldRule
    from arclight.tune_section import Tune
    from ray_apps.shards import Shard
    from ray_apps.trainers import Fitted, TrainJob


@dataclass(frozen=True)
class Stage:
    """One training of a trial.

    Attributes:
        height: how far a trial is after it, in folds or row groups; of a single one nothing.
        train: rows to learn from.
        judge: rows that its figure is of.
        job: what every trial has beside its trainer, rounds and parameters.
    """

    height: int
    train: Shard
    judge: Shard
    job: TrainJob


def stages_of(
    tune: Tune, train: Shard, valid: Shard, job: TrainJob, rule: FoldRule | None
) -> tuple[Stage, ...]:
    """Return what each trial of a search trains, in this order.

    Args:
        tune: what is searched, and how.
        train: all rows of train.
        valid: all rows of valid; folds are judged on rows of train instead, but the model that is
            trained afterwards is not.
        job: what every trial has beside its trainer, rounds and parameters.
        rule: of the folds, if there are some.

    Raises:
        DataError: labels are bad, a fold has no rows, or rows of one class only.
        IntegrityError: bytes or columns are not those published.
    """
    check_labels(train.label, valid.label, job, Alone())
    if rule is not None:
        dealt = deal(train, rule, Alone())
        check_folds(train, dealt, job, Alone(), "tune.folds")
        pairs = [dealt.parts(train, number) for number in range(rule.count)]
        return tuple(_stage(i, *pair, job) for i, pair in enumerate(pairs, 1))
    if tune.fidelity == "rows":
        groups = len(train.labels)
        parts = [(n, _some(train, n)) for n in rungs_of(groups)]
        kept = [(n, part) for n, part in parts if _has_all_classes(part, train, job)]
        return tuple(_stage(n, part, valid, job) for n, part in [*kept, (groups, train)])
    return (_stage(0, train, valid, job),)


def other_figures(
    names: Sequence[str], fitted: Fitted, trainer: str, stage: Stage
) -> dict[str, float]:
    """Return the figures of a trained model on the rows that it is judged on.

    Args:
        names: metrics of the task, or `model_bytes`.
        fitted: the model.
        trainer: its name.
        stage: what it was trained on; a metric that is undefined there is left out.
    """
    found: dict[str, float | None] = {}
    if MODEL_BYTES in names:
        found[MODEL_BYTES] = float(len(fitted.model))
    metrics = [name for name in names if name != MODEL_BYTES]
    if metrics:
        library = load_trainer(trainer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{library.suffix}"
            path.write_bytes(fitted.model)
            model = library.load(path, threads=stage.job.threads)
            scores = np.concatenate([model.predict(dense(table)) for table in stage.judge.tables])
        label, task = stage.judge.label, stage.job.task
        found |= {name: measure_scores(task, name, label, scores) for name in metrics}
    return {name: value for name, value in found.items() if value is not None}


# --------------------------------------------------------------------------------- inside


def _stage(height: int, train: Shard, judge: Shard, job: TrainJob) -> Stage:
    evened, own = even_out(train, job, Alone())
    return Stage(height, evened, judge, own)


def _some(train: Shard, groups: int) -> Shard:
    """Return some row groups from all over train, since rows may lie in an order of time."""
    whole = len(train.labels)
    chosen = set(np.linspace(0, whole - 1, groups).round().astype(int).tolist())
    return train.where([np.full(len(y), i in chosen) for i, y in enumerate(train.labels)])


def _has_all_classes(part: Shard, train: Shard, job: TrainJob) -> bool:
    """Say whether a part of train has rows of each of its classes: nothing learns without."""
    if job.task == "regression":
        return True
    return len(np.unique(part.label)) == len(np.unique(train.label))
