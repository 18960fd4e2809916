"""Rows that were binned once for all trials on a machine that bin alike."""

from __future__ import annotations

import math
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Key = tuple[Any, ...]
"""What bins depend on."""
WAYS = 2
"""Ways to bin that are kept at once, or one a trainer; another takes the place of the oldest."""


class SharedBins:
    """Rows by what their bins depend on; safe to use from several threads.

    Args:
        most: how many ways to bin are kept at once; another takes the place of the oldest that
            nobody uses.
        room: the bytes that all of them may take; more is held by one alone.
    """

    def __init__(self, most: int, room: float = math.inf) -> None:
        self._most, self._room = most, room
        self._sizes: dict[Key, float] = {}
        self._changed = threading.Condition()
        self._binned: dict[Key, Any] = {}
        self._in_use: Counter[Key] = Counter()
        self._stops = False

    def take(self, key: Key, make: Callable[[], Any], size: float = 0) -> Any:
        """Return the rows binned in one way, until `let_go`; None: the search is over.

        Where too many ways to bin are in use it waits.

        Args:
            key: the way.
            make: bins the rows, where nobody did before, or gives None where it is too late;
                everybody else waits meanwhile.
            size: the bytes that they take.
        """
        with self._changed:
            self._sizes[key] = size
            self._changed.wait_for(
                lambda: self._stops or key in self._in_use or self._fits(self._in_use, size)
            )
            self._in_use[key] += 1
            if self._stops:
                return None
            if key not in self._binned:
                for old in [one for one in self._binned if one not in self._in_use]:
                    if not self._fits(self._binned, size):
                        del self._binned[old]
                made = make()
                if made is None:
                    return None
                self._binned[key] = made
            return self._binned[key]

    def let_go(self, key: Key) -> None:
        """Note that a trial uses what it took, or asked for in vain, no more."""
        with self._changed:
            self._in_use[key] -= 1
            if self._in_use[key] <= 0:
                del self._in_use[key]
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._stops = True
            self._changed.notify_all()

    # with the lock held

    def _fits(self, others: Collection[Key], size: float) -> bool:
        """Say whether there is room for another way beside these."""
        taken = sum(self._sizes[one] for one in others)
        return not others or (len(others) < self._most and taken + size <= self._room)
