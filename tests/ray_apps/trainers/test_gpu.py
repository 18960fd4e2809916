"""Trainings on a GPU: as good as on cores, stored so that cores can score them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ray_apps.shards import dense
from ray_apps.trainers import load_trainer
from tests.ray_apps.trainers.test_trainers import fit, load, make_job, make_shard

pytestmark = pytest.mark.gpu
ON_GPUS = ("xgboost", "torch")


def on_gpu(name: str) -> str:
    """Return the name of a trainer whose library can use a GPU, as it is installed."""
    reason = load_trainer(name).why_no_gpu()
    if reason is not None:
        pytest.skip(reason)
    return name


@pytest.fixture(params=ON_GPUS)
def name(request) -> str:
    return on_gpu(request.param)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_training_on_a_gpu_is_as_good_as_one_on_cores(name, task, tmp_path):
    train, valid = make_shard(20_000, task=task), make_shard(4000, seed=1, task=task)
    job = make_job(task, rounds=15, early_stopping=None)
    cores = fit(name, job, train, valid)
    gpu = fit(name, replace(job, device="cuda"), train, valid)
    assert gpu.params["device"] == "cuda"
    assert gpu.valid == pytest.approx(cores.valid, abs=0.02)
    matrix = dense(valid.tables[0])
    near = [load(name, one, tmp_path).predict(matrix) for one in (cores, gpu)]
    assert float(np.abs(near[0] - near[1]).mean()) < 0.05


@pytest.mark.parametrize("params", [{"precision": "float32"}, {"compile": True}])
def test_a_network_takes_its_steps_another_way(params):
    train, valid = make_shard(20_000), make_shard(4000, seed=1)
    job = make_job(rounds=8, early_stopping=None, device="cuda", params=params)
    assert fit(on_gpu("torch"), job, train, valid).valid > 0.9


def test_rows_that_a_gpu_has_no_room_for_come_from_memory(monkeypatch):
    monkeypatch.setattr("ray_apps.trainers.torch_rows.DEVICE_SHARE", 0.0)
    train, valid = make_shard(20_000), make_shard(4000, seed=1)
    job = make_job(rounds=8, early_stopping=None, device="cuda")
    assert fit(on_gpu("torch"), job, train, valid).valid > 0.9
