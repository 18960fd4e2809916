"""XGBoost's own collective, set up over a gang.

It takes no functions of ours as its network: its workers find each other through a tracker of
its own on the first one.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xgboost.collective import CommunicatorContext
from xgboost.tracker import RabitTracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray_apps.gang import Gang

SILENCE_S = 300
"""How long the library waits for another worker before it gives up."""


@contextmanager
def network(gang: Gang) -> Iterator[None]:
    """Connect the library's own collective with the other workers' for the length of a block."""
    if gang.world == 1:
        yield
        return
    trackers: list[RabitTracker] = []

    def start(_: Sequence[bytes]) -> bytes:
        # ranks by task id: they must be ours
        tracker = RabitTracker(n_workers=gang.world, host_ip=gang.host, sortby="task")
        tracker.start()
        trackers.append(tracker)
        return json.dumps(tracker.worker_args()).encode()

    found = json.loads(gang.agree(b"", start))
    with CommunicatorContext(**found, dmlc_task_id=f"{gang.rank:06d}", dmlc_timeout=SILENCE_S):
        yield
    for tracker in trackers:
        tracker.wait_for()
