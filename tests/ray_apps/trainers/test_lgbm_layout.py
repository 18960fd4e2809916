"""Trials on shared LightGBM bins by columns or by rows: the same trees, whatever a clock says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ray_apps.gang import Alone
from ray_apps.trainers import load_trainer
from ray_apps.trainers.lgbm_layout import faster_layout, share_from_which_rows_win
from ray_apps.trainers.lgbm_params import params_of
from tests.ray_apps.trainers.test_trainers import TASKS, go_on, make_job, make_shard

DRAWS = {"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.5, "num_leaves": 20}


def prepared(job, rows=3000):
    train, valid = make_shard(rows, task=job.task), make_shard(500, seed=1, task=job.task)
    return load_trainer("lightgbm").prepare(train, valid, job, Alone())


@pytest.mark.parametrize("params", [{}, DRAWS, {"feature_fraction_bynode": 0.5}, {"max_bin": 400}])
@pytest.mark.parametrize("task", TASKS)
def test_by_rows_a_trial_makes_the_trees_that_it_makes_by_columns(task, params):
    job = make_job(task, is_trial=True, params=params)
    data, found = prepared(job), []
    assert data.rows_from > 0
    for rows_from in (0.0, math.inf):
        own = replace(data, rows_from=rows_from)
        fitted = load_trainer("lightgbm").fit(own, job, Alone(), go_on)
        assert ("force_row_wise" in fitted.params) == (rows_from == 0)
        assert ("force_col_wise" in fitted.params) == (rows_from > 0)
        text, _, _ = fitted.model.decode().partition("\nparameters:")
        found.append((text, fitted.valid, fitted.rounds))
    assert found[0] == found[1]


def test_a_trial_is_by_rows_from_a_share_of_features_on():
    params = params_of(make_job(is_trial=True, params={"feature_fraction": 0.6}), Alone())
    assert "force_row_wise" in faster_layout(params, 0.6)
    assert faster_layout(params, 0.61) == params
    whole = params_of(make_job(is_trial=True), Alone())
    assert "force_row_wise" in faster_layout(whole, 1.0)
    assert faster_layout(whole, 1.01) == whole
    # a training of its own is by rows anyway
    alone = params_of(make_job(), Alone())
    assert faster_layout(alone, math.inf) == alone


def test_what_would_be_wrong_by_rows_is_not_tried():
    job = make_job(is_trial=True)
    binned = prepared(job).train
    params = params_of(job, Alone())
    assert 0 < share_from_which_rows_win(binned, params) < math.inf
    assert share_from_which_rows_win(binned, {**params, "linear_tree": True}) == math.inf
    # others of its search share these bins
    quantized = {**params, "use_quantized_grad": True}
    assert faster_layout(quantized, 0.0) == quantized


def test_what_is_tried_out_leaves_the_bins_as_they_are():
    job = make_job(is_trial=True)
    data = prepared(job)
    before = (data.train.num_data(), data.train.get_label().tobytes(), data.train.get_params())
    share_from_which_rows_win(data.train, params_of(job, Alone()))
    after = (data.train.num_data(), data.train.get_label().tobytes(), data.train.get_params())
    assert before == after
