from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.linkrace import race_for_names

if TYPE_CHECKING:
    from pathlib import Path


def test_two_processes_race_for_one_name_and_one_wins_each_time(tmp_path: Path) -> None:
    assert race_for_names(tmp_path, 200) == [1] * 200
    winners = {(tmp_path / f"name-{turn}").read_text() for turn in range(200)}
    assert winners <= {"a", "b"}


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not supported"):
        race_for_names(tmp_path / "none", 3)
