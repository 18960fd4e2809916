"""`arclight up`, `status`, `submit`, `wait`, `logs` and `down` as typed, on a real head."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from arclight.errors import ConflictError, EngineError, SpecError
from arclight.spec_file import load_spec
from arclight.store import held_file, open_store
from cluster.head_record import HEAD, TOKEN, Head, birth_of
from cluster.profiles import load_profile
from cluster.submit_client import JobServer
from cluster.tokens import create_token
from jobs import up
from jobs.submit import submit_spec
from jobs.up import cluster_folder, status_command, up_command
from tests.jobs import small_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
SPEC = "name: flights\ntask: binary\nsources: {t: {path: none}}\netl: {label: late}\n"


@dataclass
class Shell:
    """A home, a folder with a profile and a spec, and what is typed in it."""

    folder: Path

    def type(self, *words: str, status: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli", *words],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        self.said = done.stderr.strip().splitlines()
        self.out = done.stdout
        return json.loads(done.stdout) if done.stdout.startswith("{") else {}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "small.yaml").write_text("name: small\ncores: 2\nmemory_gib: 3\n")
    (tmp_path / "a.yaml").write_text(SPEC)
    shell = Shell(tmp_path)
    yield shell
    shell.type("down", "--profile", "small.yaml", "--force")


def status(shell: Shell) -> dict[str, Any]:
    return shell.type("status", "--profile", "small.yaml", "--json")


@pytest.mark.ray
def test_a_cluster_comes_up_takes_a_job_and_goes(shell: Shell) -> None:
    assert status(shell) == {"is_up": False}
    up = shell.type("up", "--profile", "small.yaml", "--json")
    assert "up: starting Ray for profile 'small'; this takes about 10 s." in shell.said
    profile = Path(up["profile"])
    head = json.loads((profile.parent / "head.json").read_text())
    tree = psutil.Process(head["pid"]).children(recursive=True)
    assert status(shell) == {"is_up": True, **up}
    for name in ("token", "head.json", "attached.yaml"):
        assert (profile.parent / name).stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{up['jobs_url']}/api/jobs/").status_code == 401  # without its token
    shell.type("up", "--profile", "small.yaml", status=3)
    assert "runs already" in shell.said[-1]

    sent = shell.type("submit", "a.yaml", "--profile", str(profile), "--json")
    assert sent["new"] is True
    assert "--store" not in shell.said[-1]
    assert shell.type("submit", "a.yaml", "--profile", str(profile), "--json")["new"] is False
    # its source does not exist: the job ends as the run would have here
    assert shell.type("wait", sent["job"], "--json", status=2)["state"] == "failed"
    shell.type("logs", sent["job"], "--follow")
    assert "source 't'" in shell.out
    (job,) = shell.type("jobs", "--json")["jobs"]
    assert (job["job"], job["state"]) == (sent["job"], "failed")
    assert shell.type("cancel", sent["job"], "--json")["state"] == "failed"
    (shell.folder / "below").mkdir()
    (shell.folder / "below" / "a.yaml").write_text(SPEC)
    shell.type("submit", "below/a.yaml", "--profile", str(profile))
    for line in shell.said[-1].removeprefix("next: ").split(" \u00b7 ")[:2]:  # as it is printed
        _, command, *words = shlex.split(line)
        shell.type(command, *words, status=2 if command == "wait" else 0)
    shell.type(*shlex.split(shell.said[-1].split("`")[1])[1:])
    assert "source 't'" in shell.out

    assert shell.type("down", "--profile", "small.yaml", "--json") == {"was_up": True, "ended": []}
    assert not [p for p in tree if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert status(shell) == {"is_up": False}
    assert shell.type("down", "--profile", "small.yaml", "--json") == {
        "was_up": False,
        "ended": [],
    }
    assert not profile.exists()


def sleeping_job(shell: Shell, profile: str) -> str:
    """Submit a job that does not end, and return its id once it has begun."""
    store = open_store(shell.folder / ".arclight")
    (shell.folder / "sleeps.yaml").write_text(SPEC.replace("flights", "sleeps"))
    spec = load_spec(shell.folder / "sleeps.yaml")
    place = load_profile(profile)
    job = submit_spec(store, spec, place, entrypoint=small_job.ENTRYPOINT).submission.id
    log = store.path("submissions", job, "job.log")
    until(lambda: log.exists() and "begun" in log.read_text())
    return job


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.fault
def test_a_head_that_was_killed_takes_its_jobs_with_it(shell: Shell) -> None:
    """Ray's own ends of a job are processes of the head, and go with it."""
    up = shell.type("up", "--profile", "small.yaml", "--json")
    job = sleeping_job(shell, up["profile"])
    head = json.loads((Path(up["profile"]).parent / "head.json").read_text())
    mine = [p for p in psutil.process_iter(["environ"]) if job in str(p.info["environ"])]
    assert len(mine) > 1
    psutil.Process(head["pid"]).kill()
    assert shell.type("wait", job, "--json", status=130)["state"] == "failed"
    assert "its cluster ended, and it was ended too" in shell.said[-1]
    _, alive = psutil.wait_procs(mine, timeout=10)
    assert not alive
    shell.type("up", "--profile", "small.yaml")
    shell.type("down", "--profile", "small.yaml")


@pytest.mark.ray
@pytest.mark.fault
def test_down_ends_no_job_in_silence_and_the_store_tells_of_them_afterwards(shell: Shell) -> None:
    up = shell.type("up", "--profile", "small.yaml", "--json")
    store, job = open_store(shell.folder / ".arclight"), sleeping_job(shell, up["profile"])
    shell.type("down", "--profile", "small.yaml", status=3)
    assert f"1 job runs there ({job})" in shell.said[-1]
    assert "`arclight down --profile small.yaml --force`" in shell.said[-1]
    assert status(shell)["is_up"]
    down = shell.type("down", "--profile", "small.yaml", "--force", "--json")
    assert down == {"was_up": True, "ended": [job]}
    assert not status(shell)["is_up"]

    is_down = f"the cluster at {up['jobs_url']} is down"
    (row,) = shell.type("jobs", "--json")["jobs"]
    assert (row["job"], row["state"]) == (job, "cancelled")
    assert is_down in shell.said[-1]
    said = shell.type("wait", job, "--json", status=130)  # by its own record
    assert said["state"] == "cancelled"
    assert is_down in "\n".join(shell.said)
    shell.type("logs", job, "--follow")
    assert shell.out.startswith("begun")
    assert is_down in shell.said[0]
    assert "0600" not in "\n".join(shell.said)

    (ended,) = store.path("submissions", job, "exit").glob("*.json")
    ended.unlink()  # as after a head that was killed: no record, no request
    (store.path("submissions", job, "cancel") / "1.json").unlink()
    (row,) = shell.type("jobs", "--json")["jobs"]
    assert (row["state"], row["reason"][:20]) == ("lost", "its cluster is down,")
    assert shell.type("wait", job, "--json", status=1)["state"] == "lost"
    assert "its cluster is down" in shell.said[-1]


def test_a_head_that_nobody_wrote_a_profile_for_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an `up` that was killed once its head was there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "small.yaml").write_text("name: small\ncores: 2\n")
    place = load_profile(str(tmp_path / "small.yaml"))
    folder = cluster_folder(place)
    folder.mkdir()
    head = Head(
        pid=os.getpid(),
        birth=str(birth_of(os.getpid())),
        address="127.0.0.1:1",
        jobs_url="http://127.0.0.1:2",
        temp_folder="/nowhere",
    )
    (folder / HEAD).write_text(head.to_json())
    (folder / TOKEN).touch(mode=0o600)
    status_command(profile=str(tmp_path / "small.yaml"), as_json=True)
    profile = json.loads(capsys.readouterr().out)["profile"]
    assert load_profile(profile).ray.jobs_url == head.jobs_url
    assert load_profile(profile).cores == 2
    Path(profile).unlink()
    with pytest.raises(ConflictError, match="runs already"):
        up_command(profile=str(tmp_path / "small.yaml"), as_json=True)
    assert "starting" not in capsys.readouterr().err  # what it will not do
    assert load_profile(profile).ray.jobs_url == head.jobs_url


def test_the_status_of_a_head_elsewhere_names_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cluster_folder(load_profile("local"))
    folder.mkdir()
    head = Head(
        pid=1, birth="x", address="a", jobs_url="http://x", temp_folder="/nowhere", host="login-2"
    )
    (folder / HEAD).write_text(head.to_json())
    with held_file(folder / HEAD):
        status_command(profile="local", as_json=True)
    said = {"is_up": True, "jobs_url": "http://x", "host": "login-2"}
    assert json.loads(capsys.readouterr().out) == said
    assert list(folder.iterdir()) == [folder / HEAD]


def test_a_cluster_that_somebody_else_runs_is_asked_and_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    create_token(tmp_path / "team.token")
    profile = tmp_path / "team.yaml"
    profile.write_text("ray: {jobs_url: 'http://127.0.0.1:9', token_path: team.token}\n")
    monkeypatch.setattr(up, "start_head", lambda *_, **__: pytest.fail("a second one was started"))
    with pytest.raises(SpecError, match=r"'team' leads to a cluster that is there already"):
        up_command(profile=str(profile), as_json=True)
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        status_command(profile=str(profile), as_json=True)
    monkeypatch.setattr(JobServer, "running", lambda _: ())
    status_command(profile=str(profile), as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"is_up": True, "jobs_url": "http://127.0.0.1:9"}
    assert "which `arclight up` did not start here; 0 jobs run there." in said.err


@pytest.mark.parametrize("command", ["up", "down", "status"])
@pytest.mark.parametrize(
    ("profile", "text"),
    [("smal", "profile 'smal' must be one of local"), ("none.yaml", "does not exist"),
     ("bad.yaml", "'corse' is not a field of a profile. Did you mean 'cores'?")],
)  # fmt: skip
def test_a_wrong_profile(tmp_path: Path, command: str, profile: str, text: str) -> None:
    (tmp_path / "bad.yaml").write_text("corse: 2\n")
    shell = Shell(tmp_path)
    shell.type(command, "--profile", profile, status=2)
    assert text in shell.said[-1]
    assert not (tmp_path / ".arclight").exists()
