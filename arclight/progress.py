"""How long work tells how far it is, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable

Tick = Callable[[int, int | None, str], None]
"""Called with what is done, the whole (None when unknown) and a note; must return at once."""


def silent(_done: int, _total: int | None, _note: str) -> None:
    """Watch nothing."""


Tell = Callable[[str], None]
"""Called with a sentence that must not be missed, wherever progress goes."""


def silent_tell(_sentence: str) -> None:
    """Tell nobody."""
