from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from py4j.java_gateway import GatewayClient
from py4j.protocol import ERROR_ON_SEND, Py4JNetworkError

from arclight.errors import EngineError, MissingError, RefusedError
from cluster.machine import Machine
from cluster.profiles import Profile, SparkPlace
from cluster.sizing import GIB, plan_sizes
from cluster.spark_session import (
    ATTACHED,
    CLOSED,
    EXACT,
    SECRET_FILE,
    quiet,
    spark_session,
    spark_settings,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIZES = plan_sizes(
    Profile(name="x"),
    Machine(cores=4, memory_bytes=8 * GIB, shm_bytes=GIB, disk_free_bytes=GIB),
)
DRIVER = """
import sys, time
from pathlib import Path
from cluster.profiles import Profile
from cluster.spark_session import spark_session
folder = Path(sys.argv[1])
with spark_session(Profile(name="x", cores=1, memory_gib=2.0), log_folder=folder,
                   local_folder=folder / "local") as session:
    session.range(3).mapInArrow(lambda batches: batches, "id long").count()
    print("up", flush=True)
    time.sleep(120)
"""


def settings(**place: object) -> dict[str, str]:
    profile = Profile(name="x", spark=SparkPlace(**place))  # type: ignore[arg-type]
    return spark_settings(profile, SIZES, Path("/scratch"))


def test_a_local_session_binds_loopback_only() -> None:
    made = settings()
    assert made["spark.master"] == "local[4]"
    assert made["spark.driver.host"] == made["spark.driver.bindAddress"] == "127.0.0.1"


def test_sizes_become_settings() -> None:
    made = settings()
    assert made["spark.driver.memory"] == "3276m"
    assert "-Xms3276m" in made["spark.driver.extraJavaOptions"]
    assert made["spark.sql.shuffle.partitions"] == "8"


def test_a_profile_adds_but_never_overrides() -> None:
    made = settings(conf={"spark.network.timeout": "9s", "spark.sql.shuffle.partitions": "3"})
    assert made["spark.network.timeout"] == "9s"
    assert made["spark.sql.shuffle.partitions"] == "3"
    assert {key: made[key] for key in (*EXACT, *CLOSED)} == {**EXACT, **CLOSED}


def test_an_attached_cluster_is_encrypted_and_holds_no_secret() -> None:
    made = settings(master="spark://10.0.0.1:7077", conf_folder="/c", driver_host="10.0.0.2")
    assert {key: made[key] for key in ATTACHED} == ATTACHED
    assert made["spark.driver.host"] == "10.0.0.2"
    assert "spark.authenticate.secret" not in made


def test_executors_are_asked_for_what_the_profile_says() -> None:
    place = {"master": "spark://127.0.0.1:7077", "conf_folder": "/c"}
    assert settings(**place)["spark.executor.memory"] == "3276m"
    assert settings(**place, executor_memory_gib=1.5)["spark.executor.memory"] == "1536m"


def test_a_path_with_a_comma_is_refused(tmp_path: Path, small_profile: Profile) -> None:
    engine = spark_session(small_profile, log_folder=tmp_path, local_folder=tmp_path / "a,b")
    with pytest.raises(RefusedError, match=r"a,b' must be a path without a comma"), engine:
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_attached_cluster_needs_the_driver_s_address() -> None:
    with pytest.raises(RefusedError, match=r"spark\.driver_host must be given"):
        settings(master="spark://10.0.0.1:7077", conf_folder="/c")


@pytest.mark.parametrize(
    ("bits", "text", "error", "message"),
    [
        (None, "", MissingError, "cannot be read"),
        (0o644, "spark.authenticate.secret x", RefusedError, "got mode 0644"),
        (0o600, "spark.authenticate true", RefusedError, "must set spark.authenticate.secret"),
    ],
)
def test_an_attached_cluster_needs_a_closed_secret(
    tmp_path: Path, bits: int | None, text: str, error: type[Exception], message: str
) -> None:
    if bits is not None:
        (tmp_path / SECRET_FILE).write_text(text)
        (tmp_path / SECRET_FILE).chmod(bits)
    place = SparkPlace(master="spark://127.0.0.1:7077", conf_folder=str(tmp_path))
    engine = spark_session(
        Profile(name="x", spark=place), log_folder=tmp_path, local_folder=tmp_path / "local"
    )
    with pytest.raises(error, match=message), engine:
        pass
    assert list((tmp_path / "local").iterdir()) == []


def test_j8_no_java_is_one_sentence_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_profile: Profile
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    engine = spark_session(small_profile, log_folder=tmp_path / "l", local_folder=tmp_path / "s")
    with pytest.raises(EngineError, match="run: "), engine:
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spark
def test_sp5_settings_that_decide_numbers_hold(session: SparkSession) -> None:
    held = {key: session.conf.get(key) for key in (*EXACT, *CLOSED)}
    assert held == {**EXACT, **CLOSED}


@pytest.mark.spark
def test_sp6_python_workers_are_this_python_with_our_packages(session: SparkSession) -> None:
    def look(batches):
        import pyarrow as pa

        from cluster.sizing import ARROW_BATCH_ROWS

        for _ in batches:
            text = f"{sys.executable} {ARROW_BATCH_ROWS} {os.environ['OMP_NUM_THREADS']}"
            yield pa.RecordBatch.from_pydict({"text": [text]})

    rows = session.range(1).mapInArrow(look, "text string").collect()
    assert [row.text for row in rows] == [f"{sys.executable} 65536 1"]


@pytest.mark.spark
@pytest.mark.parametrize(
    "query",
    [
        "SELECT reflect('java.lang.System', 'getenv', 'HOME')",
        "SELECT java_method('java.lang.System', 'getenv', 'HOME')",
        "SELECT * FROM parquet.`/etc/passwd`",
        "SELECT TRANSFORM(id) USING 'cat' AS (x) FROM range(1)",
    ],
)
def test_the_second_wall_stops_sql_with_power(session: SparkSession, query: str) -> None:
    from pyspark.errors import PySparkException

    with pytest.raises(PySparkException):
        session.sql(query).collect()


@pytest.mark.spark
def test_x7_only_loopback_ports_and_x9_nothing_secret_on_a_command_line(
    session: SparkSession,
) -> None:
    session.range(1).mapInArrow(lambda batches: batches, "id long").count()
    jvm = jvm_of(psutil.Process())
    for process in (jvm, *jvm.children(recursive=True)):
        assert_loopback(process)
    assert not any("authenticate" in part or "secret" in part for part in jvm.cmdline())


@pytest.mark.spark
def test_written_files_have_no_side_files(session: SparkSession, tmp_path: Path) -> None:
    session.range(3).coalesce(1).write.parquet(str(tmp_path / "out"))
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(names) == 1
    assert names[0].endswith(".parquet")


@pytest.mark.spark
def test_a_session_s_folder_is_closed(session: SparkSession) -> None:
    scratch = Path(session.conf.get("spark.local.dir"))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (scratch, scratch.parent)]
    assert modes == [0o700, 0o700]
    assert stat.S_IMODE((scratch / "spark.properties").stat().st_mode) == 0o600


@pytest.mark.spark
@pytest.mark.fault
def test_a_session_ends_for_good_and_another_one_works(tmp_path: Path) -> None:
    """Two sessions in one process, each with a JVM that is gone after; nothing on the terminal."""
    code = (
        "import psutil, sys\n"
        "from pathlib import Path\n"
        "from cluster.profiles import Profile\n"
        "from cluster.spark_session import spark_session\n"
        "folder = Path(sys.argv[1])\n"
        "for turn in range(2):\n"
        "    with spark_session(Profile(name='x', cores=1, memory_gib=2.0), log_folder=folder,\n"
        "                       local_folder=folder / 'local') as session:\n"
        "        assert session.range(3).count() == 3\n"
        "        assert psutil.Process().children()\n"
        "        try:\n"
        "            session.sql(\"SELECT CAST('4711' || 'x' AS INT)\").collect()\n"
        "        except Exception:\n"
        "            pass\n"
        "    assert not psutil.Process().children(), 'a process is left'\n"
        "assert not list((folder / 'local').iterdir())\n"
    )
    answer = run_python(code, tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    log = tmp_path / "spark.log"
    assert "CAST_INVALID_INPUT" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.spark
@pytest.mark.fault
def test_a_killed_driver_leaves_no_jvm(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "up\n"
        children = psutil.Process(driver.pid).children(recursive=True)
        assert any("java" in child.name() for child in children)
        driver.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


@pytest.mark.spark
@pytest.mark.fault
def test_a_jvm_killed_inside_a_block_does_not_hang_its_end(tmp_path: Path) -> None:
    code = DRIVER.replace(
        "time.sleep(120)",
        "import psutil; [child.kill() for child in psutil.Process().children()]",
    )
    started = time.monotonic()
    answer = run_python(code, tmp_path)
    assert answer.stdout == "up\n"
    assert time.monotonic() - started < 100
    assert list((tmp_path / "local").iterdir()) == []


@pytest.mark.spark
@pytest.mark.fault
def test_what_a_block_does_not_catch_is_told_while_the_jvm_still_can(tmp_path: Path) -> None:
    asked = "session._jvm.java.lang.Integer.parseInt('zzz')"
    code = DRIVER.replace("    time.sleep(120)", f"    {asked}")
    said = run_python(code, tmp_path).stderr.strip().splitlines()[-1]
    assert said.startswith("arclight.errors.EngineError: Spark failed: For input string: ")


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def jvm_of(process: psutil.Process) -> psutil.Process:
    return next(
        child for child in process.children() if "SparkSubmit" in " ".join(child.cmdline())
    )


def assert_loopback(process: psutil.Process) -> None:
    for connection in process.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN:
            assert connection.laddr.ip.removeprefix("::ffff:") in {"127.0.0.1", "::1"}


class _Context:
    """Takes Ctrl-C over as a SparkContext does, to speak to the JVM from inside the handler."""

    def __init__(self, gateway: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: None)

    def stop(self) -> None:
        pass


def test_ctrl_c_is_ours_again_before_the_jvm_is_asked_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[object] = []

    def open_session(context: _Context) -> None:
        held.append(signal.getsignal(signal.SIGINT))
        raise Py4JNetworkError("enough")

    monkeypatch.setattr("cluster.spark_session.java_gateway", lambda *_: nullcontext())
    monkeypatch.setattr("cluster.spark_session.SparkContext", _Context)
    monkeypatch.setattr("cluster.spark_session.SparkSession", open_session)
    before = signal.getsignal(signal.SIGINT)
    place = spark_session(Profile(name="x"), log_folder=tmp_path, local_folder=tmp_path / "s")
    with pytest.raises(EngineError, match="Spark did not start"), place:
        pass
    assert held == [before]


def _cut_on_its_way_out(*_: object) -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise Py4JNetworkError("Answer from Java side is empty")


@pytest.mark.parametrize("starts", [False, True])
def test_what_pyspark_says_on_an_interrupt_s_way_out_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    opened = (lambda _: None) if starts else _cut_on_its_way_out
    monkeypatch.setattr("cluster.spark_session.java_gateway", lambda *_: nullcontext())
    monkeypatch.setattr("cluster.spark_session.SparkContext", _Context)
    monkeypatch.setattr("cluster.spark_session.SparkSession", opened)
    monkeypatch.setattr("cluster.spark_session.check_settings", _cut_on_its_way_out)
    place = spark_session(Profile(name="x"), log_folder=tmp_path, local_folder=tmp_path / "s")
    with pytest.raises(KeyboardInterrupt), place:
        pass


class _Broken:
    """A connection to a JVM in which something happens while it waits."""

    socket = None

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def send_command(self, command: str) -> str:
        raise self.error

    def close(self, reset: bool = False) -> None:
        pass


class _Client(GatewayClient):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def _get_connection(self) -> _Broken:
        return _Broken(self.error)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt while sending command."),
        (Py4JNetworkError("gone", when=ERROR_ON_SEND), "Exception while sending command."),
    ],
)
def test_what_py4j_logs_beside_what_it_raises_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException, logged: str
) -> None:
    with quiet(tmp_path / "spark.log"), suppress(KeyboardInterrupt):
        logging.getLogger("py4j.clientserver").error("while shutting down")
        _Client(error).send_command("c\n", retry=False)
    told = (tmp_path / "spark.log").read_text(encoding="utf-8")
    assert logged in told
    assert "while shutting down" in told
    assert "while shutting down" not in caplog.messages
    assert logged not in caplog.messages
