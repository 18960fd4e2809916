"""Engines shared by all tests, and the order of a run: seconds first, engines, the whole line."""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples

from cluster.profiles import Profile
from tests.postgres import PASSWORD, Postgres

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

# 40% of it is a Spark heap of 2 GiB; both engines may be up at the same time
SMALL = Profile(name="small", cores=2, memory_gib=5.0)

# How long an example takes says how busy the machine is, no more.
examples.register_profile("arclight", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("arclight")

# Tests run in this order; a run stops before a stage when an earlier one has failed.
STAGES = (("unit", ()), ("engines", ("spark", "ray", "browser")), ("line", ("e2e", "fault")))
ENGINES = pytest.StashKey[ExitStack]()
SHARED = {"session", "ray_cluster"}
"""Fixtures that end before the last stage, whose tests start engines of their own."""


def stage_of(item: pytest.Item) -> int:
    """Return the number of a test's stage: the last one it has a marker of, or the first.

    Whoever uses what is shared comes while it is there.
    """
    if SHARED.intersection(getattr(item, "fixturenames", ())):
        return 1
    marks = {mark.name for mark in item.iter_markers()}
    return max((i for i, (_, names) in enumerate(STAGES) if marks.intersection(names)), default=0)


def place_of(item: pytest.Item) -> tuple[int, int, bool]:
    """Return where a test stands: its stage, its first engine, and whether it shares that engine.

    A process has one Ray: tests that start clusters of their own come before the shared one.
    """
    marks = {mark.name for mark in item.iter_markers()}
    engines = STAGES[1][1]
    engine = next((i for i, name in enumerate(engines, 1) if name in marks), 0)
    return stage_of(item), engine, "ray_cluster" in getattr(item, "fixturenames", ())


def pytest_configure(config: pytest.Config) -> None:
    # a shell's background job ignores Ctrl-C, and so would the processes that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[ENGINES] = ExitStack()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[ENGINES].close()


def group_of(item: pytest.Item) -> str:
    """Return which tests with engines are run one after another, where two run side by side.

    Ray waits more than it works, and so does the start of a JVM: two at a time take little longer
    than the longer one. The whole line starts engines of its own, and goes where there is room.
    """
    if STAGES[stage_of(item)][0] == "line":
        return item.nodeid
    return "ray" if any(mark.name == "ray" for mark in item.iter_markers()) else "spark"


@pytest.hookimpl(tryfirst=True)  # groups are read right after
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=place_of)
    for item in items:
        if stage_of(item):
            item.add_marker(pytest.mark.xdist_group(group_of(item)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Between two stages: stop if something failed, and give the engines' memory back."""
    result = yield
    if nextitem is not None and stage_of(item) != stage_of(nextitem):
        enter_stage(item.session, STAGES[stage_of(nextitem)][0])
    return result


def enter_stage(session: pytest.Session, name: str) -> None:
    if session.testsfailed and not hasattr(session.config, "workerinput"):
        session.shouldfail = f"stopped before stage '{name}': earlier tests failed"
    if name == "line":
        session.config.stash[ENGINES].close()


@pytest.fixture(scope="session")
def small_profile() -> Profile:
    """A profile for two cores and little memory."""
    return SMALL


@pytest.fixture(scope="session")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared engines keep their logs: `spark.log`, `ray/`."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The run's one Postgres server; its tests skip where none is installed."""
    with closing(Postgres()) as found:
        yield found


@pytest.fixture
def postgres(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The server, with its password in the environment, as a user sets it."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgres_server


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest, engine_folder: Path) -> SparkSession:
    """The one Spark session of the run; for tests marked `spark` and not `e2e`."""
    from cluster.spark_session import spark_session

    engine = spark_session(SMALL, log_folder=engine_folder, local_folder=engine_folder / "s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")  # as in many an image: it must not be Spark's
        return request.config.stash[ENGINES].enter_context(engine)


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest, engine_folder: Path) -> str:
    """The address of the run's one Ray cluster; for tests marked `ray` and not `e2e`.

    It says that it has two GPUs, for tests of who gets one; no library here would use them.
    """
    from cluster import ray_session as own
    from cluster.machine import look_at_machine
    from cluster.ray_session import ray_session

    patch = request.config.stash[ENGINES].enter_context(pytest.MonkeyPatch.context())
    patch.setattr(own, "look_at_machine", lambda *at: replace(look_at_machine(*at), gpus=2))
    return request.config.stash[ENGINES].enter_context(
        ray_session(SMALL, log_folder=engine_folder)
    )
