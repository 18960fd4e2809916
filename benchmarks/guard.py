"""Wakes a contender that sleeps when the harness is gone, so that it ends as it would have.

`python -m benchmarks.guard PID` waits for the end of its input, which the harness holds open.
"""

from __future__ import annotations

import signal
import sys

from benchmarks.proctree import look, tell, tree_of

if __name__ == "__main__":
    sys.stdin.read()
    tell(tree_of(int(sys.argv[1]), look())[::-1], signal.SIGCONT)
