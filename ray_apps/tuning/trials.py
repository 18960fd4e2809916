"""Trials of a search on one machine: threads that share what was binned once.

Who asks, who decides and who writes are one lock apart, so that a report costs a function call.
A trial is `fit` of its trainer, as any training; what differs between two that bin alike is a
booster.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from arclight.errors import ArclightError, IntegrityError, printable
from arclight.halving import Passing
from arclight.metrics import METRICS
from arclight.study import Trial
from ray_apps.gang import Alone
from ray_apps.memory import is_no_memory
from ray_apps.tuning.ask import Asker, trials_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.progress import Tick
    from arclight.study import Param, Study, Trials
    from ray_apps.shards import Shard
    from ray_apps.trainers import Trainer, TrainJob
    from ray_apps.trainers.boosting import Watch

ATTEMPTS = 4
"""Times that a trial begins and takes its process with it."""
BINNINGS = 2
"""Ways to bin that are kept at once; another one takes the place of the oldest."""
TOLD_EVERY_S = 0.2


class _StoppedError(Exception):
    """Ends a training from inside: its trial is stopped."""


@dataclass
class _Running:
    """A trial that runs."""

    number: int
    params: dict[str, Param]
    asked_s: float
    begun_s: float = 0.0
    """When its rows were there."""
    points: list[tuple[int, float]] = field(default_factory=list)
    rounds: int = 0
    best: float = math.nan
    reason: str = ""
    """Why it is stopped; nothing while it is not."""


class Search:
    """Makes the trials of a study.

    Args:
        study: what is searched.
        trials: those that are known, and their file.
        trainer: of every trial.
        job: what every trial has beside its own parameters.
        rows: train and valid.
        at_once: trials that run at the same time.
        tick: told about the progress.
        clock: seconds that only grow.
        spent_s: what of the search's time is over already.
    """

    def __init__(  # noqa: PLR0913 -- what, from where, how many at a time, and who is told
        self,
        study: Study,
        trials: Trials,
        trainer: Trainer,
        job: TrainJob,
        rows: tuple[Shard, Shard],
        *,
        at_once: int,
        tick: Tick,
        clock: Callable[[], float] = time.monotonic,
        spent_s: float = 0.0,
    ) -> None:
        self._study, self._trials, self._trainer, self._job = study, trials, trainer, job
        self._rows, self._at_once, self._tick, self._clock = rows, at_once, tick, clock
        self._higher = METRICS[study.metric].higher_is_better
        self._asker = Asker(study.tune, seed=study.train.seed, higher=self._higher)
        self._passing = Passing(study.tune.scheduler, job.rounds, higher=self._higher)
        self._passing.recall(sorted(trials.ended.values(), key=lambda t: t.number))
        self._again = sorted(trials.begun.items())
        self._wanted = trials_of(study.tune)
        self._running: dict[int, _Running] = {}
        self._lock, self._asking, self._bins = (
            threading.Lock(), threading.Lock(), threading.Condition(),
        )  # fmt: skip
        self._binned: dict[tuple[Any, ...], Any] = {}
        self._in_use: Counter[tuple[Any, ...]] = Counter()
        self._begun_s, self._told_s, self._known = clock() - spent_s, 0.0, len(trials.ended)
        self._stops = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Make trials until there are enough, or until a limit of the study is reached.

        Raises:
            ArclightError: a trial's end could not be written.
        """
        threads = [
            threading.Thread(target=self._work, name=f"trial-{place}")
            for place in range(self._at_once)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(TOLD_EVERY_S)
                    self._tell()
        except BaseException:
            self._stops = True  # after the round that each is in
            with self._bins:
                self._bins.notify_all()
            for thread in (one for one in threads if one.ident is not None):
                thread.join()
            raise
        if self._failure is not None:
            raise self._failure
        self._tell(is_last=True)

    # threads

    def _work(self) -> None:
        """Make one trial after another."""
        mine: _Running | None = None
        try:
            while (mine := self._next()) is not None:
                trial = self._make(mine)
                with self._lock:
                    del self._running[mine.number]
                    if trial is None or self._stops:
                        self._trials.leave(mine.number)
                    else:
                        self._trials.end(trial)
        except BaseException as error:  # noqa: BLE001 -- raised again by `run`
            self._failure, self._stops = self._failure or error, True
            with self._bins:
                self._bins.notify_all()
            with contextlib.suppress(ArclightError), self._lock:
                if mine is not None and mine.number in self._trials.begun:
                    self._trials.leave(mine.number)  # it is not to blame

    def _next(self) -> _Running | None:
        with self._asking:
            with self._lock:
                if self._stops or self._is_over():
                    return None
                again = self._begun_before()
                number = again[0] if again else self._trials.next_number
                if number >= self._wanted:
                    return None
                ended = sorted(self._trials.ended.values(), key=lambda t: t.number)
                others = {n: one.params for n, one in self._running.items()}
            # reports are not kept waiting while a model is asked
            params = again[1] if again else self._asker.ask(number, ended, others)
            with self._lock:
                self._trials.begin(number, params)
                self._running[number] = _Running(number, params, self._clock())
                return self._running[number]

    def _begun_before(self) -> tuple[int, dict[str, Param]] | None:
        """Return a trial that began before; one that takes its process with it has failed."""
        while self._again:
            number, params = self._again.pop(0)
            if self._trials.attempts.get(number, 0) < ATTEMPTS:
                return number, params
            reason = f"its process was gone {ATTEMPTS} times before it ended"
            self._trials.end(Trial(number=number, params=params, state="failed", reason=reason))
        return None

    def _is_over(self) -> bool:
        """Say whether no further trial is begun."""
        tune = self._study.tune
        if tune.time_limit_s is not None and self._spent_s() >= tune.time_limit_s:
            return True
        best = self._trials.best(self._study.metric)
        if tune.target is None or best is None or best.value is None:
            return False
        return best.value >= tune.target if self._higher else best.value <= tune.target

    def _spent_s(self) -> float:
        return self._clock() - self._begun_s

    def _make(self, mine: _Running) -> Trial | None:
        """Train one trial; what is wrong with its parameters is its own end, None an interrupt.

        Raises:
            IntegrityError, OSError, MemoryError: what no other trial would fare better with.
        """
        job = replace(self._job, params={**self._job.params, **mine.params})
        key = self._trainer.bin_key(job)
        laps = [self._clock()]
        try:
            data = self._data(key, job)
            if data is None:
                return None
            laps.append(self._clock())
            mine.begun_s = laps[-1]
            fitted = self._trainer.fit(data, job, Alone(), self._watch(mine))
        except _StoppedError:
            return self._ended(mine, laps, state="stopped", reason=mine.reason)
        except Exception as error:
            if isinstance(error, IntegrityError | OSError) or is_no_memory(error):
                raise
            reason = error.message if isinstance(error, ArclightError) else printable(error)
            return self._ended(mine, laps, state="failed", reason=reason or type(error).__name__)
        finally:
            self._let_go(key)
        return self._ended(
            mine, laps, state="complete", value=fitted.valid, best_round=fitted.rounds
        )

    def _ended(self, mine: _Running, laps: list[float], **how: Any) -> Trial:
        now = self._clock()
        bin_s = laps[1] - laps[0] if len(laps) > 1 else 0.0
        points = tuple(mine.points)
        if how["state"] == "stopped" and points:
            how["value"] = points[-1][1]
        return Trial(
            number=mine.number,
            params=mine.params,
            rounds=mine.rounds,
            points=points,
            queue_s=laps[0] - mine.asked_s,
            bin_s=bin_s,
            train_s=now - laps[-1],
            **how,
        )

    def _watch(self, mine: _Running) -> Watch:
        rungs = self._passing.rungs(mine.number)

        def watch(
            history: Sequence[float],
            model: Callable[[], bytes] | None,  # noqa: ARG001 -- the protocol's
        ) -> bool:
            mine.rounds = len(history)
            last = history[-1]
            if not math.isfinite(last):
                return True  # the trainer says what became of it
            # without early stopping the last round is what a model would be
            is_better = not mine.best > last if self._higher else not mine.best < last
            if self._job.early_stopping is None or is_better:
                mine.best = last
            best = mine.best
            is_rung = mine.rounds in rungs
            if is_rung and not self._passes(mine, best):
                mine.reason = f"not among the best after {mine.rounds:,} rounds"
            mine.reason = mine.reason or self._limit(mine)
            if is_rung or mine.reason:
                mine.points.append((mine.rounds, best))
            if mine.reason:
                raise _StoppedError  # nobody wants its model
            return True

        return watch

    def _passes(self, mine: _Running, best: float) -> bool:
        with self._lock:
            return self._passing.passes(mine.number, mine.rounds, best)

    def _limit(self, mine: _Running) -> str:
        """Return the limit that a trial ends at now; nothing where it may go on."""
        tune = self._study.tune
        if self._stops:
            return "interrupted"
        if tune.time_limit_s is not None and self._spent_s() >= tune.time_limit_s:
            return f"the search's {tune.time_limit_s:,} s are over"
        spent = self._clock() - mine.begun_s
        if tune.trial_limit_s is not None and spent >= tune.trial_limit_s:
            return f"a trial's {tune.trial_limit_s:,} s are over"
        return ""

    def _data(self, key: tuple[Any, ...], job: TrainJob) -> Any:
        """Return the rows as the trainer takes them; trials that bin alike share them.

        Where too many ways to bin are in use it waits. None: the search is stopped.
        """
        with self._bins:
            self._bins.wait_for(
                lambda: self._stops or key in self._in_use or len(self._in_use) < BINNINGS
            )
            self._in_use[key] += 1
            if self._stops:
                return None
            if key not in self._binned:
                for old in [one for one in self._binned if one not in self._in_use]:
                    if len(self._binned) >= BINNINGS:
                        del self._binned[old]
                self._binned[key] = self._trainer.prepare(*self._rows, job, Alone())
            return self._binned[key]

    def _let_go(self, key: tuple[Any, ...]) -> None:
        with self._bins:
            self._in_use[key] -= 1
            if self._in_use[key] <= 0:
                del self._in_use[key]
            self._bins.notify_all()

    # the driver's thread

    def _tell(self, *, is_last: bool = False) -> None:
        now = self._clock()
        if now - self._told_s < TOLD_EVERY_S and not is_last:
            return
        self._told_s = now
        with self._lock:
            ended, running = list(self._trials.ended.values()), len(self._running)
            best = self._trials.best(self._study.metric)
        said = [] if best is None else [f"best {best.value:.5f} (trial {best.number})"]
        said.append(f"{running} running")
        for state in ("stopped", "failed"):
            count = sum(trial.state == state for trial in ended)
            said += [f"{count:,} {state}"] if count else []
        made, spent = len(ended) - self._known, self._spent_s()
        if made and spent > 1:
            left = max(0, self._wanted - len(ended)) * spent / made
            said.append(f"{60 * made / spent:.1f}/min, {left:.0f} s left")
        self._tick(len(ended), self._wanted, ", ".join(said))
