"""The trials of a study: what its lines say of them, and where their time went.

A line is written when a trial begins and when it ends, so that a search that was killed goes on
with what is there: ended trials are never run again, those that had begun are run again with the
parameters they had.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from arclight.contract import Contract, sealed, unseal
from arclight.errors import IntegrityError
from arclight.metrics import METRICS
from arclight.search_space import Param

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from arclight.tune_section import Tune

BUDGET = {"trials", "time_limit_s", "trial_limit_s", "target", "at_once", "nodes"}
"""What of a search may change while it goes on."""
LAST_TIME = ", the last time: "
"""In a trial's reason, before what is known of the last time that its process was gone."""


class Trial(Contract):
    """A trial that ended."""

    number: int
    params: dict[str, Param]
    state: Literal["complete", "stopped", "failed"]
    """`stopped`: by the scheduler or a limit, before its training was over."""
    value: float | None = None
    """The best figure on valid, or the mean of its folds; None of one that failed, or that was
    stopped before it had all folds, or all rows."""
    rounds: int = 0
    best_round: int = 0
    reason: str = ""
    """Why it was stopped or failed."""
    points: tuple[tuple[int, float], ...] = ()
    """(round, best figure so far) where the scheduler looked, and at the end; or (fold, mean so
    far), or (row groups, figure); of a population (round at a generation's end, figure)."""
    others: dict[str, float] = {}
    """The figures of `tune.also` that could be measured."""
    parent: int | None = None
    """Of a population: the trial whose network it went on with; None: a fresh one."""
    host: int = 0
    """Which of the hosts trained it, where there were several."""
    queue_s: float = 0.0
    """Seconds in which it waited: for rows that were made ready for another, or for its turn."""
    bin_s: float = 0.0
    train_s: float = 0.0
    judge_s: float = 0.0
    """Of `train_s`, for the figures on the rows that it is judged on."""


class TrialLines(Protocol):
    """Where the lines of a study's trials are (`TrialFile`, `TrialTable`)."""

    def __str__(self) -> str:
        """Name the place."""

    def after(self, place: int) -> tuple[list[bytes], int]:
        """Return the lines behind a place, and the place behind them; 0 is the beginning."""

    def append(self, line: bytes, *, is_lasting: bool) -> None:
        """Append a line that has no end of line in it."""

    def held(self) -> AbstractContextManager[bool]:
        """Hold the lines for the length of a block; yields whether nobody else holds them."""


@dataclass
class Trials:
    """The trials of a study: what its lines say, and where they are."""

    lines: TrialLines
    ended: dict[int, Trial] = field(default_factory=dict)
    begun: dict[int, dict[str, Param]] = field(default_factory=dict)
    """Number -> parameters, of those that did not end."""
    attempts: dict[int, int] = field(default_factory=dict)
    """Number -> how often it began and its process was gone before it ended."""
    why_gone: dict[int, str] = field(default_factory=dict)
    """Number -> why its process was gone, where that is known of the last time that it began."""
    over: dict[str, Any] | None = None
    """The budget that the search was over for; None while it is not."""
    budget: dict[str, Any] | None = None
    """What the search may spend; None where an older release did not write it."""
    _place: int = field(default=0, compare=False)
    _read: int = field(default=0, compare=False)
    """Lines."""

    @classmethod
    def read(cls, lines: TrialLines) -> Trials:
        """Read a study's trials.

        Raises:
            IntegrityError: another line cannot be read.
        """
        found = cls(lines)
        found.read_on()
        return found

    def read_on(self) -> None:
        """Read what somebody else has written since this was read.

        Raises:
            IntegrityError: a line that is whole cannot be read.
        """
        found, place = self.lines.after(self._place)
        for line in found:
            self._read += 1
            try:
                self._take(_body_of(line))
            except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
                raise IntegrityError(
                    f"line {self._read} of {self.lines} must be a trial as it was written, but "
                    "cannot be read; restore it from a backup or begin anew with --new-study."
                ) from error
        self._place = place

    @property
    def next_number(self) -> int:
        """The number of the next new trial, from 0."""
        return max((*self.ended, *self.begun), default=-1) + 1

    def allow(self, tune: Tune) -> None:
        """Note what the search may spend from now on."""
        if self.budget != budget_of(tune):
            self._write({"budget": budget_of(tune)})

    def begin(self, number: int, params: dict[str, Param]) -> None:
        """Note that a trial begins.

        Not forced to the disk: what a power cut takes of it is asked for again.
        """
        self._write({"begun": number, "params": params}, is_lasting=False)

    def leave(self, number: int) -> None:
        """Note that a trial was interrupted, which is no fault of its own."""
        self._write({"left": number})

    def gone(self, number: int, why: str) -> None:
        """Note why the process of a trial was gone before it ended."""
        self._write({"gone": number, "why": why})

    def end(self, trial: Trial) -> None:
        """Note how a trial ended."""
        self._write({"ended": trial.model_dump(mode="json")})

    def close(self, tune: Tune) -> None:
        """Note that the search is over for what it was given."""
        if not self.is_over_for(tune):
            self._write({"over": budget_of(tune)})

    def is_over_for(self, tune: Tune) -> bool:
        """Say whether a search was over when it had been given as much as this."""
        return self.over is not None and self.over == budget_of(tune)

    def ranked(self, metric: str) -> list[Trial]:
        """Return the trials that have a figure, the best first, of equal ones the older."""
        return sorted(self.with_figure, key=order_of(metric))

    @property
    def with_figure(self) -> list[Trial]:
        """The trials that have a figure."""
        return [trial for trial in self.ended.values() if trial.value is not None]

    def _write(self, body: dict[str, Any], *, is_lasting: bool = True) -> None:
        """Append one line, on the disk before this returns if it is to last.

        Raises:
            ArclightError: it cannot be written.
        """
        line = json.dumps(sealed(body), allow_nan=False).encode()
        self.lines.append(line, is_lasting=is_lasting)
        self._take(body)

    def _take(self, body: dict[str, Any]) -> None:
        if "begun" in body:
            number = int(body["begun"])
            self.begun[number] = dict(body["params"])
            self.attempts[number] = self.attempts.get(number, 0) + 1
            self.why_gone.pop(number, None)
            self.over = None
        elif "gone" in body:
            self.why_gone[int(body["gone"])] = str(body["why"])
        elif "left" in body:
            self.attempts[int(body["left"])] = 0
        elif "ended" in body:
            trial = Trial.model_validate_json(json.dumps(body["ended"]))
            self.begun.pop(trial.number, None)
            self.ended[trial.number] = trial
        elif "budget" in body:
            self.budget = dict(body["budget"])
        else:
            self.over = self.budget = dict(body["over"])


def _body_of(line: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(line)
    if not unseal(body):
        raise ValueError("it was changed after it was written")
    return body


@dataclass(frozen=True)
class Seconds:
    """Where the time of a study's trials went.

    Attributes:
        queue: waiting, for rows that were being binned for others or for another network.
        binning: making rows ready for the library.
        training: rounds.
        judging: the figures on valid.
        waste: the part of both that went into failed trials.
    """

    queue: float
    binning: float
    training: float
    judging: float
    waste: float

    @property
    def share(self) -> float | None:
        """The part of a trial's time that is training; None without any."""
        whole = self.queue + self.binning + self.training + self.judging
        return self.training / whole if whole else None


def seconds_of(trials: Trials) -> Seconds:
    """Return where the time of a study's trials went."""
    ended = trials.ended.values()
    return Seconds(
        queue=sum(t.queue_s for t in ended),
        binning=sum(t.bin_s for t in ended),
        training=sum(t.train_s - t.judge_s for t in ended),
        judging=sum(t.judge_s for t in ended),
        waste=sum(t.train_s for t in ended if t.state == "failed"),
    )


def order_of(metric: str) -> Callable[[Trial], tuple[float, int]]:
    """Return what trials that have a figure stand in order of: the best first, then the older."""
    sign = -1 if METRICS[metric].higher_is_better else 1
    return lambda trial: (sign * (trial.value or 0.0), trial.number)


def budget_of(tune: Tune) -> dict[str, Any]:
    """Return what a search may spend."""
    return tune.model_dump(mode="json", include=BUDGET - {"at_once", "nodes"})
