"""Scores of valid: those that the training held, where the model read back gives the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest

from ray_apps import judgement
from ray_apps.gang import Alone
from ray_apps.judgement import valid_scores
from ray_apps.shards import dense
from ray_apps.trainers.judge import ValidMetric
from tests.ray_apps.trainers.test_trainers import fit, load, make_job, make_shard


@dataclass
class Counting:
    """A model that counts the rows it is asked for."""

    model: object
    rows: list[int] = field(default_factory=list)

    def predict(self, matrix):
        self.rows.append(len(matrix))
        return self.model.predict(matrix)


def scored(model, valid):
    return model.predict(dense(pa.concat_tables(valid.tables)))


JOBS = {
    "best of some": {},
    "last of all": {"early_stopping": None},
    "stopped early": {"rounds": 60, "early_stopping": 3, "params": {"learning_rate": 0.5}},
    "weighed": {"imbalance": "weight"},
    "drawn": {"params": {"bagging_fraction": 0.6, "bagging_freq": 2, "feature_fraction": 0.7}},
    "classes": {"task": "multiclass", "metric": "macro_auc"},
    "yes or no": {"metric": "f1"},
}


@pytest.mark.parametrize("about", JOBS.values(), ids=JOBS)
def test_lightgbm_holds_what_its_model_gives_to_the_last_bit(about, tmp_path, monkeypatch):
    monkeypatch.setattr(judgement, "PROVEN_ROWS", 100)
    task = str(about.get("task", "binary"))
    job = replace(make_job(task), **about)
    train, valid = make_shard(3000, task=task), make_shard(1000, seed=1, task=task)
    fitted = fit("lightgbm", job, train, valid)
    model = Counting(load("lightgbm", fitted, tmp_path))
    found = valid_scores(model, valid, fitted.scores, job.seed)
    assert model.rows == [100]
    assert found.flags["C_CONTIGUOUS"]
    assert np.array_equal(found, scored(model.model, valid))


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("held", ["none", "another", "a row short"])
def test_rows_are_scored_where_nothing_or_something_else_was_held(
    name, held, tmp_path, monkeypatch
):
    monkeypatch.setattr(judgement, "PROVEN_ROWS", 100)
    job, valid = make_job(), make_shard(1000, seed=1)
    fitted = fit(name, job, make_shard(3000), valid)
    model = load(name, fitted, tmp_path)
    right = scored(model, valid)
    wrong = {"none": None, "another": np.nextafter(right, 1), "a row short": right[:-1]}[held]
    assert np.array_equal(valid_scores(model, valid, wrong, job.seed), right)


def test_of_a_down_sampled_training_the_scores_are_those_of_the_model(tmp_path):
    """Its own are put right by another formula than the model file is."""
    job, valid = make_job(shift=-1.5), make_shard(1000, seed=1)
    for name in ("xgboost", "lightgbm"):
        fitted = fit(name, job, make_shard(3000), valid)
        model = load(name, fitted, tmp_path)
        found = valid_scores(model, valid, fitted.scores, job.seed)
        assert np.array_equal(found, scored(model, valid))


def test_the_scores_that_are_held_are_those_of_the_round_that_is_kept():
    label = np.array([0.0, 1.0, 0.0, 1.0])
    scores = np.array([0.1, 0.2, 0.3, 0.4])  # AUC 0.75
    metric = ValidMetric(Alone(), label, make_job())
    assert metric(scores[::-1]) == 0.25
    best = metric(scores)
    theirs = scores * 2
    assert metric(theirs) == best  # no better: the first one is kept
    theirs[:] = 0
    assert np.array_equal(metric.scores_of(best), scores)
    assert metric.scores_of(0.25) is None
    every = ValidMetric(Alone(), label, make_job(early_stopping=None))
    every(scores)
    last = every(scores[::-1])
    assert np.array_equal(every.scores_of(last), scores[::-1])
    trial = ValidMetric(Alone(), label, make_job(is_kept=False))
    assert trial.scores_of(trial(scores)) is None  # many of them are at work at the same time
