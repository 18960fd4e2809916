"""Rows that were binned once for all trials on a machine that bin alike."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Key = tuple[Any, ...]
"""What bins depend on."""
WAYS = 2
"""Ways to bin that are kept at once, or one a trainer; another takes the place of the oldest."""


class SharedBins:
    """Rows by what their bins depend on; safe to use from several threads.

    Args:
        most: how many ways to bin are kept at once; another takes the place of the oldest that
            nobody uses.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._binned: dict[Key, Any] = {}
        self._in_use: Counter[Key] = Counter()
        self._stops = False

    def take(self, key: Key, make: Callable[[], Any]) -> Any:
        """Return the rows binned in one way, until `let_go`; None: the search is stopped.

        Where too many ways to bin are in use it waits.

        Args:
            key: the way.
            make: bins the rows, where nobody did before; everybody else waits meanwhile.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stops or key in self._in_use or len(self._in_use) < self._most
            )
            self._in_use[key] += 1
            if self._stops:
                return None
            if key not in self._binned:
                for old in [one for one in self._binned if one not in self._in_use]:
                    if len(self._binned) >= self._most:
                        del self._binned[old]
                self._binned[key] = make()
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
