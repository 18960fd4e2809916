"""The rounds of a training, whichever library adds them: grow, judge, look, stop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ray_apps.trainers.judge import is_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray_apps.trainers import TrainJob


@dataclass(frozen=True)
class Snapshot:
    """A training after some rounds; the one without rounds is where a training begins.

    Attributes:
        model: the bytes of the model file with all of these rounds.
        history: the metric on valid after each of them.
    """

    model: bytes = b""
    history: tuple[float, ...] = ()


BEGINNING = Snapshot()


def least_row_bytes(bins: float) -> float:
    """Return what a row of train takes at least: both libraries keep bins by rows and by columns.

    A byte a bin, the label as a double, gradient and curvature as floats.
    """
    return 2 * bins + 16


class Growing(Protocol):
    """A model that gets one more round at a time."""

    def grow(self, number: int) -> None:
        """Add the round of a number, from 0; what it draws by chance depends on that number."""

    def judge(self) -> float:
        """Return the metric over the valid rows of all workers; every worker calls it."""

    def can_go_on_from(self, rounds: int) -> bool:
        """Say whether a training that goes on from here draws what this one would."""

    def model(self) -> bytes:
        """Return the bytes of the model file with every round so far."""


class Watch(Protocol):
    """What is called after each round."""

    def __call__(self, history: Sequence[float], model: Callable[[], bytes] | None) -> bool:
        """Look at a training; False ends it here.

        Args:
            history: the metric on valid after each round so far.
            model: gives the model file as it is now; None where no training should go on from.
        """


def boost(growing: Growing, job: TrainJob, watch: Watch, history: Sequence[float]) -> list[float]:
    """Add rounds until there are enough, the metric gets no better, or the watch says so.

    Args:
        growing: the model, with the rounds of `history`.
        job: how many rounds, and when it is over.
        watch: called after each new round.
        history: the metric on valid after each round that is there.

    Returns:
        The metric after each round, the old ones included (see `TrainJob.judged`).
    """
    found = list(history)
    if found and not math.isfinite(found[-1]):
        return found  # it ended there
    while len(found) < job.rounds and not is_over(found, job):
        growing.grow(len(found))
        begun = time.perf_counter()
        is_judged = not found or job.judged is None or len(found) + 1 in job.judged
        found.append(growing.judge() if is_judged else found[-1])
        job.spent.judge_s += time.perf_counter() - begun
        is_lost = not math.isfinite(found[-1])
        # nothing is drawn after the last one
        is_last = len(found) == job.rounds or is_over(found, job) or is_lost
        model = growing.model if is_last or growing.can_go_on_from(len(found)) else None
        if not watch(found, model) or is_lost:
            break  # numbers do not come back once there are none
    return found
