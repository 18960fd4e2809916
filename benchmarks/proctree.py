"""CPU seconds and resident memory of a process and everything it started, read from /proc."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY_S = 0.25


@dataclass(frozen=True)
class Seen:
    """One process at one moment.

    Attributes:
        start: its start time in ticks, which tells a reused id from the first one.
        own: CPU seconds of its own.
        waited: CPU seconds of the children it has waited for.
    """

    pid: int
    parent: int
    start: int
    own: float
    waited: float
    rss: int


def look() -> dict[int, Seen]:
    """Return every process there is."""
    found = (_read(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return {seen.pid: seen for seen in found if seen is not None}


def _read(pid: int) -> Seen | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    user, system, waited_user, waited_system = (int(f) for f in fields[11:15])
    return Seen(
        pid=pid,
        parent=int(fields[1]),
        start=int(fields[19]),
        own=(user + system) * _TICK_S,
        waited=(waited_user + waited_system) * _TICK_S,
        rss=int(fields[21]) * _PAGE,
    )


def tree_of(root: int, seen: dict[int, Seen]) -> list[Seen]:
    """Return a process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for process in seen.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if pid in seen:
            found.append(seen[pid])
            waiting.extend(children.get(pid, ()))
    return found


class Ledger:
    """CPU seconds of one tree, processes that have ended included.

    Two counts can miss something: what was seen of each process misses the last moments of one
    that ended, what parents waited for misses children that nobody waits for. Neither counts too
    much, so the larger one is nearer the truth.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self._own: dict[tuple[int, int], float] = {}
        self.cpu_s = 0.0
        self.rss = 0

    def note(self, seen: dict[int, Seen]) -> None:
        """Take in one look."""
        tree = tree_of(self.root, seen)
        for process in tree:
            self._own[process.pid, process.start] = process.own
        waited = sum(process.own + process.waited for process in tree)
        self.cpu_s = max(self.cpu_s, waited, sum(self._own.values()))
        self.rss = sum(process.rss for process in tree)


class Meter:
    """Watches trees in a thread: `with meter.measure(root)` gives the figures of a stretch."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._ledgers = {root: Ledger(root) for root in roots}
        self._peaks = dict.fromkeys(roots, 0)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def start(self) -> dict[int, float]:
        """Forget the peaks and return the CPU seconds of every tree so far."""
        self._look()
        with self._lock:
            self._peaks = {root: ledger.rss for root, ledger in self._ledgers.items()}
            return {root: ledger.cpu_s for root, ledger in self._ledgers.items()}

    def stop(self, begun: dict[int, float], root: int) -> tuple[float, float, int]:
        """Return CPU seconds of a tree and of the other trees since `start`, and the tree's peak.

        The peak is of resident bytes summed over processes, so a page two of them share counts
        twice; on both sides of a race alike.
        """
        self._look()
        with self._lock:
            spent = {r: ledger.cpu_s - begun[r] for r, ledger in self._ledgers.items()}
            return spent[root], sum(spent.values()) - spent[root], self._peaks[root]

    def _watch(self) -> None:
        while not self._end.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        seen = look()
        with self._lock:
            for root, ledger in self._ledgers.items():
                ledger.note(seen)
                self._peaks[root] = max(self._peaks[root], ledger.rss)


def tell(processes: Sequence[Seen], number: signal.Signals) -> None:
    """Send a signal to processes; one whose id was reused is left."""
    for process in _alive(processes):
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def end_tree(processes: Sequence[Seen], *, grace_s: float = 10.0) -> None:
    """End processes by their own ids: ask, wait, then kill; one whose id was reused is left."""
    tell(processes, signal.SIGTERM)
    end = time.monotonic() + grace_s
    while _alive(processes) and time.monotonic() < end:
        time.sleep(0.1)
    tell(processes, signal.SIGKILL)


def _alive(processes: Sequence[Seen]) -> list[Seen]:
    now = [(process, _read(process.pid)) for process in processes]
    return [process for process, found in now if found and found.start == process.start]
