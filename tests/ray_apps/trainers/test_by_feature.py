"""What is said of features by their places: taken and kept to, or refused before anything runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arclight.errors import SpecError
from ray_apps.shards import Shard
from ray_apps.trainers import load_trainer
from tests.ray_apps.trainers.test_trainers import TREES, fit, load, make_job, make_shard

UP_IN_F1 = {"xgboost": "(0,1,0,0)", "lightgbm": "0,1,0,0"}


def falling(rows, seed):
    """Rows whose label falls with f1."""
    shard = make_shard(rows, seed=seed)
    rng = np.random.default_rng(seed)
    labels = []
    for table in shard.tables:
        x = table["f0"].fill_null(0).to_numpy() - table["f1"].to_numpy()
        labels.append((x > rng.normal(size=len(x))).astype(np.float64))
    return Shard(shard.tables, tuple(labels))


@pytest.mark.parametrize("name", TREES)
def test_a_constraint_of_each_feature_is_kept(name, tmp_path):
    job = make_job(rounds=20, early_stopping=None, features=4)
    grid = np.zeros((41, 4), np.float32)
    grid[:, 1] = np.linspace(-3, 3, 41)
    steps = []
    for params in ({}, {"monotone_constraints": UP_IN_F1[name]}):
        fitted = fit(name, replace(job, params=params), falling(3000, 0), falling(500, 1))
        steps.append(np.diff(load(name, fitted, tmp_path).predict(grid)))
    assert steps[0].min() < 0  # so that it has something to keep
    assert steps[1].min() >= 0


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("features", [0, 4])
def test_features_may_be_unknown_yet(name, features):
    params = {
        "monotone_constraints": UP_IN_F1[name],
        "interaction_constraints": {"xgboost": "[[0,1],[2,3]]", "lightgbm": "[0,1],[2,3]"}[name],
    }
    load_trainer(name).check_params(make_job(params=params, features=features))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"monotone_constraints": "1"}, r"monotone_constraints must have a value .* got 1: .* 4"),
        ({"monotone_constraints": "1,0,0,0,1"}, r"got 5: the model has 4 features; `arclight da"),
        ({"interaction_constraints": "[0,1],[7]"}, r"must name places from 0 to 3, got 7"),
    ],
)
def test_what_does_not_go_with_the_features_is_refused(name, params, words):
    with pytest.raises(SpecError, match=words):
        load_trainer(name).check_params(make_job(params=params, features=4))


def test_lightgbms_weights_of_features_and_what_it_calls_them():
    trainer = load_trainer("lightgbm")
    for name in ("feature_contri", "feature_penalty"):
        trainer.check_params(make_job(params={name: "1,1,0.5,1"}, features=4))
        with pytest.raises(SpecError, match=r"feature_contri must have a value .* got 2"):
            trainer.check_params(make_job(params={name: "1,0.5"}, features=4))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("place", ["99999999", "9" * 5000])
def test_a_place_that_no_table_has_takes_no_memory(name, place):
    job = make_job(params={"interaction_constraints": f"[[0,{place}]]"})
    with pytest.raises(SpecError, match=r"must name places of features under 100,000, got 99"):
        load_trainer(name).check_params(job)
