"""The harness on contenders that only wait, lie or fail; and the results page it writes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.__main__ import RACES
from benchmarks.contender import REPOSITORY, Contender, ContenderError, Running
from benchmarks.data import content_digest, prepared, star_schema, training_table, wide_table
from benchmarks.harness import (
    Comparison,
    Conditions,
    Facts,
    Race,
    Verdict,
    lower_bound,
    rounds_of,
    run_race,
)
from benchmarks.proctree import Ledger, Seen, end_tree, look, tree_of
from benchmarks.race_etl import judge as judge_etl
from benchmarks.race_fit import judge as judge_fit
from benchmarks.race_ingest import judge as judge_ingest
from benchmarks.results import RESULTS, write_results

if TYPE_CHECKING:
    from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))[:1]
SIDE = """
import contextlib, os, subprocess, sys, time
class Side:
    def __init__(self, params):
        self.params = params; self.rounds = []
        if params.get("burns"): subprocess.Popen([sys.executable, "-c", "while True: pass"])
    def ready(self, number): self.rounds.append(number)
    def run(self, number):
        if number == self.params.get("fails_at"): raise ValueError("as it was told")
        if number == self.params.get("dies_at"): os._exit(7)
        print("noise on standard output")
        if self.params.get("spins"):
            spin = "import time\\nwhile time.process_time() < 0.4: pass"
            subprocess.run([sys.executable, "-c", spin])
        time.sleep(self.params.get("late_s" if number > 1 else "sleep_s", 0.0))
        return number
    def facts(self, result): return {"value": self.params.get("value", 1), "rounds": self.rounds}
@contextlib.contextmanager
def open_side(params):
    if params.get("no_start"): raise RuntimeError("no engine here")
    yield Side(params)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "fake_side.py").write_text(SIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.harness.AWAKE_S", 0.0)
    return "fake_side"


def same_value(ours: Facts, theirs: Facts) -> Verdict:
    return Verdict(ours["value"] == theirs["value"], f"{ours['value']} and {theirs['value']}")


def race_of(module: str, ours: dict[str, Any], peer: dict[str, Any], **wish: float) -> Race:
    return Race(
        name="nap",
        metric="seconds",
        contenders=(
            Contender(name="ours", module=module, params=ours),
            Contender(name="peer", module=module, params=peer, note="sleeps"),
        ),
        comparisons=(Comparison(ours="ours", peer="peer", **wish),),
        judge=same_value,
        about={"rows": 7, "data_digest": "d" * 64},
    )


def test_a_quick_race_keeps_what_has_a_target() -> None:
    race = race_of("m", {}, {}, target=2.0)
    extra = Contender(name="extra", module="m", params={})
    more = (*race.comparisons, Comparison(ours="ours", peer="extra"))
    wide = dataclasses.replace(race, contenders=(*race.contenders, extra), comparisons=more)
    assert wide.for_quick() == race


def conditions(rounds: int = 2) -> Conditions:
    return Conditions(
        cores=CORES,
        rounds=rounds,
        size="tiny",
        bandwidth=1.0,
        load=0.1,
        hardware={"cpu": "c", "cores": 1, "memory_gib": 1.0, "system": "s", "python": "3"},
        versions={"numpy": np.__version__},
    )


def only_line(race: Race, folder: Path, rounds: int = 2) -> dict[str, Any]:
    (line,) = run_race(race, conditions(rounds), folder)
    json.dumps(line)
    return line


def test_every_pair_of_contenders_goes_abba() -> None:
    turns = [turn for round_ in rounds_of(("a", "b", "c"), 4) for turn in round_]
    assert "".join(name for _, name in turns) == "abccbaabccba"
    assert [number for number, _ in turns] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3


def test_a_round_that_would_come_too_late_is_left_out() -> None:
    assert len(list(rounds_of(("a", "b"), 5, end=time.monotonic() - 1))) == 1
    done = 0
    for _ in rounds_of(("a",), 5, end=time.monotonic() + 0.5):
        time.sleep(0.2)
        done += 1
    assert done == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        ([1.0] * 5, [3.0] * 5, 3.0, 3.0),
        ([1.0, 1.0, 1.0, 1.0, 9.0], [2.0] * 5, 0.2, 2.0),
        ([1.0, 1.1, 0.9, 1.0, 1.05], [2.0, 2.2, 1.8, 2.1, 1.9], 1.6, 2.0),
        ([1.0, 9.0, 3.0, 27.0, 2.0], [1.5, 13.5, 4.5, 40.5, 3.0], 1.5, 1.5),
    ],
)
def test_the_bound_is_below_the_ratio_of_medians(
    ours: list[float], theirs: list[float], low: float, high: float
) -> None:
    assert low <= lower_bound(ours, theirs) <= high


def test_who_did_fewer_rounds_is_compared_over_those(module: str, tmp_path: Path) -> None:
    """In the others the machine may have been another."""
    race = race_of(module, {"sleep_s": 0.05, "late_s": 0.6}, {"sleep_s": 0.3}, target=2.0)
    ours, peer = race.contenders
    sides = (ours, dataclasses.replace(peer, rounds=1))
    line = only_line(dataclasses.replace(race, contenders=sides), tmp_path, rounds=3)
    assert (line["rounds"], line["rounds_of_both"]) == (3, 1)
    assert len(line["seconds"]["ours"]) == 3
    assert line["ours"] < 0.25 < line["theirs"]
    assert line["pass"] is True


def test_a_race_gives_figures_that_decide(module: str, tmp_path: Path) -> None:
    naps = ({"sleep_s": 0.05, "late_s": 0.05}, {"sleep_s": 0.25, "late_s": 0.25})
    race = race_of(module, *naps, target=2.0, floor=100.0)
    line = only_line(race, tmp_path, rounds=3)
    assert line["pass"] is True
    assert line["floor_pass"] is False
    assert 2 <= line["lower95"] <= line["ratio"] < 6
    assert len(line["seconds"]["ours"]) == 3
    assert line["rss_mib"]["ours"] > 5
    assert (line["rows"], line["threads"], line["quiet"]) == (7, 1, True)


@pytest.mark.parametrize(
    ("ours", "peer", "who"),
    [
        ({}, {"fails_at": 1}, "peer"),
        ({"fails_at": 0}, {}, "ours"),
        ({}, {"no_start": True}, "peer"),
        ({}, {"dies_at": 1}, "peer"),
    ],
)
def test_who_fails_is_listed_and_not_beaten(
    module: str, tmp_path: Path, ours: dict[str, Any], peer: dict[str, Any], who: str
) -> None:
    line = only_line(race_of(module, ours, peer, target=0.001), tmp_path)
    assert list(line["errors"]) == [who]
    assert line["pass"] is False
    assert line["ratio"] is None


def test_a_faster_wrong_result_is_a_loss(module: str, tmp_path: Path) -> None:
    race = race_of(module, {"value": 2}, {"value": 1, "sleep_s": 0.2}, target=1.0)
    line = only_line(race, tmp_path)
    assert line["ratio"] > 1
    assert line["quality"] == {"holds": False, "seen": "2 and 1"}
    assert line["pass"] is False


def test_cpu_of_children_that_have_ended_is_counted(module: str, tmp_path: Path) -> None:
    line = only_line(race_of(module, {"spins": True}, {}), tmp_path, rounds=1)
    assert line["cpu_s"]["ours"] >= 0.35
    assert line["cpu_s"]["theirs"] < 0.2
    assert line["idle_contenders_cpu_s"]["theirs"] < 0.2


@pytest.mark.parametrize("sleeps", [True, False])
def test_who_waits_takes_no_time_of_who_works(module: str, tmp_path: Path, sleeps: bool) -> None:
    race = race_of(module, {"spins": True}, {"burns": True})
    sides = tuple(dataclasses.replace(one, sleeps=sleeps) for one in race.contenders)
    line = only_line(dataclasses.replace(race, contenders=sides), tmp_path, rounds=1)
    assert not line["errors"]
    assert (line["idle_contenders_cpu_s"]["ours"] < 0.1) is sleeps


def test_one_that_sleeps_ends_with_a_harness_that_was_killed(module: str, tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from benchmarks.contender import Contender, Running
log = Path({str(tmp_path / "log")!r})
with Running(Contender(name="x", module={module!r}), {CORES!r}, log) as p:
    p.sleep()
    print(p.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == -9
    end = time.monotonic() + 30
    while int(done.stdout) in look() and time.monotonic() < end:
        time.sleep(0.1)
    assert int(done.stdout) not in look()


def test_a_contender_does_a_warm_up_first_and_leaves_no_process(
    module: str, tmp_path: Path
) -> None:
    side = Contender(name="x", module=module)
    with Running(side, CORES, tmp_path / "log") as process:
        tree = tree_of(process.pid, look())
        assert process.run(0) >= 0
        process.run(1)
        assert process.facts()["rounds"] == [0, 1]
    assert tree
    assert not {p.pid for p in tree} & set(look())
    with (
        pytest.raises(ContenderError, match="ValueError: as it was told"),
        Running(
            Contender(name="x", module=module, params={"fails_at": 0}), CORES, tmp_path / "log"
        ) as process,
    ):
        process.run(0)


def seen(pid: int, parent: int, own: float, waited: float = 0.0) -> Seen:
    return Seen(pid=pid, parent=parent, start=1, own=own, waited=waited, rss=100)


def test_a_ledger_counts_what_either_way_shows() -> None:
    ledger = Ledger(1)
    ledger.note({1: seen(1, 0, 1.0), 2: seen(2, 1, 5.0), 3: seen(3, 9, 50.0)})
    assert (ledger.cpu_s, ledger.rss) == (6.0, 200)
    ledger.note({1: seen(1, 0, 1.5)})  # 2 ended and nobody waited for it
    assert (ledger.cpu_s, ledger.rss) == (6.5, 100)
    ledger.note({1: seen(1, 0, 1.5, waited=9.0)})  # one that was never looked at
    assert ledger.cpu_s == 10.5


@pytest.mark.fault
def test_only_the_process_that_was_meant_is_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = look()[child.pid]
        reused = Seen(**{**vars(found), "start": found.start + 1})
        end_tree([reused], grace_s=0.1)
        assert child.poll() is None
        end_tree([found])
        assert child.wait(5) != 0
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("make", [star_schema, wide_table, training_table])
def test_tables_are_the_same_each_time(tmp_path: Path, make: Any) -> None:
    first, second = (prepared(tmp_path / n, make, 2000) for n in ("a", "b"))
    assert content_digest(first) == content_digest(second)
    before = time.time_ns()
    again = prepared(tmp_path / "a", make, 2000)
    assert all(f.stat().st_mtime_ns < before for f in again.rglob("*.parquet"))


ETL = {"rows": {"train": 9}, "sums": {"train.x": [10.0, 10.0, 1]}}
FIT = {"ranks": {"x": [0.499, 0.5]}, "means": {"x": 1.0}, "stds": {"x": 2.0}, "levels": {"c": 3}}


@pytest.mark.parametrize(
    ("judge", "ours", "change", "holds"),
    [
        (judge_etl, ETL, {}, True),
        (judge_etl, ETL, {"sums": {"train.x": [10.000_001, 10.0, 1]}}, True),
        (judge_etl, ETL, {"sums": {"train.x": [10.001, 10.0, 1]}}, False),
        (judge_etl, ETL, {"sums": {"train.x": [10.0, 10.0, 2]}}, False),
        (judge_etl, ETL, {"rows": {"train": 8}}, False),
        (judge_etl, ETL, {"sums": {"train.x": [float("nan"), 10.0, 1]}}, False),
        (judge_fit, FIT, {}, True),
        (judge_fit, FIT, {"ranks": {"x": [0.2, 0.9]}}, True),
        (judge_fit, FIT, {"ranks": {"x": [0.51, 0.52]}}, False),
        (judge_fit, FIT, {"means": {"x": 1.001}}, False),
        (judge_fit, FIT, {"stds": {"x": 2.001}}, False),
        (judge_fit, FIT, {"means": {"x": float("nan")}}, False),
        (judge_fit, FIT, {"levels": {"c": 4}}, False),
        (judge_ingest, {"auc": 0.8, "rows": 5}, {"auc": 0.8004}, True),
        (judge_ingest, {"auc": 0.8, "rows": 5}, {"auc": 0.8006}, False),
        (judge_ingest, {"auc": 0.8, "rows": 5}, {"rows": 4}, False),
    ],
)
def test_quality_gates(judge: Any, ours: Facts, change: Facts, holds: bool) -> None:
    assert judge(ours, {**ours, **change}).holds is holds


def test_the_results_page_shows_losses_and_keeps_other_races(module: str, tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text(
        "# R\n<!-- nap: begin -->\nold\n<!-- nap: end -->\n<!-- etl: begin -->\nkept\n"
    )
    lost = only_line(race_of(module, {"sleep_s": 0.1}, {}, target=1.0), tmp_path)
    failed = only_line(race_of(module, {}, {"no_start": True}, target=1.0), tmp_path)
    write_results([lost, failed], page)
    text = page.read_text()
    assert "old" not in text
    assert "kept" in text
    assert text.count("| **no** |") == 2
    assert "**no figure**, peer: RuntimeError: no engine here" in text
    with pytest.raises(ValueError, match="must hold the marks"):
        write_results([{**lost, "race": "other"}], page)


def test_the_page_has_room_for_every_race() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    for race in RACES:
        assert f"<!-- {race}: begin -->" in text
        assert f"<!-- {race}: end -->" in text
