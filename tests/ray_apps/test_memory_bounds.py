"""How much memory bins take on their way, and trials that share them, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.ray_apps.wide_rows import THREADS, make_wide

TREES = ("xgboost", "lightgbm")
MIB = 1 << 20


def used(root, what, name, at_once=1):
    """Return the bytes that one process held."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.ray_apps.wide_rows", str(root), what, name, str(at_once)],
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many") / "store"
    make_wide(root, rows=3_000_000, features=40)
    return root


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    root = tmp_path_factory.mktemp("wide") / "store"
    make_wide(root, rows=300_000, features=200)
    return root


@pytest.mark.parametrize("name", TREES)
def test_rows_are_binned_within_three_tenths_more_than_their_bins(many, name):
    """And a row group for each thread that decodes; as floats the rows are 480 MB."""
    found = used(many, "binning", name)
    # a byte a value at least; both libraries keep bins by rows and by columns, and labels
    assert 120 * MIB < found["after"] < 2 * 126 * MIB + 6 * 8 * 3.15e6
    assert found["peak"] <= 1.3 * found["after"] + THREADS * found["group"], found


@pytest.mark.parametrize("name", TREES)
def test_trials_at_the_same_time_share_one_copy_of_the_bins(wide, name):
    """A copy is 60 MB; what a trial has of its own is a few numbers a row."""
    one, four = (used(wide, "searching", name, at_once) for at_once in (1, 4))
    assert one["peak"] > 60 * MIB
    assert four["peak"] - one["peak"] < 60 * MIB, (one, four)
