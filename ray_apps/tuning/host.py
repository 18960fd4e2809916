"""Trials of a search on one machine: threads that share what was binned once.

A trial is `fit` of its trainer, as any training; what differs between two that bin alike is a
booster. Whether it goes on at a rung, and what comes next, others decide.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from arclight.errors import ArclightError, IntegrityError, LostWorkerError, printable
from arclight.metrics import METRICS
from arclight.study import trained_by
from arclight.trials import Trial
from ray_apps.gang import Alone
from ray_apps.memory import is_no_memory
from ray_apps.trainers import Fitted
from ray_apps.tuning.controller import passing_of
from ray_apps.tuning.running import Running
from ray_apps.tuning.shared_bins import WAYS, SharedBins
from ray_apps.tuning.stages import other_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arclight.search_space import Param
    from arclight.study import Study
    from ray_apps.crews import Room
    from ray_apps.trainers import Trainer, TrainJob
    from ray_apps.trainers.boosting import Watch
    from ray_apps.tuning.controller import Decides
    from ray_apps.tuning.networks import Networks
    from ray_apps.tuning.stages import Stage

NO_MEMORY = "asked for more memory than there is"
TOLD_EVERY_S = 0.2
HUNG_S = 60.0
"""How long after its limit a trial may go without an end of the round it is in."""


class _StoppedError(Exception):
    """Ends a training from inside: its trial is stopped."""


class Host:
    """Makes trials of a study on this machine.

    Args:
        study: what is searched.
        controller: who decides.
        trainers: by their names.
        stages: what each trial trains, in this order.
        at_once: trials that run at the same time.
        rank: which of the hosts it is.
        clock: seconds that only grow.
        spent_s: what of the search's time is over already.
        networks: of a population, where trials leave them for those that go on from them.
        room: what there is for bins; None: as many of them as are wanted.
    """

    def __init__(  # noqa: PLR0913 -- what, from where, how many at a time, and who decides
        self,
        study: Study,
        controller: Decides,
        trainers: Mapping[str, Trainer],
        stages: Sequence[Stage],
        *,
        at_once: int,
        rank: int = 0,
        clock: Callable[[], float] = time.monotonic,
        spent_s: float = 0.0,
        networks: Networks | None = None,
        room: Room | None = None,
    ) -> None:
        self._study, self._controller, self._trainers = study, controller, trainers
        self._stages, self._at_once, self._rank = stages, at_once, rank
        self._has_stages = study.tune.unit != "round"
        self._has_rungs = not self._has_stages and study.tune.population is None
        self._networks = None if study.tune.population is None else networks
        self._clock = clock
        self._higher = METRICS[study.metric].higher_is_better
        self._passing = passing_of(study)  # for its rungs; who passes is not decided here
        self._network = threading.Lock()
        self._row_bytes = room.row_bytes if room else {}
        ways = max(WAYS, len(study.candidates)) * len(stages)
        self._bins = SharedBins(ways, room.bins_bytes if room else math.inf)
        self._begun_s = clock() - spent_s
        self._stops = False
        self._failure: BaseException | None = None
        self._live: dict[int, Running] = {}

    def run(self, tell: Callable[[], None] = lambda: None) -> None:
        """Make trials until there is no other.

        Args:
            tell: called a few times a second, and at the end.

        Raises:
            ArclightError: a trial's end could not be written, or what no trial would survive.
            LostWorkerError: a trial does not come back; it has failed, and this process should
                end, since nothing else ends a call into a library.
        """
        threads = [
            threading.Thread(target=self._work, name=f"trial-{place}", daemon=True)
            for place in range(self._at_once)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(TOLD_EVERY_S)
                    self._end_hung()
                    self._give_up()
                    tell()
        except LostWorkerError:
            raise  # one of the threads is waited for in vain
        except BaseException:
            self._stop()  # after the round that each is in
            for thread in (one for one in threads if one.ident is not None):
                thread.join()
            raise
        if self._failure is not None:
            raise self._failure
        tell()

    # threads

    def _work(self) -> None:
        """Make one trial after another."""
        mine: Running | None = None
        try:
            while not self._is_over() and (asked := self._controller.next(self._rank)) is not None:
                mine = self._live[asked[0]] = Running(*asked, self._clock())
                trial = self._make(mine)
                if self._live.pop(mine.number, None) is None:
                    return  # it was given up, and this thread with it
                if trial is None or self._stops:
                    self._controller.leave(mine.number, self._rank)
                else:
                    self._controller.end(trial)
                mine = None
        except BaseException as error:  # noqa: BLE001 -- raised again by `run`
            self._failure = self._failure or error
            self._stop()
            with contextlib.suppress(ArclightError):
                if mine is not None and not isinstance(error, LostWorkerError):
                    self._controller.leave(mine.number, self._rank)  # it is not to blame
            if mine is not None:
                self._live.pop(mine.number, None)

    def _give_up(self) -> None:
        """Leave the trial that cost this process its memory, once the others are left.

        Until then threads may wait for their turn behind it.
        """
        if isinstance(self._failure, LostWorkerError) and not self._live:
            self._controller.lost(self._rank, f"it {NO_MEMORY}")

    def _end_hung(self) -> None:
        """Give up a trial that is long past its limit in one and the same round."""
        limit = self._study.tune.trial_limit_s
        if limit is None:
            return
        now = self._clock()
        for mine in list(self._live.values()):
            if now - max(mine.begun_s + limit, mine.heard_s) > HUNG_S:  # of one that has begun
                if self._live.pop(mine.number, None) is None:
                    continue  # it came back just now
                self._stop()
                waited = max(limit, mine.heard_s - mine.begun_s) + HUNG_S
                reason = f"did not come back from round {mine.rounds + 1:,} in {waited:,.0f} s"
                self._controller.end(
                    Trial(
                        number=mine.number,
                        params=mine.params,
                        state="failed",
                        reason=reason,
                        rounds=mine.rounds,
                        host=self._rank,
                    )
                )
                for other in list(self._live):
                    self._controller.leave(other, self._rank)  # it is not to blame
                raise LostWorkerError(f"Trial {mine.number} {reason}.")

    def _stop(self) -> None:
        self._stops = True
        self._bins.stop()

    def _make(self, mine: Running) -> Trial | None:
        """Train one trial; what is wrong with its parameters is its own end, None an interrupt.

        Raises:
            IntegrityError, OSError: what no other trial would fare better with.
            LostWorkerError: memory ran out; another process goes on, without others beside the
                trial if that does not help.
        """
        name, own = trained_by(self._study.train, self._study.tune, mine.params)
        one, found = self._study.candidates[name], Fitted(b"", 0, math.nan, {}, 0)
        if not self._knows_leg(mine):
            return None
        for place, stage in self._stages_of(mine, name):
            job = self._job(mine, name, {**one.params, **own}, stage)
            try:
                fitted = self._fit(mine, name, place, job)
                if fitted is None:
                    return None
                found = fitted
                begun = self._clock()
                mine.others.append(other_figures(self._study.tune.also, fitted, name, stage))
                mine.judged(self._clock() - begun)
                self._pass(mine, name, place, found.valid)
            except _StoppedError:
                if not self._has_rungs and self._is_late():
                    return None  # another command may go on with it; half of it is no figure
                return self._ended(mine, state="stopped", reason=mine.reason)
            except Exception as error:  # noqa: BLE001 -- raised again, or the trial's own end
                return self._failed(mine, error)
        value = mine.points[-1][1] if self._has_stages else found.valid
        return self._ended(
            mine,
            state="complete",
            value=value,
            best_round=found.rounds,
            others=self._others(mine),
        )

    def _failed(self, mine: Running, error: Exception) -> Trial:
        """Return the end of a trial that raised, unless no other would fare better.

        Raises:
            IntegrityError, OSError, LostWorkerError: see `_make`.
        """
        if is_no_memory(error):
            raise LostWorkerError(f"Trial {mine.number} {NO_MEMORY}.") from None
        if isinstance(error, IntegrityError | OSError):
            raise error
        return self._ended(mine, state="failed", reason=_reason(error))

    def _knows_leg(self, mine: Running) -> bool:
        """Ask what a trial of a population trains; False: this host was given up meanwhile."""
        if self._networks is not None:
            mine.leg = self._controller.leg(mine.number)
        return self._networks is None or mine.leg is not None

    def _stages_of(self, mine: Running, name: str) -> list[tuple[int, Stage]]:
        """Return the places and stages of a trial: of row groups those where somebody looks."""
        every = list(enumerate(self._stages))
        if self._study.tune.fidelity != "rows":
            return every
        rungs = self._passing[name].rungs(mine.number)
        return [one for one in every if one[1].height in rungs or one == every[-1]]

    def _others(self, mine: Running) -> dict[str, float]:
        """Return the other figures of a trial: means of its folds, or those of its last stage."""
        counted = mine.others if self._study.tune.folds else mine.others[-1:]
        names = [n for n in self._study.tune.also if all(n in one for one in counted)]
        return {n: sum(one[n] for one in counted) / len(counted) for n in names}

    def _fit(self, mine: Running, name: str, place: int, job: TrainJob) -> Fitted | None:
        """Train one stage of a trial; None: the search was over before its turn came."""
        if self._is_over():
            return None
        trainer = self._trainers[name]
        key = (name, place, *trainer.bin_key(job))
        each = self._row_bytes.get(name, 0)
        size = each * self._stages[place].train.rows if each else 0
        try:
            data = self._bins.take(key, lambda: self._binned(mine, trainer, job, place), size)
            if data is None:
                return None
            # networks draw from one generator in a process: one after another
            with self._network if name == "torch" else contextlib.nullcontext():
                if self._is_over():
                    return None
                mine.heard_s = self._clock()
                mine.begun_s = mine.heard_s - mine.spent_s
                mine.before, mine.best = mine.rounds, math.nan
                watch = self._watch(mine, name, job)
                try:
                    if self._networks is None or mine.leg is None:
                        return trainer.fit(data, job, Alone(), watch)
                    found, history = self._networks.go_on(
                        mine.number, mine.leg, trainer, data, job, watch
                    )
                    mine.rounds = len(history)
                    mine.points.append((mine.leg.ends, history[-1]))
                    return found
                finally:
                    mine.spent_s = self._clock() - mine.begun_s + mine.again_s
                    mine.begun_s = math.nan
        finally:
            self._bins.let_go(key)

    def _pass(self, mine: Running, name: str, place: int, value: float) -> None:
        """Note the figure of one of several stages, and end a trial that does not pass it."""
        if not self._has_stages:
            return
        mine.values.append(value)
        height = self._stages[place].height
        figure = sum(mine.values) / len(mine.values) if self._study.tune.folds else value
        mine.points.append((height, figure))
        is_rung = height in self._passing[name].rungs(mine.number)
        is_last = place + 1 == len(self._stages)
        if is_rung and not is_last and not self._controller.passes(mine.number, height, figure):
            mine.reason = self._not_among(height)
            raise _StoppedError

    def _not_among(self, height: int) -> str:
        unit = self._study.tune.unit
        return f"not among the best after {height:,} {unit}{'s' * (height != 1)}"

    def _ended(self, mine: Running, **how: Any) -> Trial:
        points = tuple(mine.points)
        if how["state"] == "stopped" and points and self._has_rungs:
            how["value"] = points[-1][1]
        return Trial(
            number=mine.number,
            params=mine.params,
            rounds=mine.rounds,
            points=points,
            parent=None if mine.leg is None else mine.leg.parent,
            host=self._rank,
            queue_s=self._clock() - mine.asked_s - mine.bin_s - mine.spent_s,
            bin_s=mine.bin_s,
            train_s=mine.spent_s,
            judge_s=mine.spent.judge_s,
            **how,
        )

    def _job(self, mine: Running, name: str, params: dict[str, Param], stage: Stage) -> TrainJob:
        """Return what one stage of a trial trains."""
        job = replace(stage.job, params=params, spent=mine.spent)
        if mine.leg is not None:
            both = {**params, **mine.leg.params}
            job = replace(job, params=both, params_after=mine.leg.params_after)
        rounds = self._study.candidates[name].rounds or job.rounds
        if job.early_stopping is not None or name == "torch":
            return replace(job, rounds=rounds)  # each round is looked at
        rungs = self._passing[name].rungs(mine.number) if self._has_rungs else ()
        mine.asked = {1, *rungs, rounds}
        return replace(job, rounds=rounds, judged=mine.asked)

    def _watch(self, mine: Running, trainer: str, job: TrainJob) -> Watch:
        rungs = self._passing[trainer].rungs(mine.number) if self._has_rungs else ()

        def watch(
            history: Sequence[float],
            model: Callable[[], bytes] | None,  # noqa: ARG001 -- the protocol's
        ) -> bool:
            mine.rounds, mine.heard_s = mine.before + len(history), self._clock()
            last = history[-1]
            if not math.isfinite(last):
                return True  # the trainer says what became of it
            # without early stopping the last round is what a model would be
            is_better = not mine.best > last if self._higher else not mine.best < last
            if job.early_stopping is None or is_better:
                mine.best = last
            best = mine.best
            is_rung = mine.rounds in rungs
            if is_rung and not self._controller.passes(mine.number, mine.rounds, best):
                mine.reason = self._not_among(mine.rounds)
            mine.reason = mine.reason or self._limit(mine)
            if mine.reason and self._needs_figure(mine, job):
                mine.asked.add(mine.rounds + 1)  # it ends there
                mine.reason = ""
                return True
            if self._has_rungs and (is_rung or mine.reason):
                mine.points.append((mine.rounds, best))
            if mine.reason:
                raise _StoppedError  # nobody wants its model
            return True

        return watch

    def _needs_figure(self, mine: Running, job: TrainJob) -> bool:
        """Say whether the round that a trial could end at has no figure, but would count."""
        is_judged = job.judged is None or mine.rounds in job.judged
        return self._has_rungs and not is_judged and not self._stops

    def _limit(self, mine: Running) -> str:
        """Return the limit that a trial ends at now; nothing where it may go on."""
        tune, leg = self._study.tune, mine.leg
        if leg is not None and mine.rounds <= leg.begins:
            # what was there before, and is trained again, is none of its own time
            now = self._clock()
            mine.again_s, mine.begun_s = mine.again_s + now - mine.begun_s, now
        if self._stops:
            return "interrupted"
        if self._is_late():
            return f"the search's {tune.time_limit_s:,} s are over"
        spent = self._clock() - mine.begun_s
        if tune.trial_limit_s is not None and spent >= tune.trial_limit_s:
            return f"a trial's {tune.trial_limit_s:,} s are over"
        return ""

    def _is_over(self) -> bool:
        return self._stops or self._is_late()

    def _is_late(self) -> bool:
        limit = self._study.tune.time_limit_s
        return limit is not None and self._clock() - self._begun_s >= limit

    def _binned(self, mine: Running, trainer: Trainer, job: TrainJob, place: int) -> Any:
        """Return the rows of a stage as the trainer takes them; None: it is too late for that."""
        if self._is_over():
            return None  # while others were binned
        begun, stage = self._clock(), self._stages[place]
        # the others wait for it: it has all threads
        wide = replace(job, threads=job.threads * self._at_once)
        binned = trainer.prepare(stage.train, stage.judge, wide, Alone())
        mine.bin_s += self._clock() - begun
        return binned


def _reason(error: Exception) -> str:
    told = error.message if isinstance(error, ArclightError) else printable(error)
    return told or type(error).__name__
