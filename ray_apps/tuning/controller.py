"""Who decides in a search: what is tried next, which trials go on, and what is written.

One of it a study, whatever the number of machines. It is asked when a trial begins, comes to a
rung, and ends: a report costs a function call, and from another machine one message.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from arclight.halving import Passing
from arclight.metrics import METRICS
from arclight.population import heir, is_ready, leg_of
from arclight.study import trained_by
from arclight.trials import LAST_TIME, Trial
from ray_apps.losses import PATIENCE
from ray_apps.tuning.ask import Asker, trials_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from arclight.population import Leg
    from arclight.search_space import Param
    from arclight.study import Study
    from arclight.trials import Trials

ATTEMPTS = PATIENCE
"""Times that a trial begins and takes its process with it; no more than a search takes losses."""
ALONE = ATTEMPTS - 1
"""Times that it was gone, after which a trial is alone on its host: others may be to blame."""
LOOKS_EVERY_S = 1.0
"""Whether the search's time is over, while a generation waits for the one before."""
Said = tuple[int, int, str]
"""Trials that ended, trials in all, and how it goes in words."""


class Decides(Protocol):
    """What those who train trials ask."""

    def next(self, host: int) -> tuple[int, dict[str, Param]] | None:
        """Return the number and the parameters of a trial that begins; None: there is none."""

    def passes(self, number: int, height: int, best: float) -> bool:
        """Say whether a trial that comes to a rung goes on."""

    def leg(self, number: int) -> Leg | None:
        """Return what a running trial of a population trains; None where there is none."""

    def end(self, trial: Trial) -> None:
        """Take in how a trial ended."""

    def leave(self, number: int, host: int) -> None:
        """Take in that a trial was interrupted, which is no fault of its own."""

    def lost(self, host: int, why: str) -> int:
        """Give the trials of a host that is gone to the others; return how many they are."""


def passing_of(study: Study) -> dict[str, Passing]:
    """Return trainer -> who passes its rungs."""
    higher = METRICS[study.metric].higher_is_better
    return {
        name: Passing(study.tune.scheduler, study.height(name), higher=higher)
        for name in study.candidates
    }


class Controller:
    """Decides for a study; safe to call from several threads.

    Args:
        study: what is searched.
        trials: those that are known, and their file.
        clock: seconds that only grow.
        spent_s: what of the search's time is over already.
    """

    def __init__(
        self,
        study: Study,
        trials: Trials,
        *,
        clock: Callable[[], float] = time.monotonic,
        spent_s: float = 0.0,
    ) -> None:
        self._study, self._trials, self._clock = study, trials, clock
        self._higher = METRICS[study.metric].higher_is_better
        self._asker = Asker(
            study.tune,
            seed=study.train.seed,
            higher=self._higher,
            shuffles=study.shuffles,
            heights={name: study.height(name) for name in study.tune.among},
        )
        # trials are compared with those of the same trainer: a round is another thing to each
        self._passing = passing_of(study)
        for trial in sorted(trials.ended.values(), key=lambda t: t.number):
            self._of(trial.params).recall(trial)
        self._again = sorted(trials.begun.items())
        self._wanted = trials_of(study.tune)
        self._running: dict[int, tuple[int, dict[str, Param]]] = {}
        self._asking = threading.Lock()
        self._lock = threading.Condition()
        """Told when a trial ends or comes back: a generation waits for the one before."""
        self._opened_s, self._known = clock(), len(trials.ended)
        self._begun_s = self._opened_s - spent_s
        self._stops = False
        self._gone: set[int] = set()

    def next(self, host: int = 0) -> tuple[int, dict[str, Param]] | None:
        """Return a trial that begins on a host; None: no other one begins.

        Raises:
            ArclightError: its begin could not be written.
        """
        while True:
            with self._asking:
                with self._lock:
                    if self._stops or self._is_over() or host in self._gone:
                        return None
                    again = self._begun_before()
                    number = again[0] if again else self._trials.next_number
                    if number >= self._wanted:
                        return None
                    may_begin = self._may_begin(number, host)
                    if not may_begin:
                        self._again[:0] = [again] if again else []
                    ended = list(self._trials.ended.values())
                    others = {n: params for n, (_, params) in self._running.items()}
                if may_begin:
                    # reports are not kept waiting while a model is asked
                    params = again[1] if again else self._asker.ask(number, ended, others)
                    return self._begin(host, number, params, is_again=again is not None)
            with self._lock:  # the other hosts may ask meanwhile
                self._lock.wait(LOOKS_EVERY_S)

    def _begin(
        self, host: int, number: int, params: dict[str, Param], *, is_again: bool
    ) -> tuple[int, dict[str, Param]] | None:
        with self._lock:
            if host in self._gone:  # meanwhile
                self._again += [(number, params)] if is_again else []
                return None
            self._trials.begin(number, params)
            self._running[number] = (host, params)
            return number, params

    def passes(self, number: int, height: int, best: float) -> bool:
        """Say whether a trial that comes to a rung with its best figure so far goes on."""
        with self._lock:
            mine = self._running.get(number)  # none where its host was given up
            return mine is not None and self._of(mine[1]).passes(number, height, best)

    def leg(self, number: int) -> Leg | None:
        """Return what a running trial of a population trains; None where there is none."""
        with self._lock:
            study, ended = self._study, self._trials.ended
            if study.tune.population is None or number not in self._running:
                return None
            own, seed = self._running[number][1], study.train.seed
            found = heir(study.tune, number, ended, seed=seed, higher=self._higher)
            rounds = study.height(study.train.trainer)
            return leg_of(study.tune, rounds, number, own, found and found[0], ended)

    def end(self, trial: Trial) -> None:
        """Write how a trial ended; one that was taken from its host meanwhile is another's.

        Raises:
            ArclightError: it could not be written.
        """
        with self._lock:
            if self._is_at(trial.number, trial.host):
                self._trials.end(trial)
                del self._running[trial.number]
            self._lock.notify_all()

    def leave(self, number: int, host: int = 0) -> None:
        """Write that a trial was interrupted; it is run again, if need be by the same command."""
        with self._lock:
            if self._is_at(number, host):
                self._trials.leave(number)
                self._again.append((number, self._running.pop(number)[1]))
            self._lock.notify_all()

    def lost(self, host: int, why: str) -> int:
        """Give the trials of a host that is gone to the others; return how many they are.

        Args:
            host: which one.
            why: it is gone; written for each of its trials.

        Raises:
            ArclightError: that could not be written.
        """
        with self._lock:
            self._gone.add(host)
            mine = self._numbers_at(host)
            for number in mine:
                self._trials.gone(number, why)
            self._again += [(number, self._running.pop(number)[1]) for number in sorted(mine)]
            self._lock.notify_all()
            return len(mine)

    def stop(self) -> None:
        """Begin no trial any more, and leave those that run."""
        with self._lock:
            self._stops = True
            self._lock.notify_all()
            running = [(number, host) for number, (host, _) in self._running.items()]
        for number, host in running:
            self.leave(number, host)

    def is_done(self) -> bool:
        """Say whether no trial is left to make."""
        with self._lock:
            if self._running or self._is_over():
                return not self._running
            return not self._again and self._trials.next_number >= self._wanted

    def said(self) -> Said:
        """Return how far the search is; first what a narrow terminal must not cut off."""
        with self._lock:
            ended, running = list(self._trials.ended.values()), len(self._running)
            best = self._study.best(self._trials)
        told = self._forecast(len(ended))
        told += [] if best is None else [f"best {best.value:.5f} (trial {best.number})"]
        told.append(f"{running} running")
        for state in ("stopped", "failed"):
            count = sum(trial.state == state for trial in ended)
            told += [f"{count:,} {state}"] if count else []
        return len(ended), self._wanted, ", ".join(told)

    def _forecast(self, ended: int) -> list[str]:
        """Return how many trials a minute this has seen end, and when the last one will have."""
        made, seen_s = ended - self._known, self._clock() - self._opened_s
        if not made or seen_s <= 1:
            return []
        left, limit = max(0, self._wanted - ended) * seen_s / made, self._study.tune.time_limit_s
        if limit is not None:
            left = min(left, max(0.0, limit - self._spent_s()))
        return [f"{60 * made / seen_s:.1f}/min, {left:.0f} s left"]

    # with the lock held

    def _is_at(self, number: int, host: int) -> bool:
        return number in self._running and self._running[number][0] == host

    def _of(self, params: dict[str, Param]) -> Passing:
        trainer, _ = trained_by(self._study.train, self._study.tune, params)
        return self._passing[trainer]

    def _numbers_at(self, host: int) -> list[int]:
        return [number for number in self._running if self._is_at(number, host)]

    def _may_begin(self, number: int, host: int) -> bool:
        """Say whether a trial may begin on a host now.

        Not beside one that was gone so often that others must not be blamed for it, nor as such
        a one beside others; and not before the generation that it comes from has ended.
        """
        attempts, beside = self._trials.attempts, self._numbers_at(host)
        if beside and attempts.get(number, 0) >= ALONE:
            return False
        if any(attempts.get(other, 0) > ALONE for other in beside):
            return False
        is_again = number in self._trials.begun
        return is_again or is_ready(self._study.tune, number, self._trials.ended)

    def _begun_before(self) -> tuple[int, dict[str, Param]] | None:
        """Return a trial that began before; one that takes its process with it has failed."""
        while self._again:
            number, params = self._again.pop(0)
            if self._trials.attempts.get(number, 0) < ATTEMPTS:
                return number, params
            reason = f"its process was gone {ATTEMPTS} times before it ended"
            why = self._trials.why_gone.get(number, "")
            reason += f"{LAST_TIME}{why}" if why else ""
            self._trials.end(Trial(number=number, params=params, state="failed", reason=reason))
        return None

    def _is_over(self) -> bool:
        """Say whether a limit of the study is reached."""
        limit = self._study.tune.time_limit_s
        if limit is not None and self._spent_s() >= limit:
            return True
        return self._study.has_reached(self._trials)

    def _spent_s(self) -> float:
        return self._clock() - self._begun_s
