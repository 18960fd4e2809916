"""How far a Spark job is, for whoever waits."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark import StatusTracker
    from pyspark.sql import SparkSession

    from arclight.progress import Tick

_PERIOD_S = 0.3


@contextmanager
def watched(session: SparkSession, tick: Tick) -> Iterator[None]:
    """Tell a tick how many tasks of the running stage are done, until the block ends."""
    over = threading.Event()
    status = session.sparkContext.statusTracker()
    thread = threading.Thread(target=_watch, args=(status, tick, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(status: StatusTracker, tick: Tick, over: threading.Event) -> None:
    while not over.wait(_PERIOD_S):
        found = [status.getStageInfo(stage) for stage in status.getActiveStageIds()]
        stages = [info for info in found if info is not None]
        if stages:
            last = max(stages, key=lambda info: info.stageId)
            tick(last.numCompletedTasks, last.numTasks, f"stage {last.stageId}")
