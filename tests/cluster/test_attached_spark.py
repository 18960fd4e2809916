"""A standalone Spark on loopback, started as an operator would: with a secret, encrypted."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from arclight.errors import EngineError
from cluster.java import find_java
from cluster.jvm import spark_home
from cluster.profiles import Profile, SparkPlace
from cluster.spark_session import SECRET_FILE, spark_session
from cluster.tokens import create_secret, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.spark, pytest.mark.fault]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_secret(folder: Path, secret: str) -> Path:
    private_folder(folder)
    lines = f"spark.authenticate true\nspark.authenticate.secret {secret}\n"
    more = "spark.network.crypto.enabled true\nspark.network.crypto.cipher AES/GCM/NoPadding\n"
    create_secret(folder / SECRET_FILE, lines + more + "spark.master.rest.enabled false\n")
    return folder


@contextmanager
def daemon(name: str, log: Path, *arguments: str) -> Iterator[None]:
    home = spark_home()
    variables = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JAVA_HOME": str(find_java().home),
        "SPARK_DAEMON_MEMORY": "256m",
    }
    command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *arguments]
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=variables, stdout=stream, stderr=stream)
        children: list[psutil.Process] = []
        try:
            yield
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in children:
                child.kill()
            psutil.wait_procs(children, timeout=20)


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    folder = tmp_path_factory.mktemp("standalone")
    secret = secrets.token_hex(32)
    settings = str(write_secret(folder / "conf", secret) / SECRET_FILE)
    port, uis = free_port(), (free_port(), free_port())
    url = f"spark://127.0.0.1:{port}"
    own = ("-h", "127.0.0.1", "--properties-file", settings)
    with (
        daemon(
            *("master.Master", folder / "master.log", *own),
            *("-p", str(port), "--webui-port", str(uis[0])),
        ),
        daemon(
            *("worker.Worker", folder / "worker.log", *own, "-c", "1", "-m", "1g"),
            *("-d", str(folder / "work"), "--webui-port", str(uis[1]), url),
        ),
    ):
        yield url, folder, secret


def command_lines(root: psutil.Process) -> list[str]:
    lines = []
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie has none
            lines.append(" ".join(process.cmdline()))
    return lines


def attached(url: str, conf_folder: Path) -> Profile:
    place = SparkPlace(master=url, conf_folder=str(conf_folder), executor_cores=1)
    return Profile(name="attached", cores=1, memory_gib=2.0, spark=place)


def test_x9_a_job_runs_with_the_secret_on_no_command_line(
    standalone: tuple[str, Path, str], tmp_path: Path
) -> None:
    url, folder, secret = standalone
    profile = attached(url, folder / "conf")
    with spark_session(profile, log_folder=tmp_path, local_folder=tmp_path / "s") as session:
        rows = session.range(100).mapInArrow(lambda batches: batches, "id long")
        assert rows.groupBy((rows.id % 3).alias("k")).count().count() == 3
        lines = command_lines(psutil.Process())
        assert any("SparkSubmit" in line for line in lines)
        assert not any(secret in line for line in lines)
    assert secret not in (tmp_path / "spark.log").read_text()


def test_a_cluster_that_starts_no_executor_is_not_waited_for_for_ever(
    standalone: tuple[str, Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, _ = standalone
    place = SparkPlace(master=url, conf_folder=str(folder / "conf"), executor_memory_gib=64)
    profile = Profile(name="attached", cores=1, memory_gib=2.0, spark=place)
    monkeypatch.setattr("cluster.spark_session.EXECUTOR_WAIT_S", 3.0)
    engine = spark_session(profile, log_folder=tmp_path, local_folder=tmp_path / "s")
    with pytest.raises(EngineError, match=r"start an executor within 3 s.*65536m of mem"), engine:
        pass


def test_another_secret_is_refused(standalone: tuple[str, Path, str], tmp_path: Path) -> None:
    url, _, _ = standalone
    profile = attached(url, write_secret(tmp_path / "conf", secrets.token_hex(32)))
    engine = spark_session(profile, log_folder=tmp_path, local_folder=tmp_path / "s")
    with pytest.raises(EngineError, match="Spark did not start"), engine:
        pass
