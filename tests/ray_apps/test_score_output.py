"""Where an output cannot be made: one sentence and status 2, before a row is scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from arclight.errors import SpecError
from arclight.progress import silent
from ray_apps.score import score_folder
from tests.full_disk import small_disk
from tests.ray_apps.make_dataset import raw_table

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def score(trained: Any, tmp_path: Path) -> Callable[[Path], object]:
    """Return a function that scores some rows into a folder."""
    made, bundle = trained("binary", "lightgbm")
    source = tmp_path / "in.parquet"
    pq.write_table(raw_table(10, seed=5), source)

    def run(output: Path) -> object:
        return score_folder(made.catalog, bundle, source, output, threads=1, tick=silent)

    return run


@pytest.mark.parametrize(
    ("place", "text"),
    [("in.parquet/out", "Not a directory"), ("in.parquet/a/out", "Not a directory"),
     ("dangling/out", "No such file"), ("x" * 300, "File name too long"),
     ("/proc/arclight/out", "No such file")],
)  # fmt: skip
def test_an_output_that_cannot_be_made_is_a_sentence(
    score: Callable[[Path], object], tmp_path: Path, place: str, text: str
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    with pytest.raises(SpecError, match=f"must be a folder that can be made, but {text}"):
        score(tmp_path / place)
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "dangling"}


def test_an_output_may_have_the_longest_name_that_there_is(
    score: Callable[[Path], object], tmp_path: Path
) -> None:
    score(tmp_path / ("x" * 255))
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "x" * 255}


def test_the_folder_that_one_is_in_is_no_output(
    score: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be replaced, and whoever is in it would see the old one, empty."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    for output in (Path(), tmp_path / "out"):
        with pytest.raises(SpecError, match="nor the folder that you are in; give a folder"):
            score(output)


def test_an_output_on_a_disk_that_may_only_be_read_is_a_sentence(
    score: Callable[[Path], object], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", size="1m") as disk:
        with pytest.raises(SpecError, match="which neither a mounted disk can"):
            score(disk.folder)
        disk.freeze()
        for place in ("out", "a/b/out"):
            with pytest.raises(SpecError, match="can be made, but Read-only file system"):
                score(disk.folder / place)
