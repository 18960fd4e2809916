"""An executor is killed or held while it writes: the rows are those of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pytest

from arclight.catalog import Catalog
from arclight.store import check_file, open_store
from tests.spark.etl_case import make_case, rows
from tests.spark.held_daemon import HOLD

if TYPE_CHECKING:
    from collections.abc import Iterator

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
            env={**os.environ, HOLD: str(folder / "hold"), "PYTHONPATH": str(Path.cwd())},
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


def noise() -> pa.Array:
    return pa.array([(i * 2654435761) % 1000003 / 7 for i in range(ROWS)])


def writing_executor(process: psutil.Popen, folder: Path) -> psutil.Process:
    """Wait until a worker is held in the middle of a file; return the executor above it."""
    hold = folder / "hold"
    deadline = time.monotonic() + DEADLINE_S
    while not any(hold.iterdir()) and time.monotonic() < deadline:
        assert process.poll() is None, (folder / "err").read_text()
        time.sleep(0.02)
    worker = psutil.Process(int(next(hold.iterdir()).name))
    (executor,) = (one for one in worker.parents() if EXECUTOR in " ".join(one.cmdline()))
    return executor


def test_a_killed_executor_changes_nothing(session: SparkSession, tmp_path: Path) -> None:
    case = make_case(tmp_path, rows(ROWS, x=noise()))
    undisturbed = case.build(session)
    store = open_store(tmp_path / "killed").root
    (tmp_path / "hold").mkdir()
    with builder(tmp_path, str(case.spec_file()), str(store), str(tmp_path)) as process:
        victim = writing_executor(process, tmp_path)
        victim.kill()
        victim.wait(timeout=20)
        rmtree(tmp_path / "hold")
        digest, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, (tmp_path / "err").read_text()
    log = (tmp_path / "spark.log").read_text()
    assert "Lost executor" in log
    assert "Lost task" in log
    assert digest == undisturbed.content_digest


def parts_of_two_attempts(staged: Path) -> set[str]:
    """Return the parts of the train split that two attempts of one task have begun."""
    begun = [path.name[: len("part-00000")] for path in staged.rglob("train/part-*.parquet")]
    return {part for part in begun if begun.count(part) > 1}


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_an_executor_that_is_held_while_another_does_its_work_doubles_no_row(
    tmp_path: Path,
) -> None:
    case = make_case(tmp_path, rows(ROWS, x=noise()))
    with builder(tmp_path, str(case.spec_file()), str(tmp_path / "calm"), str(tmp_path)) as calm:
        undisturbed, _ = calm.communicate(timeout=DEADLINE_S)
    store = open_store(tmp_path / "held")
    (tmp_path / "hold").mkdir()
    words = (str(case.spec_file()), str(store.root), str(tmp_path), "impatient")
    with builder(tmp_path, *words) as process:
        victim = writing_executor(process, tmp_path)
        held = [victim, *victim.children(recursive=True)]
        for one in held:
            one.suspend()
        rmtree(tmp_path / "hold")
        deadline = time.monotonic() + DEADLINE_S
        while not parts_of_two_attempts(store.root) and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.02)
        assert parts_of_two_attempts(store.root), "nobody took the work over"
        for one in held:
            with suppress(psutil.NoSuchProcess):
                one.resume()
        digest, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, (tmp_path / "err").read_text()
    assert digest == undisturbed
    catalog = Catalog(store)
    (manifest,) = catalog.datasets("case")
    assert sum(manifest.rows[part] for part in ("train", "valid", "test")) == ROWS
    for file in manifest.files:
        path = catalog.folder(manifest) / file.path
        check_file(path, size_bytes=file.size_bytes, sha256=file.sha256)
