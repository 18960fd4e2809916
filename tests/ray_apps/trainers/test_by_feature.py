"""What is said of features by their places: taken and kept to, or refused before anything runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arclight.errors import SpecError
from ray_apps.shards import Shard
from ray_apps.trainers import load_trainer
from tests.ray_apps.trainers.test_trainers import TREES, fit, load, make_job, make_shard

UP_IN_F1 = "(0,1,0,0)"


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
    for params in ({}, {"monotone_constraints": UP_IN_F1}):
        fitted = fit(name, replace(job, params=params), falling(3000, 0), falling(500, 1))
        steps.append(np.diff(load(name, fitted, tmp_path).predict(grid)))
    assert steps[0].min() < 0  # so that it has something to keep
    assert steps[1].min() >= 0


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("features", [0, 4])
def test_features_may_be_unknown_yet(name, features):
    params = {
        "monotone_constraints": UP_IN_F1,
        "interaction_constraints": "[[0,1],[2,3]]",
    }
    load_trainer(name).check_params(make_job(params=params, features=features))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"monotone_constraints": "1"}, r"monotone_constraints must have a value .* got 1: .* 4"),
        ({"monotone_constraints": "1,0,0,0,1"}, r"got 5: the model has 4 features; `arclight da"),
        ({"interaction_constraints": "[0,1],[7]"}, r"must name places from 0 to 3, got 7"),
        (
            {"monotone_constraints": "(0,1,0,-1)"},
            r"0 for a category, .* got -1 for feature 3, cou",
        ),
    ],
)
def test_what_does_not_go_with_the_features_is_refused(name, params, words):
    with pytest.raises(SpecError, match=words):
        load_trainer(name).check_params(make_job(params=params, features=4))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"monotone_constraints": "up,0,0,0"}, r"must be -1, 0 or 1 .* got 'up' in 'up,0,0,0'"),
        ({"monotone_constraints": "(2,0,0,0)"}, "must be -1, 0 or 1 for each feature, .* got '2'"),
        ({"monotone_constraints": "(1,0,0,0]"}, r"such as '\(1,0,1\)', got '\(1'"),
        ({"monotone_constraints": ""}, "must be -1, 0 or 1 for each feature, .* got ''"),
        (
            {"interaction_constraints": "0,1"},
            r"groups of places .* '\[\[0,1\],\[2,3\]\]', got '0,1'",
        ),
        ({"interaction_constraints": "(0,1),(2,3)"}, "must be groups of places"),
        ({"interaction_constraints": "[f0,f1]"}, "must be groups of places"),
        ({"interaction_constraints": "[0,1],"}, "must be groups of places"),
        ({"interaction_constraints": "[[0,1],[2,-3]]"}, "must be groups of places"),
        ({"interaction_constraints": "[]"}, "must be groups of places"),
    ],
)
def test_what_stands_for_no_feature_is_refused_before_any_is_known(name, params, words):
    with pytest.raises(SpecError, match=words):
        load_trainer(name).check_params(make_job(params=params))


@pytest.mark.parametrize(
    ("name", "text", "stored"),
    [
        ("monotone_constraints", "(1,0,-1,0)", "1,0,-1,0"),
        ("mc", "[1, 0, -1, 0]", "1,0,-1,0"),
        ("monotone_constraints", " 1,0 , -1,0", "1,0,-1,0"),
        ("feature_contri", "(1, 0.5, 1, 1,)", "1,0.5,1,1"),
        ("interaction_constraints", "[0, 3], [1, 2]", "[0,3],[1,2]"),
        ("interaction_constraints", "[ [0,3], [1,2] ]", "[0,3],[1,2]"),
    ],
)
def test_lightgbm_gets_them_in_the_one_form_that_it_reads_rightly(name, text, stored):
    """It takes "(1" for 0, and fails on a space between groups when it reads its own file."""
    job = make_job(rounds=2, early_stopping=None, features=4, params={name: text})
    lines = fit("lightgbm", job, make_shard(500), make_shard(200, seed=1)).model.decode()
    main = "monotone_constraints" if name == "mc" else name
    assert f"[{main}: {stored}]" in lines.splitlines()


def test_lightgbms_weights_of_features_and_what_it_calls_them():
    trainer = load_trainer("lightgbm")
    for name in ("feature_contri", "feature_penalty"):
        trainer.check_params(make_job(params={name: "1,1,0.5,1"}, features=4))
        with pytest.raises(SpecError, match=r"must be a number for each feature, .* got 'nan'"):
            trainer.check_params(make_job(params={name: "1,1,nan,1"}, features=4))
        with pytest.raises(SpecError, match=r"feature_contri must have a value .* got 2"):
            trainer.check_params(make_job(params={name: "1,0.5"}, features=4))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("place", ["99999999", "9" * 5000])
def test_a_place_that_no_table_has_takes_no_memory(name, place):
    job = make_job(params={"interaction_constraints": f"[[0,{place}]]"})
    with pytest.raises(SpecError, match=r"must name places of features under 100,000, got 99"):
        load_trainer(name).check_params(job)
