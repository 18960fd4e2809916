"""T3: a worker that runs out of memory says so, with its rank and the sizes; nothing is left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from arclight.errors import ArclightError, DataError, EngineError, NoMemoryError
from cluster.sizing import Crew
from ray_apps.fit_files import OUTCOME, REQUEST
from ray_apps.memory import begin_peak, memory_named, peak_bytes
from ray_apps.shards import read_shard
from ray_apps.train import fit_request
from tests.ray_apps.make_dataset import make_dataset, make_spec

ROOT = Path(__file__).parents[2]
SPARE_MIB = 300
GREEDY = {
    "xgboost": {"max_bin": 65_536, "max_depth": 14, "min_child_weight": 0},
    "lightgbm": {"num_leaves": 131_072},
    "torch": {"width": 8192, "depth": 64},
}
"""What needs gigabytes once training begins: when all threads are there.

One that fails to start for want of memory says nothing, and whoever started it waits for ever.
"""
CHILD = """
import resource, sys
from pathlib import Path
import psutil
from arclight.errors import ArclightError
from arclight.progress import silent
from ray_apps.fit import run_fit

small, large, spare = sys.argv[1:]
run_fit(Path(small), silent)  # what is imported and started is there before the limit
limit = psutil.Process().memory_info().data + int(spare) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    run_fit(Path(large), silent)
except ArclightError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "torch"])
def test_T3_a_worker_without_memory_says_so_with_rank_and_sizes(name, tmp_path):
    folders = []
    made = make_dataset(tmp_path / "store", rows=(50_000, 100, 100))
    for place, params in enumerate(({}, GREEDY[name])):
        spec = make_spec(trainer=name, rounds=2, early_stopping=None, params=params)
        folder = tmp_path / str(place)
        folder.mkdir()
        request = fit_request(made.catalog, made.manifest, spec, Crew(1, 1))
        (folder / REQUEST).write_text(request.to_json())
        folders.append(str(folder))
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *folders, str(SPARE_MIB)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not (Path(folders[1]) / OUTCOME).exists()
    if name == "lightgbm" and ended.returncode in (-signal.SIGSEGV, -signal.SIGABRT):
        return  # it takes its process with it, which is told as a lost worker
    assert ended.returncode == 1, ended.stderr
    assert re.fullmatch(
        r"NoMemoryError: training worker 1 of 1 ran out of memory: it held \d+\.\d GiB of \d+\.\d "
        r"GiB, for its part of 50,000 rows of 8 features; use more nodes, more memory or fewer "
        r"features\.",
        ended.stderr.strip(),
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        EngineError("LightGBM failed: bad allocation; see the run's log."),
        EngineError("XGBoost failed: bad_malloc: Failed to allocate 8 bytes.; see the run's log."),
    ],
)
def test_what_libraries_say_of_memory_is_known(error, shared):
    with pytest.raises(EngineError, match="worker 1 of 1 ran out of memory"):  # noqa: SIM117
        with memory_named(shared("binary").manifest):
            raise error


def test_the_memory_of_a_gpu_is_told_as_its_own(shared):
    said = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    with pytest.raises(NoMemoryError, match="worker 2 of 3 ran out of its GPU's memory"):  # noqa: SIM117
        with memory_named(shared("binary").manifest, 1, 3):
            raise said


def test_a_file_is_not_to_blame_for_a_thread_that_did_not_start(shared, monkeypatch):
    """Arrow starts threads of its own when it reads, and says why it cannot."""
    made = shared("binary")

    def read(*_: object, **__: object) -> None:
        raise OSError("Failed to launch worker thread: Resource temporarily unavailable")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    home = made.catalog.folder(made.manifest)
    with pytest.raises(NoMemoryError, match="worker 1 of 1 ran out of memory"):  # noqa: SIM117
        with memory_named(made.manifest):
            read_shard(home, made.manifest, "train")


def test_what_another_worker_says_of_its_memory_is_left_to_it(shared):
    """XGBoost's workers agree on one sentence; each knows its own cause."""
    said = EngineError("XGBoost failed: worker 1: Ring allreduce failed; worker 2: std::bad_alloc")
    said.__cause__ = RuntimeError("Ring allreduce failed")
    with pytest.raises(EngineError) as found, memory_named(shared("binary").manifest):
        raise said
    assert found.value is said


def test_the_peak_is_that_of_this_training():
    begin_peak()
    before = peak_bytes()
    whole = np.ones(40_000_000)
    assert peak_bytes() - before > whole.nbytes / 2
    del whole
    begin_peak()
    assert peak_bytes() < before + 100_000_000


def test_other_errors_stay_as_they_are(shared):
    wrong = DataError("clean them in etl.sql.")
    with pytest.raises(ArclightError) as found, memory_named(shared().manifest):
        raise wrong
    assert found.value is wrong
