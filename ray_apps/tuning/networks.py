"""The networks of a population between two generations, as checkpoints in the store.

They are no truth: one that is gone is trained again from its first round, to the same bytes, since
an epoch depends on its number and on the parameters that it has.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arclight.errors import ArclightError, DivergedError
from arclight.population import generation_before
from arclight.store import discard
from arclight.sweep import CHECKPOINTS
from ray_apps.checkpoints import CheckpointRecord, Checkpoints
from ray_apps.gang import Alone
from ray_apps.trainers.boosting import BEGINNING, Snapshot
from ray_apps.trainers.judge import is_over, kept_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.population import Leg
    from arclight.store import Store
    from arclight.study import Study
    from ray_apps.trainers import Fitted, Trainer, TrainJob
    from ray_apps.trainers.boosting import Watch


class Networks:
    """Trains the legs of a population's networks.

    Args:
        store: where the networks lie, under `checkpoints/NAME`.
        study: has a population.
    """

    def __init__(self, store: Store, study: Study) -> None:
        self._store, self._study = store, study

    def go_on(
        self, number: int, leg: Leg, trainer: Trainer, data: Any, job: TrainJob, watch: Watch
    ) -> tuple[Fitted, tuple[float, ...]]:
        """Train a network on to the end of its generation, and leave it for the next one.

        Args:
            number: of the trial.
            leg: what it trains.
            trainer: torch's.
            data: what it prepared; its `start` is replaced by the network that goes on.
            job: with the parameters of all rounds up to here.
            watch: called after each round.

        Returns:
            The network with the figure of its own rounds, as early stopping takes it, and the
            metric after each round of its training.

        Raises:
            DivergedError: the metric is no number any more.
        """
        self._let_go(number)
        kept = start = self._read(leg.parent)

        def until_the_end(history: Sequence[float], model: Callable[[], bytes] | None) -> bool:
            nonlocal kept
            goes_on = watch(history, model)
            is_lost = not math.isfinite(history[-1])
            is_end = len(history) >= leg.ends or is_over(history, job) or is_lost
            if is_end and model is not None:
                kept = Snapshot(model(), tuple(history))
            return goes_on and not is_end

        begun = replace(data, start=start)
        fitted = trainer.fit(begun, job, Alone(), until_the_end)
        if kept is BEGINNING or not math.isfinite(kept.history[-1]):
            raise DivergedError(
                f"the network diverged before round {leg.ends:,}; lower the learning rate."
            )
        self._write(number, kept, job)
        # what its network was worth before is the figure of a trial before
        own = kept.history[leg.begins :] or kept.history[-1:]
        best = kept_rounds(own, job)
        at = len(kept.history) - len(own) + best
        return replace(fitted, valid=own[best - 1], rounds=at), kept.history

    def clear(self) -> None:
        """Remove all of them: the search is over."""
        shelf = self._store.path(CHECKPOINTS, self._study.name)
        for folder in shelf.glob(f"{self._key('')}*") if shelf.is_dir() else ():
            discard(folder)

    def _key(self, number: int | str) -> str:
        return f"study-{self._study.number}-trial-{number}"

    def _of(self, number: int) -> Checkpoints:
        return Checkpoints(self._store, self._study.name, self._key(number))

    def _read(self, number: int | None) -> Snapshot:
        found = None if number is None else self._of(number).newest()
        return BEGINNING if found is None else found.snapshot

    def _write(self, number: int, network: Snapshot, job: TrainJob) -> None:
        record = CheckpointRecord(
            rounds=len(network.history),
            workers=1,
            threads=job.threads,
            resumed=(),
            folder="none",
            files=(),
        )
        place = self._of(number)
        place.clear()  # of one that was killed before its end was known, or of another study
        # without room for it, who goes on from it trains it again
        with contextlib.suppress(ArclightError):
            place.write(network, record)

    def _let_go(self, number: int) -> None:
        """Remove what the generation before the last has left: nobody goes on from it."""
        for old in generation_before(self._study.tune, number, by=2):
            self._of(old).clear()
