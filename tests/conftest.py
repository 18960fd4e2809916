"""Engines shared by all tests: one small Spark session and one small Ray cluster a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.profiles import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

# 40% of it is a Spark heap of 2 GiB; both engines may be up at the same time
SMALL = Profile(name="small", cores=2, memory_gib=5.0)


@pytest.fixture(scope="session")
def small_profile() -> Profile:
    """A profile for two cores and little memory."""
    return SMALL


@pytest.fixture(scope="session")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared engines keep their logs: `spark.log`, `ray/`."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def session(engine_folder: Path) -> Iterator[SparkSession]:
    """The one Spark session of the run; only tests marked `spark` may ask for it."""
    from cluster.spark_session import spark_session

    with spark_session(SMALL, log_folder=engine_folder, local_folder=engine_folder / "s") as it:
        yield it


@pytest.fixture(scope="session")
def ray_cluster(engine_folder: Path) -> Iterator[str]:
    """The address of the run's one Ray cluster; only tests marked `ray` may ask for it."""
    from cluster.ray_session import ray_session

    with ray_session(SMALL, log_folder=engine_folder) as address:
        yield address
