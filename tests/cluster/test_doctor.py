from __future__ import annotations

import dataclasses
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.doctor import (
    PORTS,
    check_disks,
    check_java,
    check_machine,
    check_ports,
    check_python,
    check_time_zone,
    check_variables,
    check_versions,
    examine,
    find_constraints,
    judge_clock,
    judge_disk,
    judge_races,
    judge_steadiness,
    read_constraints,
)
from cluster.machine import Machine
from cluster.profiles import Profile
from cluster.sizing import GIB, MIB
from ray_apps.serving.deploy import DEFAULT_PORT

GOOD = Machine(cores=8, memory_bytes=32 * GIB, shm_bytes=16 * GIB, disk_free_bytes=99 * GIB)


def test_this_machine_is_examined_and_the_store_left_as_it_was(tmp_path: Path) -> None:
    findings = examine(Profile(name="x"), find_constraints(), tmp_path / "store")
    checks = [finding.check for finding in findings]
    for wanted in ("python", "java", "memory", "shared memory", "commit rule", "environment"):
        assert wanted in checks
    assert next(f for f in findings if f.check == "commit rule").state == "ok"
    assert all(finding.advice for finding in findings if finding.state != "ok")
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "profile", "states"),
    [
        (GOOD, Profile(name="x"), {"cores": "ok", "memory": "ok", "shared memory": "ok"}),
        (
            dataclasses.replace(GOOD, shm_bytes=64 * MIB),
            Profile(name="x"),
            {"cores": "ok", "memory": "ok", "shared memory": "warn"},
        ),
        (
            dataclasses.replace(GOOD, memory_bytes=3 * GIB),
            Profile(name="x"),
            {"cores": "ok", "memory": "warn", "shared memory": "ok"},
        ),
        (
            GOOD,
            Profile(name="x", cores=64),
            {"cores": "warn", "memory": "ok", "shared memory": "ok"},
        ),
        (dataclasses.replace(GOOD, memory_bytes=GIB), Profile(name="x"), {"memory": "fail"}),
    ],
)
def test_a_made_up_machine_is_judged(
    machine: Machine, profile: Profile, states: dict[str, str]
) -> None:
    findings = list(check_machine(profile, machine))
    assert {finding.check: finding.state for finding in findings} == states
    assert all(bool(finding.advice) == (finding.state != "ok") for finding in findings)


@pytest.mark.parametrize(
    ("free_gib", "state"), [(100, "ok"), (10, "ok"), (5, "warn"), (0.5, "fail"), (0, "fail")]
)
def test_disks(free_gib: float, state: str) -> None:
    finding = judge_disk("store", Path("/s"), int(free_gib * GIB))
    assert finding.state == state
    assert finding.found.endswith("GiB free at /s")


def test_a_folder_that_is_not_there_yet_is_measured_by_its_parent(tmp_path: Path) -> None:
    assert len(list(check_disks({"store": tmp_path / "a" / "b"}))) == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok")]
)
def test_python(version: tuple[int, ...], state: str) -> None:
    assert check_python(version).state == state


def test_java_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    finding = check_java()
    assert finding.state == "fail"
    assert "run: " in finding.advice


@pytest.mark.parametrize(
    ("installed", "wanted", "found"),
    [
        ({"A_b": "1.0"}, {"a-b": "1.0"}, [("versions", "ok")]),
        ({"torch": "2.13.0+cpu"}, {"torch": "2.13.0"}, [("versions", "ok")]),
        ({"ray": "1"}, {"ray": "2", "spark": "1"}, [("version of ray", "warn")]),
        ({}, {"ray": "2"}, [("versions", "ok")]),
        ({"ray": "1"}, {}, []),
    ],
)
def test_versions(
    installed: dict[str, str], wanted: dict[str, str], found: list[tuple[str, str]]
) -> None:
    findings = list(check_versions(installed, wanted))
    assert [(finding.check, finding.state) for finding in findings] == found


def test_another_version_says_what_to_run() -> None:
    finding = next(check_versions({"ray": "1"}, {"ray": "2"}))
    assert finding.advice.endswith("-m pip install ray==2")


def test_constraints_are_read_with_comments(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("# why\nA_b==1.0  # because\n\nc==2\n")
    assert read_constraints(tmp_path / "c.txt") == {"a-b": "1.0", "c": "2"}


def test_the_checkout_s_constraints_pin_the_engines() -> None:
    file = find_constraints()
    assert file is not None
    pins = read_constraints(file)
    assert {"pyspark", "ray", "xgboost-cpu", "lightgbm", "torch", "pyarrow"} <= pins.keys()
    assert not any("+" in version for version in pins.values())


def test_the_only_ports_asked_for_are_those_that_something_of_ours_listens_on() -> None:
    """A cluster of `up` takes free ones: who has a Redis at 6379 is in nobody's way."""
    assert set(PORTS) == {DEFAULT_PORT}


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        finding = next(check_ports({port: "the test"}))
    assert (finding.check, finding.state) == (f"port {port}", "warn")
    assert "the test" in finding.advice


@pytest.mark.parametrize(("year", "state"), [(1970, "fail"), (2026, "ok"), (2200, "fail")])
def test_the_year(year: int, state: str) -> None:
    assert check_time_zone(datetime(year, 1, 1, tzinfo=UTC)).state == state


@pytest.mark.parametrize(
    ("skew", "state"), [(0.2, "ok"), (-0.2, "ok"), (60, "warn"), (-60, "warn")]
)
def test_the_store_s_clock(skew: float, state: str) -> None:
    assert judge_clock(skew).state == state


@pytest.mark.parametrize(("wall", "state"), [(1.0, "ok"), (3601.0, "warn"), (-3599.0, "warn")])
def test_j6_a_clock_that_jumps(wall: float, state: str) -> None:
    assert judge_steadiness(wall, 1.0).state == state


@pytest.mark.parametrize(
    ("names", "states"),
    [
        (["PATH"], ["ok"]),
        (["RAY_testing_rpc_failure"], ["fail"]),
        (["RAY_DATA_WEBDATASET_ALLOW_UNSAFE_DESERIALIZATION"], ["fail"]),
        (["RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "SPARK_HOME"], ["fail", "warn"]),
        (["SPARK_HOME"], ["warn", "ok"]),
    ],
)
def test_variables(names: list[str], states: list[str]) -> None:
    assert [finding.state for finding in check_variables(names)] == states


@pytest.mark.parametrize(
    ("winners", "state"), [([1] * 50, "ok"), ([1, 2, 1], "fail"), ([1, 0], "fail"), ([], "fail")]
)
def test_the_commit_rule(winners: list[int], state: str) -> None:
    assert judge_races(winners).state == state


def test_a_store_that_cannot_be_written_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    findings = examine(Profile(name="x"), None, tmp_path / "file" / "store")
    found = {finding.check: finding.state for finding in findings}
    assert (found["commit rule"], found["clock of the store"]) == ("fail", "fail")
