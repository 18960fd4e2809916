"""An executor is killed while it writes: the rows are those of a run that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pytest

from arclight.store import open_store
from tests.spark.etl_case import make_case, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

ROWS = 400_000  # over 1 MiB, so that the pass has four tasks: two waves on two executors
DEADLINE_S = 120
EXECUTOR = "CoarseGrainedExecutorBackend"


@contextmanager
def builder(folder: Path, *words: str) -> Iterator[psutil.Popen]:
    with (folder / "err").open("w") as err:
        process = psutil.Popen(
            [sys.executable, "-m", "tests.spark.local_cluster", *words],
            stdout=subprocess.PIPE, stderr=err, text=True,
        )  # fmt: skip
        seen = [process]
        try:
            yield process
        finally:
            if process.is_running():
                with suppress(psutil.NoSuchProcess):
                    seen += process.children(recursive=True)
                for one in seen:
                    with suppress(psutil.NoSuchProcess):
                        one.kill()
                process.communicate(timeout=20)


def writing_executor(process: psutil.Process, staged: Path) -> psutil.Process | None:
    """Return the executor below which a file of the dataset is being written just now."""
    with suppress(psutil.Error):
        for one in process.children(recursive=True):
            if any(file.path.startswith(str(staged)) for file in one.open_files()):
                above = [p for p in one.parents() if EXECUTOR in " ".join(p.cmdline())]
                return above[0] if above else None
    return None


def test_e15_a_killed_executor_changes_nothing(session: SparkSession, tmp_path: Path) -> None:
    noise = pa.array([(i * 2654435761) % 1000003 / 7 for i in range(ROWS)])
    case = make_case(tmp_path, rows(ROWS, x=noise))
    undisturbed = case.build(session)
    store = open_store(tmp_path / "killed").root
    with builder(tmp_path, str(case.spec_file()), str(store), str(tmp_path)) as process:
        deadline = time.monotonic() + DEADLINE_S
        victim = None
        while victim is None and process.poll() is None and time.monotonic() < deadline:
            victim = writing_executor(process, store)
        assert victim is not None, (tmp_path / "err").read_text()
        victim.kill()
        victim.wait(timeout=20)
        assert not victim.is_running()
        digest, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, (tmp_path / "err").read_text()
    log = (tmp_path / "spark.log").read_text()
    assert "Lost executor" in log
    assert "Lost task" in log
    assert digest == undisturbed.content_digest
