"""Which trials of a search go on: rungs of rounds, and who passes them.

Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning,
2020), in the form in which a trial stops where it does not pass; Hyperband (Li et al. 2018) as
several of them that begin at other rungs; the median rule of Golovin et al. (Vizier, 2017).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from arclight.trials import Trial

Scheduler = Literal["asha", "hyperband", "median", "none", "population"]
ETA = 3
"""One of so many passes a rung, and the next rung is so many times as high."""
RUNGS = 4
MEDIAN_AFTER = 5
"""Trials that must have been at a rung before the median of them says anything."""


def rungs_of(rounds: int) -> tuple[int, ...]:
    """Return the rounds at which trials are looked at: up to four, each three times the last."""
    heights = (math.ceil(rounds / ETA**power) for power in range(RUNGS, 0, -1))
    return tuple(sorted({height for height in heights if height < rounds}))


class Passing:
    """Decides about trials in the order in which they come to a rung.

    Args:
        scheduler: the rule.
        rounds: of a trial that is never stopped.
        higher: whether a higher figure is better.
    """

    def __init__(self, scheduler: Scheduler, rounds: int, *, higher: bool) -> None:
        self._scheduler, self._sign = scheduler, 1.0 if higher else -1.0
        self._rungs = () if scheduler in ("none", "population") else rungs_of(rounds)
        self._seen: dict[tuple[int, int], dict[int, float]] = {}
        """(bracket, rung) -> trial -> figure: one that is made again counts once."""

    def rungs(self, number: int) -> tuple[int, ...]:
        """Return the rungs of a trial by its number; of Hyperband each bracket begins higher."""
        return self._rungs[self._bracket(number) :]

    def passes(self, number: int, rung: int, value: float) -> bool:
        """Say whether a trial that comes to a rung with its best figure so far goes on.

        Args:
            number: of the trial.
            rung: one of its rungs.
            value: a finite figure.
        """
        mine = self._sign * value
        seen = self._seen.setdefault((self._bracket(number), rung), {})
        seen[number] = mine
        others = [figure for other, figure in seen.items() if other != number]
        if self._scheduler == "median":
            return len(others) < MEDIAN_AFTER or mine >= float(np.median(others))
        place = sum(other > mine for other in others)
        return place < max(1, len(seen) // ETA)

    def recall(self, trial: Trial) -> None:
        """Take in a trial that ended before, as if it came by again."""
        at = dict(trial.points)
        for rung in self.rungs(trial.number):
            if rung in at:
                key = (self._bracket(trial.number), rung)
                self._seen.setdefault(key, {})[trial.number] = self._sign * at[rung]

    def _bracket(self, number: int) -> int:
        brackets = min(3, len(self._rungs)) if self._scheduler == "hyperband" else 1
        return number % brackets if brackets else 0
