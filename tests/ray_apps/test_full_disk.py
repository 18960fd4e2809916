"""The disk is full while a model is trained or rows are scored: nothing half, and it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.disk import disk_full
from arclight.progress import silent
from ray_apps.score import score_folder
from ray_apps.train import train_model
from tests.full_disk import small_disk
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.make_dataset import make_dataset, make_spec, raw_table

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import ModelBundle
    from tests.ray_apps.make_dataset import Made


def train(made: Made, folder: Path) -> ModelBundle:
    spec = make_spec(trainer="lightgbm")
    return train_model(
        made.catalog, made.manifest, spec, profile=ONE_CORE, run_folder=folder, tick=silent
    )


@pytest.mark.parametrize("full", ["the store", "the run's folder"])
def test_a_training_on_a_full_disk_publishes_nothing_and_goes_on(
    trained: Any, tmp_path: Path, full: str
) -> None:
    _, wanted = trained("binary", "lightgbm")
    with small_disk(tmp_path / "disk", size="20m") as disk:
        is_store = full == "the store"
        made = make_dataset((disk.folder if is_store else tmp_path) / "store")
        folder = (tmp_path if is_store else disk.folder) / "run"
        folder.mkdir()
        filler = disk.fill(leave_bytes=8192)
        with pytest.raises(OSError, match="No space left") as caught:
            train(made, folder)
        assert disk_full(caught.value) is not None
        assert list(made.catalog.models("demo")) == []
        staged = made.catalog.store.path("models", "demo", "data")
        assert not staged.exists() or not list(staged.iterdir())
        assert not list((folder / "fit").iterdir())
        filler.unlink()
        again = train(made, folder)
        assert (again.number, again.model_digest) == (1, wanted.model_digest)


def test_a_scoring_on_a_full_disk_leaves_no_output_and_goes_on(
    trained: Any, tmp_path: Path
) -> None:
    made, bundle = trained("binary", "lightgbm")
    pq.write_table(raw_table(20_000, seed=5), tmp_path / "in.parquet")

    def score() -> int:
        return score_folder(
            made.catalog, bundle, tmp_path / "in.parquet", output, threads=1, tick=silent
        ).rows_scored

    with small_disk(tmp_path / "disk", size="20m") as disk:
        output = disk.folder / "out"
        filler = disk.fill(leave_bytes=16384)
        with pytest.raises(OSError, match="No space left") as caught:
            score()
        assert disk_full(caught.value) is not None
        assert [path.name for path in disk.folder.iterdir()] == [filler.name]
        filler.unlink()
        assert score() == 20_000
        keys = pa.concat_tables([pq.read_table(p) for p in output.glob("*.parquet")])["id"]
        assert sorted(keys.to_pylist()) == list(range(20_000))
