"""What a worker leaves of its progress, and what the command makes of it."""

from __future__ import annotations

import time

from cluster.sizing import Crew
from ray_apps import ray_task
from ray_apps.fit_files import PROGRESS, write_progress


def test_what_a_task_without_a_place_waits_for_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_task, "check_room", lambda _: None)
    told = []
    crew, begun = Crew(1, 4, 0), time.monotonic()
    ray_task._tell_waiting(tmp_path, lambda *said: told.append(said), crew, begun)
    assert not told
    long_ago = begun - ray_task.WAITS_S - 1
    ray_task._tell_waiting(tmp_path, lambda *said: told.append(said), crew, long_ago)
    assert told == [(0, None, "waiting for 4 free cores of the cluster")]
    (tmp_path / ray_task.STARTED).touch()
    ray_task._tell_waiting(tmp_path, lambda *said: told.append(said), crew, long_ago)
    assert len(told) == 1


def test_progress_that_cannot_be_written_or_read_ends_nothing(tmp_path):
    gone = tmp_path / "gone"
    tick = write_progress(gone)
    tick(1, 1, "round 1")
    gone.mkdir()
    (gone / PROGRESS).mkdir()  # reading it fails otherwise than by its absence
    told = []
    ray_task.hand_on(gone, lambda *said: told.append(said))
    assert told == []
