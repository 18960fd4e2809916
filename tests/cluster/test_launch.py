"""A head is started once, found by its folder, and stopped by its process id alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from arclight.errors import ConflictError, EngineError, RefusedError
from arclight.store import held, held_file, is_held
from cluster import launch
from cluster.head_record import (
    HEAD,
    LOG,
    PROFILE,
    REQUEST,
    TOKEN,
    Head,
    HeadRequest,
    birth_of,
    find_head,
    head_elsewhere,
    is_gone,
)
from cluster.launch import start_head, stop_head
from cluster.profiles import Profile
from cluster.submit_client import JobServer

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = Profile(name="small", cores=1, memory_gib=2.0)


def record(folder: Path, pid: int, birth: str | None) -> Head:
    head = Head(
        pid=pid,
        birth=str(birth),
        address="127.0.0.1:1",
        jobs_url="http://x",
        temp_folder="/nowhere",
    )
    (folder / HEAD).write_text(head.to_json())
    return head


def test_a_record_of_a_process_that_is_gone_is_no_head(tmp_path: Path) -> None:
    assert find_head(tmp_path) is None
    record(tmp_path, 2**22 - 1, "")
    assert find_head(tmp_path) is None


def test_a_reused_process_id_is_never_ended(tmp_path: Path) -> None:
    record(tmp_path, os.getpid(), birth_of(1))
    assert find_head(tmp_path) is None
    assert not stop_head(tmp_path)
    assert not (tmp_path / HEAD).exists()


def test_a_head_that_has_ended_is_told_from_one_that_was_never_here(tmp_path: Path) -> None:
    assert not is_gone(tmp_path, "http://x")  # the folder of somebody's token
    (tmp_path / LOG).touch()
    assert is_gone(tmp_path, "http://x")
    record(tmp_path, os.getpid(), birth_of(os.getpid()))
    assert not is_gone(tmp_path, "http://x")
    assert is_gone(tmp_path, "http://127.0.0.1:1")  # of the one before
    for proxy in ("https://localhost:1", "https://ray.example.org", "http://localhost:1"):
        assert not is_gone(tmp_path, proxy)


def test_what_a_start_that_was_killed_left_goes(tmp_path: Path) -> None:
    temporary = tmp_path / "arc.h123"
    (temporary / "r").mkdir(parents=True)
    request = HeadRequest(
        cores=1, object_store_bytes=1, dashboard_port=1, temp_folder=str(temporary / "r")
    )
    (tmp_path / REQUEST).write_text(request.to_json())
    assert not stop_head(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_head_on_another_machine_or_in_another_container_is_left_alone(tmp_path: Path) -> None:
    """It holds its record; its process is not to be seen from here."""
    head = record(tmp_path, os.getpid(), "another boot").model_copy(update={"host": "login-2"})
    (tmp_path / HEAD).write_text(head.to_json())
    for name in (TOKEN, LOG, PROFILE):
        (tmp_path / name).touch(mode=0o600)
    before = sorted(tmp_path.iterdir())
    server = JobServer("http://x", tmp_path / TOKEN)
    with held_file(tmp_path / HEAD):
        assert find_head(tmp_path) is None
        assert head_elsewhere(tmp_path) == head
        assert not is_gone(tmp_path, "http://x")
        for change in (lambda: start_head(SMALL, tmp_path), lambda: stop_head(tmp_path)):
            with pytest.raises(ConflictError, match=r"where it runs, on 'login-2'.* or remove"):
                change()
        with pytest.raises(EngineError, match="answers only on 'login-2'"):
            server.hint("a")
    assert sorted(tmp_path.iterdir()) == before
    assert head_elsewhere(tmp_path) is None  # it has ended: nobody holds its record
    assert server.hint("a") == "GONE"
    assert not stop_head(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / LOG]


def test_a_second_head_of_a_folder_is_refused(tmp_path: Path) -> None:
    record(tmp_path, os.getpid(), birth_of(os.getpid()))
    with pytest.raises(ConflictError, match=r"runs already.*arclight down"):
        start_head(SMALL, tmp_path)


def test_a_head_of_an_older_release_is_found(tmp_path: Path) -> None:
    head = record(tmp_path, os.getpid(), "")
    for age_s, found in ((0.0, True), (1000.0, False)):
        older = head.model_copy(update={"started": psutil.Process().create_time() - age_s})
        (tmp_path / HEAD).write_text(older.to_json())
        assert (find_head(tmp_path) == older) is found


@pytest.mark.parametrize("change", [lambda folder: start_head(SMALL, folder), stop_head])
def test_a_head_that_another_command_starts_or_ends_is_left_to_it(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Its token, without which it would come up and answer nobody, is there before its record."""
    (tmp_path / TOKEN).touch(mode=0o600)
    with held(tmp_path, alone=True), pytest.raises(ConflictError, match="starts or ends a clus"):
        change(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / TOKEN]


def test_where_no_head_ever_was_there_is_none_to_stop(tmp_path: Path) -> None:
    assert not stop_head(tmp_path / "never")


def test_setting_the_clock_changes_no_birth(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = birth_of(os.getpid())
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)  # which it does change
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert birth_of(os.getpid()) == mine
    assert birth_of(1) != mine


def test_one_that_has_ended_was_not_born(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie from here on
    assert birth_of(child.pid) is None
    child.wait()
    assert birth_of(child.pid) is None


def test_variables_that_run_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_X", "1")
    with pytest.raises(RefusedError, match="RAY_DATA_AUTOLOAD_X"):
        start_head(SMALL, tmp_path)


@pytest.mark.ray
def test_a_head_that_does_not_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_free_port", lambda: 99_999)
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(EngineError, match=r"before it was up .*head\.log"):
        start_head(SMALL, tmp_path)
    assert set(psutil.Process().children(recursive=True)) == before


@pytest.mark.ray
def test_secrets_are_private_whatever_the_umask_and_temporary_files_go_with_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    old = os.umask(0)
    try:
        head = start_head(SMALL, tmp_path / "head")
    finally:
        os.umask(old)
    try:
        assert (tmp_path / "head").stat().st_mode & 0o777 == 0o700
        for name in (TOKEN, LOG, HEAD):
            assert (tmp_path / "head" / name).stat().st_mode & 0o777 == 0o600
        temporary = Path(head.temp_folder).parent
        assert temporary.stat().st_mode & 0o777 == 0o700
        assert list(temporary.glob("pymp-*"))  # of Ray's dashboard, which does not remove them
        assert find_head(tmp_path / "head") == head
        assert is_held(tmp_path / "head" / HEAD)
    finally:
        stop_head(tmp_path / "head")
    assert not psutil.pid_exists(head.pid)
    assert not temporary.exists()


@pytest.mark.ray
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_head_whose_ray_was_killed_ends_and_another_one_starts(
    tmp_path: Path, name: str
) -> None:
    head = start_head(SMALL, tmp_path)
    try:
        children = psutil.Process(head.pid).children(recursive=True)
        next(one for one in children if one.name() == name).kill()
        deadline = time.monotonic() + 60
        while find_head(tmp_path) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert find_head(tmp_path) is None
        assert "ended by itself" in (tmp_path / LOG).read_text()
        psutil.wait_procs(children, timeout=30)
        again = start_head(SMALL, tmp_path)
        assert again.pid != head.pid
        assert not Path(head.temp_folder).parent.exists()
    finally:
        stop_head(tmp_path)
