"""One Ray Train worker: the same model as in this process, quickly, and errors that say why."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

from arclight.errors import DataError
from arclight.progress import silent
from ray_apps.train import train_model
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.make_dataset import make_dataset, make_spec

pytestmark = pytest.mark.ray


def train(made, spec, folder, tick=silent):
    return train_model(
        made.catalog, made.manifest, spec, profile=ONE_CORE, run_folder=folder, tick=tick
    )


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_T5_a_ray_worker_gives_the_bytes_of_this_process(ray_cluster, trained, tmp_path, name):
    _, here = trained("binary", name)
    made = make_dataset(tmp_path / "store")
    seen = []
    there = train(
        made, make_spec(trainer=name, workers=1), tmp_path, tick=lambda *a: seen.append(a)
    )
    assert there.model_digest == here.model_digest
    assert there.key == here.key
    assert seen
    assert list((tmp_path / "fit").iterdir()) == []


def test_RT1_rounds_cost_no_poll_of_the_controller(ray_cluster, tmp_path):
    """With a report per round this takes two seconds a round, or more than three minutes."""
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    spec = make_spec(trainer="lightgbm", workers=1, rounds=100, early_stopping=None)
    start = time.monotonic()
    assert train(made, spec, tmp_path).rounds == 100
    assert time.monotonic() - start < 100


def test_a_workers_error_comes_back_as_it_was_raised(ray_cluster, tmp_path):
    labels = np.resize([0.0, 1.0], 400)
    labels[17] = np.nan
    made = make_dataset(
        tmp_path / "store", rows=(400, 100, 100), label={"train": pa.array(labels)}
    )
    with pytest.raises(DataError, match="0 or 1, but 1 of 400 rows of the train split"):
        train(made, make_spec(trainer="lightgbm", workers=1), tmp_path)
    assert list(made.catalog.models("demo")) == []
