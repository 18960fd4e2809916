"""Which trials of a search go on: rungs of rounds, and who passes them.

Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning,
2020), in the form in which a trial stops where it does not pass; Hyperband (Li et al. 2018) as
several of them that begin at other rungs; the median rule of Golovin et al. (Vizier, 2017).
Successive halving rung by rung (Jamieson, Talwalkar, Non-stochastic Best Arm Identification,
2016).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from arclight.trials import Trial

Scheduler = Literal["asha", "halving", "hyperband", "median", "none", "population"]
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
        self._rounds = rounds
        self._rungs = () if scheduler in ("none", "population") else rungs_of(rounds)
        self._seen: dict[tuple[int, int], list[float]] = {}

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
        others = self._seen.setdefault((self._bracket(number), rung), [])
        others.append(mine)
        if self._scheduler == "median":
            return len(others) <= MEDIAN_AFTER or mine >= float(np.median(others[:-1]))
        place = sum(other > mine for other in others)
        return place < max(1, len(others) // ETA)

    def recall(self, trial: Trial) -> None:
        """Take in a trial that ended before, as if it came by again."""
        at = dict(trial.points)
        for rung in self.rungs(trial.number):
            if rung in at:
                key = (self._bracket(trial.number), rung)
                self._seen.setdefault(key, []).append(self._sign * at[rung])

    def ended(self, trial: Trial) -> None:
        """Take in how a trial ended."""

    def next_up(self, busy: Collection[int]) -> int | None:  # noqa: ARG002 -- of `Halving`
        """Return a trial that ended at a rung and goes on, not one of the busy; None: none."""
        return None

    def _bracket(self, number: int) -> int:
        brackets = min(3, len(self._rungs)) if self._scheduler == "hyperband" else 1
        return number % brackets if brackets else 0


class Halving(Passing):
    """Decides rung by rung, so that the same trials go on however many run at a time.

    Of all trials the best third goes on from the first rung, of these the best third from the
    second one, and so on; of equal figures the older trial. A trial ends at each rung, unless it
    is known already that it goes on; it is taken up again when that is known (`next_up`). Those
    that fail, or are over before a rung, leave their place there to another.

    Args:
        numbers: of all trials there will be.
        rounds: of a trial that is never stopped.
        higher: whether a higher figure is better.
    """

    def __init__(self, numbers: Iterable[int], rounds: int, *, higher: bool) -> None:
        super().__init__("halving", rounds, higher=higher)
        self._numbers = frozenset(numbers)
        powers = range(1, len(self._rungs) + 1)
        self._quotas = [max(1, len(self._numbers) // ETA**power) for power in powers]
        self._figures: list[dict[int, float]] = [{} for _ in self._rungs]
        """Of each rung: number -> figure, higher is better; of one that never comes -infinity."""
        self._over: dict[int, bool] = {}
        """Trials that nothing is left of, and whether they had all their rounds."""

    @property
    def done(self) -> tuple[int, int]:
        """Return how many rounds are behind the trials, and how many there are for all of them."""
        steps = np.diff([0, *self._rungs, self._rounds]).tolist()
        came = [sum(map(math.isfinite, figures.values())) for figures in self._figures]
        due = [len(self._numbers), *self._quotas]
        behind = sum(map(int.__mul__, [*came, sum(self._over.values())], steps))
        return behind, sum(map(int.__mul__, due, steps))

    def passes(self, number: int, rung: int, value: float) -> bool:
        """Say whether it is known already that a trial goes on from a rung."""
        place = self._rungs.index(rung)
        if number in self._numbers:
            self._figures[place][number] = self._sign * value
        return number in self._chosen()[place]

    def ended(self, trial: Trial) -> None:
        """Take in how a trial ended; one that did not end at a rung leaves its place there."""
        is_at_rung = bool(trial.points) and trial.points[-1][0] in self._rungs
        if trial.number not in self._numbers or (trial.state == "stopped" and is_at_rung):
            return
        self._over[trial.number] = trial.state == "complete"
        for figures in self._figures:
            if trial.number not in figures:
                figures[trial.number] = -math.inf
                return

    def recall(self, trial: Trial) -> None:
        """Take in a trial that ended before, as if it came by again."""
        for height, value in trial.points:
            if height in self._rungs:
                self.passes(trial.number, height, value)
        self.ended(trial)

    def next_up(self, busy: Collection[int]) -> int | None:
        """Return a trial that ended at a rung and goes on, the lowest rung first."""
        above: list[Collection[int]] = [*self._figures[1:], ()]
        for chosen, there in zip(self._chosen(), above, strict=True):
            for number in chosen:
                if not any(number in ones for ones in (there, busy, self._over)):
                    return number
        return None

    def _chosen(self) -> list[list[int]]:
        """Return who goes on from each rung for sure, whatever those bring that are to come."""
        found: list[list[int]] = []
        expected, missing = None, len(self._numbers) - len(self._figures[0])
        for quota, figures in zip(self._quotas, self._figures, strict=True):
            came = [n for n in (figures if expected is None else expected) if n in figures]
            if expected is not None:
                missing += len(expected) - len(came)
            known = [n for n in came if figures[n] > -math.inf]
            ranked = sorted(known, key=lambda n: (-figures[n], n))
            missing = max(0, missing)
            sure = ranked[: max(0, quota - missing)]
            found.append(sure)
            expected, missing = sure, min(quota, len(ranked) + missing) - len(sure)
        return found
