"""Cross-validation beside a training: the same rounds on parts of train, judged on the rest.

A fold trains as many rounds as the model has and chooses nothing by the rows it is judged on, so
that its figure is one of rows no part of it has seen. What every fold shares with the model is
the plan: levels and quantiles of all of train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from arclight.bundle import FoldFigure
from arclight.errors import DataError
from arclight.folds import fold_of, fold_starts, row_places
from ray_apps.gang.totals import total
from ray_apps.shards import ALONE, Shard, open_split
from ray_apps.trainers.imbalance import even_out
from ray_apps.trainers.labels import check_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from arclight.folds import Fold, FoldRule, Micros
    from arclight.manifest import DatasetManifest
    from arclight.progress import Tick
    from ray_apps.gang import Gang
    from ray_apps.shards import Reader
    from ray_apps.trainers import Trainer, TrainJob
    from ray_apps.trainers.boosting import Watch


@dataclass(frozen=True)
class Deal:
    """How this worker's rows of train are dealt to folds.

    Attributes:
        rule: the rule.
        places: what decides about each row, part by part.
        starts: where the folds start, the same on every worker.
    """

    rule: FoldRule
    places: Sequence[Micros]
    starts: Micros

    def fold(self, number: int) -> list[Fold]:
        """Return the rows of a fold, part by part."""
        return [fold_of(self.rule, part, self.starts, number) for part in self.places]

    def parts(self, train: Shard, number: int) -> tuple[Shard, Shard]:
        """Return the rows that a fold learns from, and those that it is judged on."""
        folds = self.fold(number)
        learn = train.where([fold.learn for fold in folds])
        return learn, train.where([fold.judge for fold in folds])


@dataclass(frozen=True)
class FoldJob:
    """What every fold trains: the job of the model, for as many rounds as the model kept."""

    trainer: Trainer
    job: TrainJob
    rounds: int


def deal(
    folder: Path, manifest: DatasetManifest, rule: FoldRule, reader: Reader, gang: Gang
) -> Deal:
    """Read what decides about this worker's rows.

    Raises:
        IntegrityError: bytes or columns are not those published.
    """

    def read(who: Reader) -> list[Micros]:
        batches = open_split(folder, manifest, "train", columns=rule.columns, reader=who)
        return [row_places(rule, batch) for batch in batches]

    mine = read(reader)

    def first(_: object) -> bytes:
        whole = mine if rule.time is None or gang.world == 1 else read(ALONE)
        return fold_starts(rule, np.concatenate(whole)).tobytes()

    return Deal(rule, mine, np.frombuffer(gang.agree(b"", first), np.int64))


def check_folds(train: Shard, dealt: Deal, job: TrainJob, gang: Gang) -> None:
    """Refuse folds that cannot be trained or judged, before anything is trained.

    Raises:
        DataError: a fold has no rows, or rows of one class only.
    """
    for number in range(dealt.rule.count):
        where = f"fold {number + 1} of {dealt.rule.count}"
        learn, judge = dealt.parts(train, number)
        for shard, use in ((learn, "learn from"), (judge, "be judged on")):
            if not shard.rows:
                raise DataError(
                    f"{where} must have rows to {use} on every worker, but worker "
                    f"{gang.rank + 1} of {gang.world} has none; use fewer train.folds or workers."
                )
        try:
            check_labels(learn.label, judge.label, job, gang)
        except DataError as error:
            raise DataError(f"{where} (train.folds): {error.message}") from error


def fold_figures(
    train: Shard, dealt: Deal, asked: FoldJob, gang: Gang, tick: Tick, *, begin: int = 0
) -> Iterator[FoldFigure]:
    """Train fold after fold and judge each; every worker goes through it with its own rows.

    Args:
        train: this worker's rows of train.
        dealt: how they are dealt.
        asked: what to train.
        gang: the workers that train together.
        tick: told about the rounds of all folds.
        begin: how many folds are done already.

    Raises:
        EngineError: the library failed, or another worker is gone.
    """
    count, rounds = dealt.rule.count, asked.rounds
    job = replace(asked.job, early_stopping=None)
    for number in range(begin, count):
        where = f"fold {number + 1} of {count}"
        learn, judge = dealt.parts(train, number)
        evened, own = even_out(learn, job, gang)
        data = asked.trainer.prepare(evened, judge, own, gang)
        watch = _until(rounds, tick, (number * rounds, count * rounds, f"{where}, {job.metric}"))
        fitted = asked.trainer.fit(data, own, gang, watch)
        rows = total(gang, np.array([learn.rows, judge.rows]))
        yield FoldFigure(learned=int(rows[0]), judged=int(rows[1]), value=fitted.valid)


# --------------------------------------------------------------------------------- inside


def _until(rounds: int, tick: Tick, said: tuple[int, int, str]) -> Watch:
    """Return what ends a training after so many rounds, and says how far all folds are."""
    before, total_rounds, note = said

    def watch(history: Sequence[float], model: Callable[[], bytes] | None) -> bool:  # noqa: ARG001
        tick(before + len(history), total_rounds, f"{note} {history[-1]:.5f}")
        return len(history) < rounds

    return watch
