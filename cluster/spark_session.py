"""The only place that knows Spark's settings: one session, sized, quiet, closed, UTC, strict."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from arclight.errors import EngineError, RefusedError, printable
from cluster.environment import environment
from cluster.java import find_java
from cluster.jvm import java_gateway, spark_home
from cluster.machine import look_at_machine
from cluster.profiles import is_loopback
from cluster.signals import kept_signals
from cluster.sizing import plan_sizes
from cluster.spark_errors import describe_spark_error
from cluster.tokens import check_secret_file, create_secret, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from py4j.java_gateway import JavaGateway

    from cluster.profiles import Profile, SparkPlace
    from cluster.sizing import Sizes

PYSPARK_LOGGER = "SQLQueryContextLogger"
PY4J_MODULE = "java_gateway"
LOOPBACK = "127.0.0.1"
SECRET_FILE = "spark-defaults.conf"  # noqa: S105 -- a file's name
LOCALE = "C.UTF-8"
"""In another one Java passes over files whose names it cannot spell, without a word."""
EXECUTOR_WAIT_S = 120.0
"""For the first executor of an attached cluster."""
_LOOKS_EVERY_S = 0.2

# Settings that decide what a number or a row is. A session in which one of them differs is
# refused: see `check_settings`.
EXACT = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "false",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # nanosecond timestamps arrive as integers; the reader converts them by the footer's type
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    # the values of folders such as fips=01001 are text: as numbers they would lose their zeros
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # a CSV line with too few or too many fields must be seen even when its columns are unused
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    # windows-1252, in which Excel writes, and utf8 are encodings too: without it Spark has seven
    "spark.sql.legacy.javaCharsets": "true",
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
}

# The second wall behind the parser that accepts one SELECT.
CLOSED = {
    "spark.sql.restrictedMode.enabled": "true",
    "spark.sql.reflect.allowList": "none",
    "spark.sql.runSQLOnFiles": "false",
    # ${name} in a text would become another text after the parser has let it pass
    "spark.sql.variable.substitute": "false",
    "spark.sql.catalogImplementation": "in-memory",
    "spark.ui.enabled": "false",
    "spark.eventLog.enabled": "false",
    "spark.master.rest.enabled": "false",
}

FAST = {
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    "spark.sql.parquet.columnarReaderBatchSize": "8192",
    # the manifest is the marker and holds the hashes: no _SUCCESS file, no .crc beside each part
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.ui.showConsoleProgress": "false",
}

ATTACHED = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.network.crypto.cipher": "AES/GCM/NoPadding",
    "spark.io.encryption.enabled": "true",
}

LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC} %p %c{1}: %m%n%ex
# expected on every machine without native Hadoop, and by our own way of writing
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
"""


@contextmanager
def spark_session(
    profile: Profile, *, log_folder: Path, local_folder: Path
) -> Iterator[SparkSession]:
    """Run a Spark session for the length of a block; its JVM is gone when the block ends.

    Args:
        profile: where to run and how big.
        log_folder: `spark.log` is written there: JVM, executors of local mode, Python workers.
        local_folder: shuffle and temporary files; made 0700, emptied of ours on exit.

    Raises:
        EngineError: no fitting Java, or Spark did not start.
        RefusedError: an attached cluster without its secret, or an unsafe setting.
    """
    java = find_java()
    if "," in str(local_folder.resolve()):
        raise RefusedError(
            f"'{printable(local_folder)}' must be a path without a comma, which Spark takes for "
            "the end of it; use another store."
        )
    log_folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="spark-", dir=private_folder(local_folder).resolve()))
    log_file = log_folder.resolve() / "spark.log"
    try:
        sizes = plan_sizes(profile, look_at_machine(scratch))
        settings = spark_settings(profile, sizes, scratch)
        file = _write_settings(settings, scratch)
        variables = _variables(profile, java.home, scratch)
        with (
            java_gateway(file, log_file, variables) as gateway,
            quiet(log_file),
            _open_session(gateway, variables, log_file) as session,
        ):
            check_settings(session, settings)
            if profile.spark.is_attached:
                _wait_for_executor(session, settings)
            yield session
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def spark_settings(profile: Profile, sizes: Sizes, scratch: Path) -> dict[str, str]:
    """Return every setting of a session; the profile's own come first and cannot override ours.

    Raises:
        RefusedError: an attached cluster whose driver address or secret file is missing.
    """
    place = profile.spark
    sized = {
        "spark.sql.shuffle.partitions": str(sizes.spark_shuffle_partitions),
        "spark.default.parallelism": str(sizes.spark_shuffle_partitions),
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(sizes.arrow_batch_rows),
    }
    return {
        **sized,
        **place.conf,
        **_placed(place, sizes),
        **EXACT,
        **CLOSED,
        **FAST,
        "spark.app.name": "arclight",
        "spark.submit.deployMode": "client",
        "spark.driver.memory": f"{sizes.spark_driver_memory_mib}m",
        "spark.driver.extraJavaOptions": _java_options(sizes, scratch),
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }


def check_settings(session: SparkSession, wanted: Mapping[str, str]) -> None:
    """Refuse a session in which a setting that decides numbers or safety differs.

    Raises:
        EngineError: Spark does not know the setting, or holds another value.
    """
    for key in (*EXACT, *CLOSED):
        held = session.conf.get(key, None)
        if held != wanted[key]:
            raise EngineError(
                f"Spark setting '{key}' must be '{wanted[key]}', got {held!r}; "
                "this release of Spark does not fit, install the pinned one."
            )


def _placed(place: SparkPlace, sizes: Sizes) -> dict[str, str]:
    """Return the settings that depend on where the executors are."""
    if not place.is_attached:
        return {
            "spark.master": place.master or f"local[{sizes.cores}]",
            "spark.driver.host": LOOPBACK,
            "spark.driver.bindAddress": LOOPBACK,
        }
    host = _driver_host(place)
    cores = place.executor_cores
    executor = {} if cores is None else {"spark.executor.cores": str(cores)}
    return {
        "spark.master": str(place.master),
        "spark.driver.host": host,
        "spark.driver.bindAddress": host,
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC -XX:+UseParallelGC",
        "spark.executor.memory": f"{_executor_mib(place, sizes)}m",
        "spark.executorEnv.LC_ALL": LOCALE,
        **executor,
        **ATTACHED,
    }


def _executor_mib(place: SparkPlace, sizes: Sizes) -> int:
    """Return what an executor is asked for: as much as the driver, where no profile says it."""
    if place.executor_memory_gib is None:
        return sizes.spark_driver_memory_mib
    return int(place.executor_memory_gib * 1024)


def _wait_for_executor(session: SparkSession, settings: Mapping[str, str]) -> None:
    """Wait until an attached cluster has started an executor: without one a job waits for ever.

    Raises:
        EngineError: none came.
    """
    context: Any = session.sparkContext._jsc.sc()
    deadline = time.monotonic() + EXECUTOR_WAIT_S
    while context.getExecutorMemoryStatus().size() < 2:  # the driver is one of them
        if time.monotonic() >= deadline:
            raise EngineError(
                f"'{settings['spark.master']}' must start an executor within "
                f"{EXECUTOR_WAIT_S:.0f} s, but has not: each is to have "
                f"{settings['spark.executor.memory']} of memory and "
                f"{settings.get('spark.executor.cores', 'all')} cores of a worker; see what its "
                "workers have, and set spark.executor_memory_gib and spark.executor_cores."
            )
        time.sleep(_LOOKS_EVERY_S)


def _driver_host(place: SparkPlace) -> str:
    """Return the address executors call back; only a master on loopback may do without one."""
    master_host = str(place.master).removeprefix("spark://").rsplit(":", 1)[0]
    if place.driver_host is None and not is_loopback(master_host):
        raise RefusedError(
            f"spark.driver_host must be given for the attached master '{place.master}': the "
            "address of this machine on the cluster's private network."
        )
    return place.driver_host or LOOPBACK


def _java_options(sizes: Sizes, scratch: Path) -> str:
    quoted = str(scratch).replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"-Xms{sizes.spark_driver_memory_mib}m -XX:+UseParallelGC "
        f"-XX:ParallelGCThreads={sizes.cores} -Duser.timezone=UTC -Dfile.encoding=UTF-8 "
        f'"-Djava.io.tmpdir={quoted}" "-Dlog4j2.configurationFile={quoted}/log4j2.properties"'
    )


def _write_settings(settings: Mapping[str, str], scratch: Path) -> Path:
    """Write the settings where only the owner can read them, in the form Java properties have."""
    create_secret(scratch / "log4j2.properties", LOG4J)
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    return create_secret(scratch / "spark.properties", text.replace("\\", "\\\\"))


def _variables(profile: Profile, java_home: Path, scratch: Path) -> dict[str, str | None]:
    """Return the environment of the JVM and of its Python workers."""
    packages = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    local = not profile.spark.is_attached
    return {
        "JAVA_HOME": str(java_home),
        "SPARK_HOME": str(spark_home()),
        "SPARK_CONF_DIR": str(scratch) if local else _conf_folder(profile.spark),
        "SPARK_LOCAL_IP": LOOPBACK if local else _driver_host(profile.spark),
        "SPARK_LOCAL_DIRS": None,  # would win over spark.local.dir
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONPATH": path,
        # one Python worker a core: each must not start a thread pool of all cores
        "OMP_NUM_THREADS": "1",
        "TZ": "UTC",
        "LC_ALL": LOCALE,
        # of a Python worker: no code out of the current folder
        "PYTHONSAFEPATH": "1",
    }


def _conf_folder(place: SparkPlace) -> str:
    """Return the folder of an attached cluster's secret after checking that it is one.

    Raises:
        RefusedError: others can read the file, or it sets no secret.
    """
    file = Path(str(place.conf_folder)) / SECRET_FILE
    check_secret_file(file)
    if not re.search(r"^\s*spark\.authenticate\.secret[\s=]+\S", file.read_text("utf-8"), re.M):
        raise RefusedError(
            f"'{printable(file)}' must set spark.authenticate.secret; "
            "copy the one the master and workers were started with."
        )
    return str(file.parent.resolve())


@contextmanager
def _open_session(
    gateway: JavaGateway, variables: Mapping[str, str | None], log_file: Path
) -> Iterator[SparkSession]:
    """Open a session on a JVM and stop it; a master that does not answer is found here."""
    python = {key: value for key, value in variables.items() if key.startswith("PYSPARK_")}
    context: SparkContext | None = None
    try:
        with _as_ours("Spark did not start", log_file), environment(python):
            # its own handler speaks to the JVM, in the middle of what is being said already
            with kept_signals():
                context = SparkContext(gateway=gateway)
            session = SparkSession(context)
        with _as_ours("Spark failed", log_file):  # while the JVM can still say what it was
            yield session
    finally:
        if context is not None:
            with suppress(Py4JError, OSError):  # the JVM is gone already
                context.stop()


@contextmanager
def _as_ours(what: str, log_file: Path) -> Iterator[None]:
    """Turn what Spark raises into a sentence, and into an interrupt what one has led to.

    PySpark speaks to the JVM once more after each call, also on an interrupt's way out, when py4j
    has cut the line: what that raises would hide the interrupt.
    """
    try:
        yield
    except (Py4JError, PySparkException) as error:
        before = error.__context__
        while before is not None:
            if isinstance(before, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            before = before.__context__
        raise EngineError(f"{what}: {describe_spark_error(error)} See '{log_file}'.") from error


@contextmanager
def quiet(log_file: Path) -> Iterator[None]:
    """Send to a file what two libraries log beside what they raise.

    PySpark's own error log holds values, SQL text and a JVM trace. py4j logs a trace, on its own
    logger or on the root, of an interrupt and of a JVM that is gone.
    """
    logger, root = PySparkLogger.getLogger(PYSPARK_LOGGER), logging.getLogger()
    own = logging.getLogger("py4j")
    before = list(logger.handlers)
    handler = logging.FileHandler(log_file, encoding="utf-8")
    logger.handlers = []
    logger.addHandler(handler)

    def is_shown(record: logging.LogRecord) -> bool:
        if record.module != PY4J_MODULE or not record.exc_info:
            return True
        handler.handle(record)
        return False

    root.addFilter(is_shown)
    own.addHandler(handler)
    is_passed_on, own.propagate = own.propagate, False
    with warnings.catch_warnings():
        # seen when PySpark imports pandas for itself; no path of ours hands it a pandas frame
        warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
        try:
            yield
        finally:
            own.propagate = is_passed_on
            own.removeHandler(handler)
            root.removeFilter(is_shown)
            logger.handlers = before
            handler.close()
