"""One race: contenders in turn, forwards and backwards, quality first, then the ratio's bound."""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.contender import Contender, ContenderError, Running
from benchmarks.machine import QUIET_LOAD
from benchmarks.proctree import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

RESAMPLES = 10_000
AWAKE_S = 2.0
Facts = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Whether a contender's result may be compared at all, and what was seen."""

    holds: bool
    seen: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours against one peer; ratios are theirs / ours, more than 1 when ours is faster.

    Attributes:
        target: the ratio whose 95% lower bound passes; None compares without a target.
        floor: the ratio that blocks a release.
        quick: whether `--quick` has the time for it.
    """

    ours: str
    peer: str
    target: float | None = None
    floor: float | None = None
    quick: bool = True


@dataclass(frozen=True, kw_only=True)
class Race:
    """Contenders that do the same job on the same files.

    Attributes:
        metric: what the seconds are of, engine and cache state included.
        judge: compares our facts with a peer's: the quality gate.
        about: what every line of the race carries, such as rows and the data's digest.
    """

    name: str
    metric: str
    contenders: tuple[Contender, ...]
    comparisons: tuple[Comparison, ...]
    judge: Callable[[Facts, Facts], Verdict]
    about: dict[str, Any]

    def for_quick(self) -> Race:
        """Return the race with what has a target and is not slow, and without who is in none."""
        kept = tuple(c for c in self.comparisons if c.target is not None and c.quick)
        names = {name for c in kept for name in (c.ours, c.peer)}
        contenders = tuple(c for c in self.contenders if c.name in names)
        return replace(self, contenders=contenders, comparisons=kept)


@dataclass
class Timings:
    """What the rounds of one contender took."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    others_cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    facts: Facts | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How a race is run, and what the machine was like when it began.

    Attributes:
        rounds: at most; all contenders do equally many, at least one.
        end: the monotonic time that a round must not be expected to pass, None without a limit.
    """

    cores: Sequence[int]
    rounds: int
    end: float | None = None
    size: str
    bandwidth: float
    load: float
    hardware: dict[str, Any]
    versions: dict[str, str]


def rounds_of(
    contenders: Sequence[str], rounds: int, end: float | None = None
) -> Iterator[list[tuple[int, str]]]:
    """Yield the turns of each round: A B C, then C B A, and so on, so that every pair goes ABBA.

    A round that would pass `end`, as long as the last one took, is not begun.
    """
    last = 0.0
    for number in range(1, rounds + 1):
        begin = time.monotonic()
        if number > 1 and end is not None and begin + last > end:
            return
        yield [(number, name) for name in contenders[:: 1 if number % 2 else -1]]
        last = time.monotonic() - begin


def lower_bound(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the bootstrap 95% lower bound of median(theirs) / median(ours).

    Rounds are drawn, each with what both sides took: a round is the same work for both, with the
    same seed and at nearly the same time, and the next one may be several times as much.
    """
    draw = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    mine, other = (np.median(np.asarray(side)[draw], axis=1) for side in (ours, theirs))
    return float(np.quantile(other / mine, 0.05))


def run_race(race: Race, conditions: Conditions, folder: Path) -> list[dict[str, Any]]:
    """Run a race and return one line per comparison."""
    _say(f"race {race.name}: {race.metric}")
    found = {contender.name: Timings() for contender in race.contenders}
    with ExitStack() as stack:
        running = _start(race, conditions, folder, found, stack)
        with Meter([process.pid for process in running.values()]) as meter:
            _warm_up(running, found, meter)
            for turn in rounds_of(list(running), conditions.rounds, conditions.end):
                for number, name in turn:
                    most = running[name].contender.rounds
                    if most is None or number <= most:
                        _round(number, running[name], found[name], meter)
            for name, process in running.items():
                _ask_facts(process, found[name])
    lines = [_line(race, one, found, conditions) for one in race.comparisons]
    for line in lines:
        _say(_sentence(line))
    return lines


def _start(
    race: Race,
    conditions: Conditions,
    folder: Path,
    found: dict[str, Timings],
    stack: ExitStack,
) -> dict[str, Running]:
    running = {}
    for contender in race.contenders:
        _say(f"  {contender.name}: starting")
        log = folder / f"{race.name}-{contender.name}.log"
        try:
            process = stack.enter_context(Running(contender, conditions.cores, log))
        except ContenderError as error:
            _fail(contender.name, found[contender.name], error)
        else:
            running[contender.name] = process
            process.sleep()
    return running


def _warm_up(running: dict[str, Running], found: dict[str, Timings], meter: Meter) -> None:
    """Let each do the job once, untimed; one that fails here does not race."""
    for name, process in list(running.items()):
        _round(0, process, found[name], meter)


def _round(number: int, process: Running, timings: Timings, meter: Meter) -> None:
    if timings.error is not None:
        return
    name = process.contender.name
    os.sync()  # what one has written must not be flushed on the other's time
    with _awake(process):
        begun = meter.start()
        try:
            seconds = process.run(number)
        except ContenderError as error:
            _fail(name, timings, error)
            return
        cpu_s, others, peak = meter.stop(begun, process.pid)
    _say(f"  {name}: {'warm-up' if number == 0 else f'round {number}'} {seconds:.2f} s")
    if number == 0:
        return
    timings.seconds.append(seconds)
    timings.cpu_s.append(cpu_s)
    timings.others_cpu_s.append(others)
    timings.peak_bytes = max(timings.peak_bytes, peak)


def _ask_facts(process: Running, timings: Timings) -> None:
    if timings.error is not None:
        return
    with _awake(process):
        try:
            timings.facts = process.facts()
        except ContenderError as error:
            _fail(process.contender.name, timings, error)


@contextmanager
def _awake(process: Running) -> Iterator[None]:
    """Wake a contender for a block; before it, it has time for what it had missed."""
    process.wake()
    if process.contender.sleeps:
        time.sleep(AWAKE_S)
    try:
        yield
    finally:
        process.sleep()


def _fail(name: str, timings: Timings, error: ContenderError) -> None:
    timings.error = str(error)
    _say(f"  {name}: FAILED: {error}")


def _line(
    race: Race, compared: Comparison, found: dict[str, Timings], conditions: Conditions
) -> dict[str, Any]:
    """Return one comparison as the JSON line that is printed."""
    ours, theirs = found[compared.ours], found[compared.peer]
    verdict = _judge(race, ours, theirs)
    # in rounds that one of them did not do, the machine may have been another
    both = min(len(ours.seconds), len(theirs.seconds))
    mine, other = (side.seconds[: both or None] for side in (ours, theirs))
    ratio = lower = None
    if verdict is not None:
        ratio = statistics.median(other) / statistics.median(mine)
        lower = lower_bound(mine, other)
    return {
        "race": race.name,
        "metric": race.metric,
        "ours": _median(mine),
        "peer": compared.peer,
        "theirs": _median(other),
        "ratio": _rounded(ratio),
        "target": _rounded(compared.target),
        "pass": _passes(lower, compared.target, verdict),
        "lane": compared.ours,
        "lower95": _rounded(lower),
        "floor": compared.floor,
        "floor_pass": _passes(lower, compared.floor, verdict),
        "quality": None if verdict is None else {"holds": verdict.holds, "seen": verdict.seen},
        "errors": {
            name: found[name].error
            for name in (compared.ours, compared.peer)
            if found[name].error is not None
        },
        "rounds": max(len(ours.seconds), len(theirs.seconds)),
        "rounds_of_both": both,
        "size": conditions.size,
        "seconds": {"ours": _all(ours.seconds), "theirs": _all(theirs.seconds)},
        "cpu_s": {"ours": _median(ours.cpu_s), "theirs": _median(theirs.cpu_s)},
        "rss_mib": {"ours": ours.peak_bytes >> 20, "theirs": theirs.peak_bytes >> 20},
        "idle_contenders_cpu_s": {
            "ours": _median(ours.others_cpu_s),
            "theirs": _median(theirs.others_cpu_s),
        },
        **race.about,
        "notes": {
            c.name: c.note for c in race.contenders if c.name in (compared.ours, compared.peer)
        },
        "cores": list(conditions.cores),
        "threads": len(conditions.cores),
        "copy_gib_s": round(conditions.bandwidth, 2),
        "load_1m": round(conditions.load, 2),
        "quiet": conditions.load <= QUIET_LOAD,
        "hardware": conditions.hardware,
        "versions": conditions.versions,
    }


def _judge(race: Race, ours: Timings, theirs: Timings) -> Verdict | None:
    """Return the quality gate's verdict, None where one side gave no result."""
    if ours.facts is None or theirs.facts is None:
        return None
    return race.judge(ours.facts, theirs.facts)


def _passes(lower: float | None, target: float | None, verdict: Verdict | None) -> bool | None:
    """Return whether a target is met; a side that failed or a wrong result never meets one."""
    if target is None:
        return None
    return lower is not None and verdict is not None and verdict.holds and lower >= target


def _sentence(line: dict[str, Any]) -> str:
    if line["errors"]:
        failed = "; ".join(f"{name}: {error}" for name, error in line["errors"].items())
        return f"  {line['lane']} against {line['peer']}: no figure, {failed}"
    wish = "" if line["target"] is None else f", target {line['target']:g}"
    result = {None: "", True: ": met", False: ": MISSED"}[line["pass"]]
    quality = line["quality"]
    if not quality["holds"]:
        result += f"; QUALITY GATE FAILED: {quality['seen']}"
    return (
        f"  {line['lane']} {line['ours']:.2f} s, {line['peer']} {line['theirs']:.2f} s: ratio "
        f"{line['ratio']:.2f} (95% lower bound {line['lower95']:.2f}){wish}{result}"
    )


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 4) if values else None


def _all(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
