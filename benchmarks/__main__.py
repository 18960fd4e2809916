"""`python -m benchmarks [RACE…] [--quick]`: one JSON line per comparison on standard output."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import (
    race_bins,
    race_controller,
    race_etl,
    race_fit,
    race_ingest,
    race_scaling,
    race_search,
    race_torch,
    race_train,
)
from benchmarks.harness import Conditions, run_race
from benchmarks.machine import (
    copy_bandwidth,
    cores_to_use,
    hardware,
    load_1m,
    versions,
    wait_until_quiet,
)
from benchmarks.results import RESULTS, write_results
from benchmarks.setting import Setting, Size

if TYPE_CHECKING:
    from collections.abc import Iterator

RACES = {
    "etl": race_etl.make_race,
    "fit": race_fit.make_race,
    "bins": race_bins.make_race,
    "ingest": race_ingest.make_race,
    "train": race_train.make_race,
    "large": race_train.make_large_race,
    "small": race_train.make_small_race,
    "search": race_search.make_race,
    "search-xgboost": race_search.make_xgboost_race,
    "search-flights": race_search.make_flights_race,
    "controller": race_controller.make_race,
    "torch": race_torch.make_race,
    "scaling": race_scaling.make_race,
}
ROUNDS: dict[Size, int] = {"full": 5, "quick": 2, "tiny": 1}
QUIET_WAIT_S = 180.0
QUICK_S = {"etl": 150.0, "fit": 130.0, "ingest": 260.0, "torch": 60.0}
"""What a quick race may take before its second round is left out; together under ten minutes, so
that `scaling` is run when it is asked for."""


def main() -> int:
    """Run what the command line asks for; 1 when a contender failed or a result was wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave by the way that cleans up
    asked = _parser().parse_args()
    if asked.render is not None:
        lines = [json.loads(line) for line in asked.render.read_text("utf-8").splitlines()]
        write_results(lines, RESULTS)
        return 0
    size: Size = "tiny" if asked.tiny else "quick" if asked.quick else "full"
    lines = []
    with _folders(asked.work) as (data, work):
        for name in asked.races or (QUICK_S if size == "quick" else RACES):
            lines += _race(name, size, (data, work), asked.rounds)
    if asked.write:
        write_results(lines, RESULTS)
    is_right = all(not line["errors"] and line["quality"]["holds"] for line in lines)
    return 0 if is_right else 1


def _race(
    name: str, size: Size, folders: tuple[Path, Path], rounds: int | None
) -> list[dict[str, Any]]:
    """Prepare a race, wait for a quiet machine, run it and print its lines."""
    data, work = folders
    cores = cores_to_use()
    begin, load = time.monotonic(), load_1m()  # before our own generators raise it
    _say(f"{name}: making the data")
    race = RACES[name](Setting(size=size, data=data, work=work, cores=len(cores)))
    if size == "quick":
        race = race.for_quick()
    if size == "full":
        load = wait_until_quiet(QUIET_WAIT_S)
    bandwidth = copy_bandwidth()
    conditions = Conditions(
        cores=cores,
        rounds=rounds or ROUNDS[size],
        end=begin + QUICK_S.get(name, 300.0) if size == "quick" else None,
        size=size,
        bandwidth=bandwidth,
        load=load,
        hardware=hardware(),
        versions=versions(),
    )
    _say(
        f"{name}: cores {list(cores)}, {len(cores)} threads each side, copy of 1 GiB "
        f"{bandwidth:.1f} GiB/s, load {load:.2f}, {conditions.rounds} rounds ({size})"
    )
    lines = run_race(race, conditions, work)
    for line in lines:
        print(json.dumps(line), flush=True)
    return lines


@contextmanager
def _folders(kept: Path | None) -> Iterator[tuple[Path, Path]]:
    """Give a folder for tables and one for output; what the user named keeps tables and logs."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="arclight-race-", dir=kept) as folder:
        data = Path(folder if kept is None else kept) / "data"
        data.mkdir(exist_ok=True)
        work = Path(folder) / "work"
        work.mkdir()
        try:
            yield data, work
        finally:
            if kept is not None:
                shutil.copytree(work, kept / "logs", ignore=_only_logs, dirs_exist_ok=True)


def _only_logs(folder: str, names: list[str]) -> set[str]:
    return {
        name for name in names if (Path(folder) / name).is_dir() or Path(name).suffix != ".log"
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("races", nargs="*", metavar="RACE", help=f"of {', '.join(RACES)}")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer rounds, 10 min")
    parser.add_argument("--tiny", action="store_true", help="proves that it runs; no figure")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="not 5, or 2 under --quick")
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    parser.add_argument("--render", type=Path, metavar="FILE", help="only that, from lines kept")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep the tables there")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, got '{text}'")
    return int(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
