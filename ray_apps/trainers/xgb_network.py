"""XGBoost's own collective, set up over a gang.

It takes no functions of ours as its network: its workers find each other through a tracker of
its own on the first one.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xgboost.collective import CommunicatorContext
from xgboost.core import XGBoostError
from xgboost.tracker import RabitTracker

from arclight.errors import DataError, DivergedError, EngineError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray_apps.gang import Gang

SILENCE_S = 300
"""How long the library waits for another worker before it gives up."""
READY_S = 0.005
"""What a tracker takes to listen; one that does not yet when it is asked where is asked again only
after a tenth of a second."""


@contextmanager
def network(gang: Gang) -> Iterator[None]:
    """Connect the library's own collective with the other workers' for the length of a block.

    Raises:
        LostError: a worker is gone; the library itself does not say whom it has lost.
        EngineError: the library failed on a worker, with what it says on each.
    """
    if gang.world == 1:
        yield
        return
    trackers: list[RabitTracker] = []

    def start(_: Sequence[bytes]) -> bytes:
        # ranks by task id: they must be ours
        tracker = RabitTracker(n_workers=gang.world, host_ip=gang.host, sortby="task")
        tracker.start()
        trackers.append(tracker)
        time.sleep(READY_S)
        return json.dumps(tracker.worker_args()).encode()

    found = json.loads(gang.agree(b"", start))
    no_figure: DataError | DivergedError | None = None
    try:
        with CommunicatorContext(**found, dmlc_task_id=f"{gang.rank:06d}", dmlc_timeout=SILENCE_S):
            try:
                yield
            except (DataError, DivergedError) as error:
                # which every worker comes to alike: the tracker must be there until all have left
                no_figure = error
        for tracker in trackers:
            tracker.wait_for(timeout=SILENCE_S)
    except XGBoostError as error:
        said = gang.agree(first_line(error).encode(), _each, kind=b"f").decode()
        raise EngineError(f"XGBoost failed: {said}; see the run's log.") from error
    if no_figure is not None:
        raise no_figure


def first_line(error: Exception) -> str:
    """Return what the library says without its stack trace and time stamp."""
    text = str(error).split("Stack trace:", maxsplit=1)[0].strip().splitlines()
    line = re.sub(r"^\[\d\d:\d\d:\d\d\] \S+: ", "", text[0]) if text else type(error).__name__
    return printable(line)


def _each(said: Sequence[bytes]) -> bytes:
    texts = [f"worker {rank}: {text.decode()}" for rank, text in enumerate(said, 1)]
    return "; ".join(texts).encode()
