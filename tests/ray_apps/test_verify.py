"""Verification: silent on a sound model, and able to see each way to wrong numbers."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from arclight.errors import DataError
from arclight.features import FeatureBuilder
from arclight.progress import silent
from ray_apps import verify as module
from ray_apps.predictor import load_predictor
from ray_apps.rows import from_json_rows
from ray_apps.verify import verify_model
from tests.ray_apps.make_dataset import SPACED


def endpoint(made, bundle, off=0.0):
    predictor = load_predictor(made.catalog, bundle, threads=1)

    def answer(rows):
        assert len(rows) <= 100
        raw = from_json_rows(rows, bundle.signature.inputs)
        return (predictor.predict(raw).scores + off).tolist()

    return answer


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_sound_model_is_verified_three_ways(trained, task, name):
    made, bundle = trained(task, name)
    report = verify_model(made.catalog, bundle, endpoint=endpoint(made, bundle), tick=silent)
    assert report.ok
    assert [(check.rows, check.worst) for check in report.checks] == [(200, 0.0)] * 3


def test_without_an_endpoint_two_ways_are_left(trained):
    made, bundle = trained("binary", "lightgbm")
    assert len(verify_model(made.catalog, bundle, endpoint=None, tick=silent).checks) == 2


def test_a_served_score_that_is_off_names_row_and_column(trained):
    made, bundle = trained("binary", "lightgbm")
    served = endpoint(made, bundle, off=1e-4)
    report = verify_model(made.catalog, bundle, endpoint=served, tick=silent)
    assert not report.ok
    bad = report.checks[2]
    assert bad.differing == 200
    assert bad.worst == pytest.approx(1e-4)
    assert bad.worst_row.startswith("id=")
    assert bad.worst_column == "score 0"


class _Drifted(FeatureBuilder):
    """A builder that another release got wrong in one column."""

    def build(self, raw):
        built = super().build(raw)
        built.columns[SPACED] = pc.add(built.columns[SPACED], 1)
        return built


def test_a_builder_that_drifted_is_caught_by_the_stored_features(trained, monkeypatch):
    made, bundle = trained("binary", "lightgbm")
    monkeypatch.setattr(module, "FeatureBuilder", _Drifted)
    report = verify_model(made.catalog, bundle, endpoint=None, tick=silent)
    assert not report.ok
    assert report.checks[0].worst_column == SPACED
    assert report.checks[0].worst == pytest.approx(1)
    assert report.checks[1].differing == 0


def test_an_endpoint_must_answer_every_row(trained):
    made, bundle = trained("binary", "lightgbm")
    with pytest.raises(DataError, match="gave 2 answers to 200 rows"):
        verify_model(made.catalog, bundle, endpoint=lambda rows: [0.5], tick=silent)
