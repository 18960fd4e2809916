"""Signal handlers that outlive the start of an engine: how a run ends is ours to order."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def kept_signals() -> Iterator[None]:
    """Put this process's handlers back when the block ends.

    Ray's core takes SIGTERM over below Python once it is up: one would then abort the process
    where it stands, and nothing is put away. A SparkContext takes Ctrl-C over.
    """
    held = {number: signal.getsignal(number) for number in _NUMBERS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in held.items():
                signal.signal(number, handler)
