"""`arclight etl` in processes of their own, for what one process cannot show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.spark.etl_case import Case

DEADLINE_S = 150


@contextmanager
def etl_process(case: Case, store: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command on one core; whatever is left of it at the end is killed."""
    profile = case.folder / "one.yaml"
    profile.write_text("name: one\ncores: 1\nmemory_gib: 2\n")
    words = ["etl", str(case.spec_file()), "--store", str(store), "--profile", str(profile)]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words, "--json"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            for one in (process, *children):
                one.kill()
            psutil.wait_procs(children, timeout=20)
            process.communicate()


def answers(processes: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Return what each process says once it is done, with its messages under `said`."""
    found = []
    for process in processes:
        out, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, said
        found.append({**json.loads(out), "said": said})
    return found
