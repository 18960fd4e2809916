"""One JVM for one Spark session: started quietly, spoken to over loopback, really gone after."""

from __future__ import annotations

import os
import shlex
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark
from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway

from arclight.errors import EngineError, printable
from cluster.environment import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from py4j.java_gateway import JavaGateway

EXIT_TIMEOUT_S = 10


@contextmanager
def java_gateway(
    settings_file: Path, log_file: Path, variables: Mapping[str, str | None]
) -> Iterator[JavaGateway]:
    """Run Spark's JVM for the length of a block and leave no process behind.

    Args:
        settings_file: 0600 file of Spark settings; nothing of it reaches a command line.
        log_file: where the JVM and its Python workers write standard output and error.
        variables: environment of the JVM and of the Python workers it forks.

    Raises:
        EngineError: the JVM ended before it could be spoken to.
    """
    # the defaults of SPARK_CONF_DIR count too: an attached cluster's secret stands there
    arguments = f"--load-spark-defaults --properties-file {shlex.quote(str(settings_file))}"
    submit = {"PYSPARK_SUBMIT_ARGS": f"{arguments} pyspark-shell"}
    with environment({**variables, **submit}):
        gateway = _launch(log_file)
    try:
        yield gateway
    finally:
        _close(gateway)


def spark_home() -> Path:
    """Return the folder of the installed Spark; the user's SPARK_HOME may be another version."""
    return Path(pyspark.__file__).parent


def _launch(log_file: Path) -> JavaGateway:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with os.fdopen(os.open(log_file, flags, 0o600), "ab") as log:
        streams: dict[str, Any] = {"stdout": log, "stderr": subprocess.STDOUT}
        try:
            return launch_gateway(popen_kwargs=streams)
        except (PySparkException, OSError) as error:
            raise EngineError(
                f"Spark's JVM ended before it was ready ({printable(error)}); "
                f"the reason is at the end of '{log_file}'."
            ) from error


def _close(gateway: JavaGateway) -> None:
    """End the JVM: asked first, then by end of input, then by its own process id."""
    process: subprocess.Popen[bytes] = gateway.proc
    with suppress(Py4JError, OSError):  # already dead, which is what is wanted
        gateway.shutdown()
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # pyspark keeps the dead gateway and would hand it to the next session of this process
    if SparkContext._gateway is gateway:
        SparkContext._gateway = None
        SparkContext._jvm = None
