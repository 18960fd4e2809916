"""J7: SIGTERM and Ctrl-C end a command with 130 and leave no process; the same one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.store import open_store
from cluster.signals import kept_signals
from jobs.cli import main
from jobs.runs import read_journal, run_ids
from tests.ray_apps.make_dataset import make_dataset, make_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(400)
START_S = 90


@contextmanager
def typed(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Type a command in a session of its own; nothing of it outlives the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words, "--store", str(folder / "store"), "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for left in [psutil.Process(process.pid)] if process.poll() is None else []:
            for child in left.children(recursive=True):
                child.kill()
            left.kill()
        process.communicate()


def until(is_true: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while not is_true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)


def interrupt(
    process: subprocess.Popen[str], number: int, again_s: tuple[float, ...] = ()
) -> None:
    """Send a signal, and more of it after a while, and see the command end as it must."""
    tree = psutil.Process(process.pid).children(recursive=True)
    assert tree
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    for seconds in again_s:
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("arclight: interrupted; the same command goes on")
    assert not [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def states(folder: Path, step: str) -> list[str]:
    store = open_store(folder / "store")
    (run,) = run_ids(store)
    return [entry.state for entry in read_journal(store, run) if entry.step == step]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "again_s"),
    [
        (signal.SIGINT, (0.3, 0.3)),  # by somebody who is impatient
        pytest.param(signal.SIGTERM, (), marks=pytest.mark.fault),
    ],
)
def test_a_training_is_interrupted_and_goes_on(
    tmp_path: Path, number: int, again_s: tuple[float, ...]
) -> None:
    made = make_dataset(tmp_path / "store")
    spec = make_spec("binary", rounds=3000, early_stopping=None, workers=1)
    (tmp_path / "a.yaml").write_text(
        json.dumps(spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    )
    progress = tmp_path / "store" / "runs"
    with typed(tmp_path, "train", "a.yaml") as it:
        until(lambda: list(progress.glob("*/fit/*/progress*")), it)
        interrupt(it, number, again_s)
    assert states(tmp_path, "train") == ["started", "interrupted"]
    assert not list(progress.glob("*/fit/*"))
    assert list(made.catalog.models(spec.name)) == []
    with typed(tmp_path, "train", "a.yaml") as it:
        out, err = it.communicate(timeout=200)
    assert it.returncode == 0, err
    assert json.loads(out)["model"] == f"{spec.name}@1"
    assert states(tmp_path, "train") == ["started", "interrupted", "started", "done"]


@pytest.mark.spark
@pytest.mark.fault
def test_an_etl_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    late = [(i * 7919) % 10 < 4 for i in range(3000)]
    km = [float(i % 17) for i in range(3000)]
    table = pa.table({"id": range(3000), "km": km, "late": late})
    pq.write_table(table, tmp_path / "data" / "rows.parquet")
    (tmp_path / "a.yaml").write_text(
        "name: late\ntask: binary\nsources: {t: {path: data}}\netl: {key: [id], label: late}\n"
    )
    with typed(tmp_path, "etl", "a.yaml") as it:
        until(lambda: list((tmp_path / "store").glob("datasets/late/data/*")), it)
        interrupt(it, signal.SIGTERM)
    assert states(tmp_path, "etl") == ["started", "interrupted"]
    assert not list((tmp_path / "store").glob("datasets/late/data/*"))
    with typed(tmp_path, "etl", "a.yaml") as it:
        out, err = it.communicate(timeout=200)
    assert it.returncode == 0, err
    assert json.loads(out)["dataset"] == "late@1"


def test_handlers_are_put_back_whoever_takes_them() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with suppress(ValueError), kept_signals():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise ValueError
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_only_waits_is_interrupted(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def wait(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr("jobs.watch.jobs_command", wait)
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "--store", str(tmp_path)])
    os.kill(os.getpid(), number)  # while it ends
    for one, handler in before.items():
        signal.signal(one, handler)
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("arclight: interrupted;")
