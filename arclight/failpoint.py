"""Named places where a test may kill the process: how crash safety is proven, point by point.

Nothing is armed unless the command line does it, and that only under the test flag; `doctor`
reports the flag.
"""

from __future__ import annotations

import os
import signal

FLAG = "ARCLIGHT_TEST"
POINT = "ARCLIGHT_TEST_KILL_AT"

_armed: list[str] = []


def arm(name: str) -> None:
    """Let this process die by SIGKILL when it reaches a point."""
    _armed[:] = [name]


def reach(name: str) -> None:
    """Say that a point is reached; dies here if it is armed."""
    if name in _armed:
        os.kill(os.getpid(), signal.SIGKILL)
