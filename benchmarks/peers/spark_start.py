"""Spark as a script starts it: the race's cores and heap, and the settings a lane names."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

from cluster.java import find_java

if TYPE_CHECKING:
    from collections.abc import Iterator

# What documentation offers for small data on one machine, plus Arclight's collector and heap.
TUNED = {
    "spark.sql.shuffle.partitions": "8",
    "spark.sql.parquet.columnarReaderBatchSize": "8192",
    "spark.sql.parquet.compression.codec": "lz4_raw",
}


@contextmanager
def started(params: dict[str, Any], *, is_tuned: bool) -> Iterator[SparkSession]:
    """Run a session for the length of a block.

    Args:
        params: `cores`, `heap_mib` and `scratch`.
        is_tuned: with the settings above; otherwise every default but cores, heap and loopback.
    """
    os.environ["JAVA_HOME"] = str(find_java().home)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    scratch, heap = Path(params["scratch"]), f"{params['heap_mib']}m"
    builder = (
        SparkSession.builder.master(f"local[{params['cores']}]")
        .config("spark.driver.memory", heap)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.local.dir", str(scratch / "spark"))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
    )
    if is_tuned:
        threads = f"-XX:+UseParallelGC -XX:ParallelGCThreads={params['cores']}"
        builder = builder.config("spark.driver.extraJavaOptions", f"-Xms{heap} {threads}")
        for key, value in TUNED.items():
            builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()
