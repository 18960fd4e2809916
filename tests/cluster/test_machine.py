from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

from cluster import machine
from cluster.machine import look_at_machine, usable_cores, usable_gpus, usable_memory_bytes

if TYPE_CHECKING:
    from pathlib import Path

TOTAL = psutil.virtual_memory().total
AFFINITY = len(os.sched_getaffinity(0))


def tree(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = root / "cg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return root / "cg", root / "own"


V2 = "0::/a/b\n"
V1 = "4:memory:/a/b\n1:cpu,cpuacct:/a/b\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (V2, {}, AFFINITY),
        (V2, {"a/b/cpu.max": "max 100000"}, AFFINITY),
        (V2, {"a/b/cpu.max": "50000 100000"}, 1),
        (V2, {"a/cpu.max": "100000 100000"}, 1),  # a parent's limit counts
        (V2, {"cpu.max": "100000 100000"}, 1),  # the mount point, when /proc has the host's path
        (V2, {"a/b/cpu.max": "9900000 100000"}, AFFINITY),  # never more than affinity
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "100000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "1"}, AFFINITY),
    ],
)
def test_cores_follow_affinity_and_quota(
    tmp_path: Path, own: str, files: dict[str, str], cores: int
) -> None:
    assert usable_cores(*tree(tmp_path, own, files)) == cores


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        (V2, {}, TOTAL),
        (V2, {"a/b/memory.max": "max"}, TOTAL),
        (V2, {"a/b/memory.max": "1000"}, 1000),
        (V2, {"a/b/memory.max": "1000", "a/memory.max": "900"}, 900),
        (V1, {"memory/a/b/memory.limit_in_bytes": "1000"}, 1000),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, TOTAL),
    ],
)
def test_memory_follows_every_limit_above(
    tmp_path: Path, own: str, files: dict[str, str], limit: int
) -> None:
    assert usable_memory_bytes(*tree(tmp_path, own, files)) == limit


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    machine = look_at_machine(tmp_path / "not" / "yet")
    assert 1 <= machine.cores <= AFFINITY
    assert 0 < machine.memory_bytes <= TOTAL
    assert machine.disk_free_bytes > 0


@pytest.mark.parametrize(
    ("shown", "gpus"),
    [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("0,1", 2), ("0,-1,1", 1), ("0,1,2,3", 2)],
)
def test_gpus_are_those_that_are_there_and_not_hidden(
    tmp_path: Path, shown: str | None, gpus: int
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / name).touch()
    variables = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    assert usable_gpus(tmp_path, variables) == gpus
    assert usable_gpus(tmp_path / "none", variables) == 0


@pytest.mark.parametrize(("probe", "gpus"), [("raise SystemExit(0)", 2), ("import gone", 0)])
def test_a_gpu_whose_driver_does_not_answer_is_none(
    monkeypatch: pytest.MonkeyPatch, probe: str, gpus: int
):
    monkeypatch.setattr(machine, "usable_gpus", lambda: 2)
    monkeypatch.setattr(machine, "_PROBE", probe)
    machine.driver_answers.cache_clear()
    assert look_at_machine().gpus == gpus
    machine.driver_answers.cache_clear()
