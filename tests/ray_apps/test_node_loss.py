"""A node is lost while several train: the others go on, or say what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lose_a_node(
    folder: Path, trainer: str, nodes: int, workers: object, *, back: bool = False, cores: int = 1
):
    """Run a training in a process with a cluster of its own; everything ends with it."""
    subprocess.run(
        [
            sys.executable, "-m", "tests.ray_apps.losing_nodes", str(folder), trainer, str(nodes),
            json.dumps(workers), str(int(back)), str(cores),
        ],
        cwd=ROOT, timeout=240, check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
    )  # fmt: skip
    return json.loads((folder / "told.json").read_text())


@pytest.mark.fault
@pytest.mark.parametrize(
    ("trainer", "workers"), [("xgboost", "auto"), ("lightgbm", {"min": 1, "max": 4})]
)
def test_T10_a_training_that_lost_a_node_goes_on_smaller_and_its_record_says_so(
    tmp_path, trainer, workers
):
    told = lose_a_node(tmp_path, trainer, 2, workers)
    (again,) = told["resumed"]
    assert again["rounds"] >= told["lost"] > 20
    assert (again["workers"], again["exact"]) == (1, False)
    assert (told["rounds"], told["refused"]) == (200, "")
    assert told["valid"] > 0.95
    assert any(note.startswith("Ray lost training worker") for note in told["notes"])


@pytest.mark.fault
def test_T1_a_lost_node_is_replaced_by_a_spare_one(tmp_path):
    told = lose_a_node(tmp_path, "lightgbm", 3, 2)
    (again,) = told["resumed"]
    assert (again["workers"], told["rounds"], told["refused"]) == (2, 200, "")


@pytest.mark.fault
def test_T1_too_few_nodes_are_said_and_the_same_command_goes_on_when_they_are_back(tmp_path):
    # nodes of two cores: one of them could take both workers, and would hold all data
    told = lose_a_node(tmp_path, "xgboost", 2, 2, back=True, cores=2)
    assert "2 workers with 2 cores each must fit into nodes of 2 cores" in told["refused"]
    assert told["refused"].endswith("The same command goes on from the checkpoint.")
    (again,) = told["resumed"]
    assert (again["workers"], told["rounds"]) == (2, 200)
    assert again["rounds"] >= told["lost"]
