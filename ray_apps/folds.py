"""Cross-validation beside a training: the same rounds on parts of train, judged on the rest.

A fold trains as many rounds as the model has and chooses nothing by the rows it is judged on, so
that its figure is one of rows no part of it has seen. What every fold shares with the model is
the plan: levels and quantiles of all of train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from arclight.bundle import FoldFigure
from arclight.errors import DataError, DivergedError
from arclight.folds import fold_of, fold_starts, row_places
from ray_apps.gang.totals import to_first, total
from ray_apps.trainers.imbalance import even_out
from ray_apps.trainers.labels import check_labels, check_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arclight.folds import Fold, FoldRule, Micros
    from arclight.progress import Tick
    from ray_apps.gang import Gang
    from ray_apps.shards import Shard
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


def deal(train: Shard, rule: FoldRule, gang: Gang) -> Deal:
    """Read what decides about this worker's rows of train.

    Raises:
        IntegrityError: bytes or columns are not those published.
    """
    mine = train.stored(rule.columns, partial(row_places, rule))
    places = np.concatenate(mine)
    whole = places if rule.time is None else to_first(gang, places.astype(np.float64))

    def first(_: object) -> bytes:
        # an instant in microseconds is a whole number below 2**53 until the year 2255
        return fold_starts(rule, whole.astype(np.int64)).tobytes()

    return Deal(rule, mine, np.frombuffer(gang.agree(b"", first), np.int64))


def check_folds(
    train: Shard, dealt: Deal, job: TrainJob, gang: Gang, field: str = "train.folds"
) -> None:
    """Refuse folds that cannot be trained or have no rows to be judged on, before any training.

    A figure that is undefined on a fold's rows costs the fold its figure; but a search
    (`tune.folds`) needs all of them.

    Args:
        train: this worker's rows of train.
        dealt: how they are dealt.
        job: what is trained.
        gang: the workers that train together.
        field: of the spec, that asks for them.

    Raises:
        DataError: a fold has no rows, or rows of one class only.
    """
    for number in range(dealt.rule.count):
        where = f"fold {number + 1} of {dealt.rule.count} ({field})"
        try:
            learn, judge = dealt.parts(train, number)
            for shard, use in ((learn, "learn from"), (judge, "be judged on")):
                _check_any(shard, use, dealt.rule, gang)
                check_rows(shard, f"to {use}", gang)
            judged = judge if field == "tune.folds" else learn
            check_labels(learn.label, judged.label, job, gang, judged="judged rows")
            even_out(learn, job, gang)
        except DataError as error:
            raise DataError(f"{where}: {error.message}") from error


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
    for number in range(begin, dealt.rule.count):
        # of a fold nothing is left when the next one begins
        yield _fold_figure(dealt.parts(train, number), number, dealt.rule.count, asked, gang, tick)


def told_until(rounds: int, tick: Tick, said: tuple[int, int, str]) -> Watch:
    """Return what ends a training after so many rounds, and says how far it is.

    Args:
        rounds: after which it ends.
        tick: is told.
        said: rounds before these, rounds in all, and what they are of.
    """
    before, total_rounds, note = said

    def watch(history: Sequence[float], model: Callable[[], bytes] | None) -> bool:  # noqa: ARG001
        tick(before + len(history), total_rounds, f"{note} {history[-1]:.5f}")
        return len(history) < rounds

    return watch


# --------------------------------------------------------------------------------- inside


def _check_any(shard: Shard, use: str, rule: FoldRule, gang: Gang) -> None:
    """Refuse, on every worker, a fold that has no rows at all, as few groups may leave one.

    Raises:
        DataError: with what helps; another number of workers does not.
    """
    if not total(gang, np.array([shard.rows]))[0]:
        ways = "fewer folds" if rule.by == "time" else "fewer folds, or another train.seed"
        raise DataError(
            f"there must be rows to {use}, but by their {rule.by} none fall to it; use {ways}."
        )


def _fold_figure(
    parts: tuple[Shard, Shard], number: int, count: int, asked: FoldJob, gang: Gang, tick: Tick
) -> FoldFigure:
    """Train and judge one fold; one that cannot be judged costs its figure and not the model."""
    learn, judge = parts
    job, rounds = replace(asked.job, early_stopping=None, is_kept=False), asked.rounds
    learn, job = even_out(learn, job, gang)
    said = (number * rounds, count * rounds, f"fold {number + 1} of {count}, {job.metric}")
    value: float | None = None
    reason = ""
    try:
        data = asked.trainer.prepare(learn, judge, job, gang)
        value = asked.trainer.fit(data, job, gang, told_until(rounds, tick, said)).valid
    except (DataError, DivergedError) as error:  # which every worker comes to alike
        reason = error.message
    rows = total(gang, np.array([learn.rows, judge.rows]))
    return FoldFigure(learned=int(rows[0]), judged=int(rows[1]), value=value, reason=reason)
