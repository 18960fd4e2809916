"""Whose turn it is on a machine: so many threads make trials, and others wait at a rung.

A booster cannot be put aside and taken up again for nothing: what it knows of each row would be
computed anew. So its thread waits with it, for as long as there is room, and a fresh one has its
turn.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster.machine import usable_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray_apps.shards import Shard

MOST = 16
"""Trials that wait at the same time; those that had to leave begin anew if they go on."""
SHARE = 16
"""And they take no more than this part of the memory there is."""
ROW_BYTES = 48
"""Of a booster beside the bins: scores, gradients, and which leaf a row is in."""
OWN_BYTES = 16 << 20
"""Of a booster for itself: histograms of its leaves."""


class LeftError(Exception):
    """Ends a thread that waited: another one has its turn, and its trial is told already."""


def room_for(train: Shard) -> int:
    """Return how many trials on these rows may wait at the same time."""
    return min(MOST, usable_memory_bytes() // SHARE // (train.rows * ROW_BYTES + OWN_BYTES))


class Turns:
    """Threads that make trials, and those that wait; safe to call from all of them.

    Args:
        work: makes one trial after another; False where a thread that waited goes on in its place.
        at_once: threads that have a turn at the same time.
        most: that may wait.
    """

    def __init__(self, work: Callable[[], bool], at_once: int, most: int) -> None:
        self._work, self._most = work, most
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._at_work = at_once
        self._waiting: dict[int, tuple[int, float]] = {}
        self._woken: set[int] = set()

    def begin(self) -> None:
        """Start all threads that have a turn."""
        for _ in range(self._at_work):
            self._start()

    def are_over(self, wait_s: float) -> bool:
        """Look a while whether nobody has a turn any more."""
        with self._changed:
            return self._changed.wait_for(lambda: self._at_work == 0, wait_s)

    def send_away(self) -> None:
        """End the threads that wait, and let no other one wait."""
        with self._changed:
            self._most = 0
            self._waiting.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end of all threads."""
        self.send_away()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def may_wait(self, number: int, height: int, figure: float) -> bool:
        """Take a place to wait at, if need be that of a trial that is worse, or lower.

        Args:
            number: of the trial.
            height: its rung.
            figure: its figure there, higher is better.
        """
        with self._changed:
            self._waiting[number] = (height, figure)
            if len(self._waiting) > self._most:
                del self._waiting[min(self._waiting, key=lambda n: self._waiting[n])]
                self._changed.notify_all()
            return number in self._waiting

    def wait(self, number: int) -> None:
        """Give this thread's turn to a fresh one and wait, as a trial that has a place.

        Raises:
            LeftError: the trial does not go on, or not in this thread.
        """
        self._start()
        with self._changed:
            self._changed.wait_for(lambda: number in self._woken or number not in self._waiting)
            if number not in self._woken:
                raise LeftError
            self._woken.remove(number)

    def wake(self, number: int) -> bool:
        """Give this thread's turn to a trial that waits; False: it does not wait here."""
        with self._changed:
            if number not in self._waiting:
                return False
            del self._waiting[number]
            self._woken.add(number)
            self._changed.notify_all()
            return True

    def _start(self) -> None:
        name = f"trial-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        with suppress(LeftError):
            if self._work():
                with self._changed:
                    self._at_work -= 1
                    self._changed.notify_all()
