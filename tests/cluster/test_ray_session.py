from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import utils as ray_utils

from arclight.errors import MissingError, RefusedError
from arclight.store import held
from cluster.profiles import Profile, RayPlace
from cluster.ray_session import (
    RAY_FOLDER,
    SHORT_TEMP,
    TEMP_PREFIX,
    VARIABLES,
    _keep_logs,
    _sweep,
    ray_session,
    refuse_unsafe_variables,
)
from cluster.tokens import create_token
from tests.full_disk import small_disk

AGENT = "Agent"
DRIVER = """
import os, sys, time
from pathlib import Path
from cluster.profiles import Profile
from cluster.ray_session import ray_session
with ray_session(Profile(name="x", cores=1, memory_gib=2.0), log_folder=Path(sys.argv[1])) as it:
    print(it, os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
    sys.stdin.readline()
print("closed", flush=True)
"""


@pytest.mark.parametrize(
    "name",
    [
        "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
        "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
        "RAY_DATA_WEBDATASET_ALLOW_UNSAFE_DESERIALIZATION",
        "RAY_testing_rpc_failure",
    ],
)
def test_pq9_variables_that_let_data_run_code_are_refused(name: str) -> None:
    with pytest.raises(RefusedError, match=f"'{name}' must be unset"):
        refuse_unsafe_variables({"PATH": "", name: "1"})


def test_harmless_variables_are_not_refused() -> None:
    refuse_unsafe_variables({"RAY_ADDRESS": "x", "PATH": "y", **dict.fromkeys(VARIABLES, "")})


def test_an_attached_cluster_needs_a_closed_token(tmp_path: Path) -> None:
    place = RayPlace(address="127.0.0.1:1", token_path=str(tmp_path / "token"))
    profile = Profile(name="x", ray=place)
    with pytest.raises(MissingError), ray_session(profile, log_folder=tmp_path):
        pass
    create_token(tmp_path / "token").chmod(0o644)
    with pytest.raises(RefusedError, match="chmod 600"), ray_session(profile, log_folder=tmp_path):
        pass


def test_a_long_temporary_folder_is_refused(tmp_path: Path, small_profile: Profile) -> None:
    deep = tmp_path / ("x" * 60)
    engine = ray_session(small_profile, log_folder=tmp_path, temp_folder=deep)
    with pytest.raises(RefusedError, match="at most"), engine:
        pass


def test_logs_that_cannot_be_kept_fail_no_command(tmp_path: Path) -> None:
    """A full disk, or a store that may only be read: what Ray was up for is done by then."""
    logs = tmp_path / "own" / RAY_FOLDER / "session_2026" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("x" * 100_000)
    with small_disk(tmp_path / "disk", size="20m") as disk:
        disk.fill(leave_bytes=4096)
        _keep_logs(tmp_path / "own", disk.folder / "logs")
        disk.freeze()
        _keep_logs(tmp_path / "own", disk.folder / "more")
    _keep_logs(tmp_path / "own", tmp_path / "logs")
    assert (tmp_path / "logs" / "ray" / "raylet.out").stat().st_size == 100_000


@pytest.mark.ray
def test_workers_import_our_packages_and_know_the_cluster(ray_cluster: str) -> None:
    import ray

    @ray.remote
    def look() -> tuple[str, bool, str, str | None]:
        import sys

        import ray_apps
        from cluster.sizing import plan_sizes

        poll = os.environ.get("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S")
        return sys.executable, callable(plan_sizes), ray_apps.__name__, poll

    assert ray.get(look.remote()) == (sys.executable, True, "ray_apps", "0.1")
    assert os.environ["RAY_ADDRESS"] == ray_cluster
    assert ray_cluster.startswith("127.0.0.1:")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_x7_ray_listens_on_loopback_only() -> None:
    listening = 0
    for process in psutil.Process().children(recursive=True):
        for address in listening_addresses(process):
            listening += 1
            assert address in {"127.0.0.1", "::1"}
    assert listening >= 3


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_x9_the_token_is_closed_and_on_no_command_line() -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert os.environ["RAY_AUTH_MODE"] == "token"
    secret = token.read_text()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie has none
            assert secret not in " ".join(process.cmdline())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_rc1_nobody_joins_without_the_token(ray_cluster: str, tmp_path: Path) -> None:
    """Another process joins with the token and is refused with another one."""
    right = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    answers = [join(ray_cluster, path) for path in (right, create_token(tmp_path / "wrong"))]
    assert answers[0] == "joined"
    assert "EngineError: Ray at" in answers[1]


@pytest.mark.ray
@pytest.mark.fault
def test_two_clusters_at_once_and_each_ends_for_good(tmp_path: Path) -> None:
    drivers = [start(tmp_path / name) for name in ("a", "b")]
    try:
        lines = [driver.stdout.readline().split() for driver in drivers if driver.stdout]
        assert lines[0][0] != lines[1][0]
        children = [psutil.Process(driver.pid).children(recursive=True) for driver in drivers]
        for driver in drivers:
            out, err = driver.communicate("\n", timeout=60)
            assert (driver.returncode, out, err) == (0, "closed\n", "")
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
    assert psutil.wait_procs([*children[0], *children[1]], timeout=1)[1] == []
    assert not Path(lines[0][1]).parent.exists()
    assert (tmp_path / "a" / "ray" / "raylet.out").is_file()


@pytest.mark.ray
def test_a_killed_driver_leaves_no_cluster_and_the_next_start_sweeps(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Ray's two agents stay a minute longer, trying to report to a control store that is gone.

    Any start in the same folder for temporary files sweeps: these two have one of their own.
    """
    own = tempfile.TemporaryDirectory(prefix="s-", dir=SHORT_TEMP)
    request.addfinalizer(own.cleanup)
    driver = start(tmp_path, own.name)
    assert driver.stdout is not None
    folder = Path(driver.stdout.readline().split()[1]).parent
    assert folder.parent == Path(own.name)
    children = psutil.Process(driver.pid).children(recursive=True)
    assert len(children) > 3
    agents = {child for child in children if AGENT in child.name()}
    assert len(agents) == 2
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert psutil.wait_procs(set(children) - agents, timeout=20)[1] == []
    for agent in agents:
        agent.kill()
    assert folder.exists()
    with start(tmp_path, own.name) as following:
        following.communicate("\n", timeout=60)
    assert not folder.exists()


def test_a_folder_that_another_container_s_process_holds_stays(tmp_path: Path) -> None:
    """Its number means nobody here; containers may share a folder for temporary files."""
    theirs, left = (tmp_path / f"{TEMP_PREFIX}999999999-{name}" for name in ("held", "left"))
    for folder in (theirs, left):
        folder.mkdir()
    with held(theirs):
        _sweep(tmp_path)
        assert (theirs.exists(), left.exists()) == (True, False)
    _sweep(tmp_path)
    assert not theirs.exists()


def test_sigterm_while_ray_starts_is_an_interrupt_and_leaves_nothing(
    tmp_path: Path, small_profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def init(**_: object) -> None:
        # as Ray does before it starts its processes
        ray_utils.set_sigterm_handler(lambda *_: sys.exit(1))
        started.append(subprocess.Popen(["sleep", "100"]))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("cluster.ray_session.ray.init", init)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            ray_session(small_profile, log_folder=tmp_path),
        ):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not psutil.pid_exists(started[0].pid)


def listening_addresses(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        found = process.net_connections(kind="tcp")
        listening = (one for one in found if one.status == psutil.CONN_LISTEN)
        return [one.laddr.ip.removeprefix("::ffff:") for one in listening]
    return []


def start(log_folder: Path, temp_folder: str | None = None) -> subprocess.Popen[str]:
    log_folder.mkdir(exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables |= {} if temp_folder is None else {"TMPDIR": temp_folder}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", DRIVER, str(log_folder)]
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=variables
    )


def join(address: str, token: Path) -> str:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cluster.profiles import Profile, RayPlace\n"
        "from cluster.ray_session import ray_session\n"
        f"place = RayPlace(address={address!r}, token_path={str(token)!r})\n"
        "with ray_session(Profile(name='x', ray=place), log_folder=Path('/nonexistent')):\n"
        "    print('joined')\n"
    )
    variables = {**os.environ, "RAY_NUM_REDIS_GET_RETRIES": "3"}  # 20 s of patience otherwise
    command = [sys.executable, "-c", code]
    answer = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=100, check=False
    )
    return answer.stdout.strip() or answer.stderr.strip()


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_a_first_process_that_hangs_is_ended_and_another_one_started(tmp_path: Path) -> None:
    """It is there and answers nobody, as one that is stopped."""
    stopped: list[psutil.Process] = []
    folders = Path(tempfile.gettempdir())

    def stop_the_first() -> None:
        while not stopped:
            for one in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    ports = folders.glob(f"arc-{os.getpid()}-*/r/*/gcs_server_port*")
                    if one.name() == "gcs_server" and list(ports):
                        one.suspend()
                        stopped.append(one)
                        return
            time.sleep(0.005)

    threading.Thread(target=stop_the_first, daemon=True).start()
    profile = Profile(name="x", cores=1, memory_gib=2.0)
    with ray_session(profile, log_folder=tmp_path):
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
    assert stopped
    assert not stopped[0].is_running()
