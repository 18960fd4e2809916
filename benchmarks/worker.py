"""A contender's process: opens its side, then answers one line of JSON per line of JSON.

`python -m benchmarks.worker` reads `{"module", "params", "cores"}`, answers `ready`, then does one
round per request. What libraries print goes to standard error; answers have their own pipe.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import TextIO

_SUBREAPER = 36


class Side(Protocol):
    """A contender with its engine up."""

    def ready(self, number: int) -> None:
        """Make room for a round, such as by removing what the last one wrote; untimed."""

    def run(self, number: int) -> Any:
        """Do the race's job once; round 0 is the warm-up. This call is what is timed."""

    def facts(self, result: Any) -> dict[str, Any]:
        """Return what the quality gate compares; untimed, called for the last round only."""


def main() -> None:
    """Serve one contender until its input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, order["cores"])
    # a process that lost its parent stays in this tree and is counted
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        module = importlib.import_module(order["module"])
        opened: AbstractContextManager[Side] = module.open_side(order["params"])
        with opened as side:
            _answer(answers, {"ready": True})
            _serve(side, answers)
    except Exception as error:  # noqa: BLE001 -- the boundary of a process
        traceback.print_exc()
        _answer(answers, {"error": _sentence(error)})
        sys.exit(1)


def _serve(side: Side, answers: TextIO) -> None:
    result: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "facts":
            _answer(answers, {"facts": side.facts(result)})
            continue
        number, result = int(request["number"]), None
        side.ready(number)
        gc.collect()
        start = time.perf_counter()
        result = side.run(number)
        _answer(answers, {"seconds": time.perf_counter() - start})


def _answer(answers: TextIO, body: dict[str, Any]) -> None:
    answers.write(json.dumps(body) + "\n")
    answers.flush()


def _sentence(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"


if __name__ == "__main__":
    main()
