"""Points of curves: each is true of the rows, and few tell as much as all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from arclight.curves import ACTUAL_BINS, CURVE_STEPS, actual_bins, curve_points
from arclight.report import EvalReport, evaluate_predictions
from arclight.samples import binary_sample

DICE = np.random.default_rng(5)


def drawn(rows: int, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.round(DICE.random(rows) ** 3, decimals)
    return (DICE.random(rows) < scores).astype(np.float64), scores


@pytest.mark.parametrize(("rows", "decimals"), [(5000, 6), (5000, 1), (30, 6)])
def test_every_point_is_what_its_threshold_does(rows: int, decimals: int) -> None:
    labels, scores = drawn(rows, decimals)
    points = curve_points(binary_sample(labels, scores))
    assert 2 <= len(points) <= 2 * (CURVE_STEPS + 1) + 2
    for point in points:
        called = scores >= point.threshold
        assert point.recall == pytest.approx(recall_score(labels, called))
        assert point.precision == pytest.approx(precision_score(labels, called))
        assert point.false_positive_rate == pytest.approx(called[labels == 0].mean())
    assert (points[-1].recall, points[-1].false_positive_rate) == (1.0, 1.0)
    assert [p.threshold for p in points] == sorted((p.threshold for p in points), reverse=True)


def test_few_points_keep_the_area_under_the_curve() -> None:
    labels, scores = drawn(5000, 6)
    points = curve_points(binary_sample(labels, scores))
    recall = [0.0, *(p.recall for p in points)]
    false = [0.0, *(p.false_positive_rate for p in points)]
    assert np.trapezoid(recall, false) == pytest.approx(roc_auc_score(labels, scores), abs=0.005)


@pytest.mark.parametrize(
    ("labels", "scores", "points"),
    [([], [], 0), ([1.0, 1.0], [0.1, 0.9], 0), ([0.0], [0.4], 0), ([0.0, 1.0], [0.5, 0.5], 1),
     ([0.0, 1.0], [0.2, 0.9], 2)],
)  # fmt: skip
def test_curves_of_few_rows(labels: list[float], scores: list[float], points: int) -> None:
    sample = binary_sample(np.array(labels), np.array(scores))
    assert len(curve_points(sample)) == points


def test_labels_are_told_by_prediction() -> None:
    scores = DICE.normal(size=4000)
    bins = actual_bins(2 * scores, scores)
    assert sum(b.rows for b in bins) == 4000
    assert len(bins) == ACTUAL_BINS
    assert all(b.low <= b.median <= b.high for b in bins)
    assert [b.mean_score for b in bins] == sorted(b.mean_score for b in bins)
    assert bins[10].median == pytest.approx(2 * bins[10].mean_score, abs=0.02)
    (one,) = actual_bins(np.array([3]), np.array([2.0]))
    assert (one.rows, one.mean_score, one.low, one.high) == (1, 2.0, 3.0, 3.0)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_report_of_an_older_release_is_read(task: str) -> None:
    labels, scores = drawn(200, 3)
    report = evaluate_predictions(task, labels, scores, seed=1, dataset="d@1", resamples=0)
    assert bool(report.curve) == (task == "binary")
    assert bool(report.actual) == (task == "regression")
    body = json.loads(report.to_json())
    del body["curve"], body["actual"], body["own"]
    old = EvalReport.from_json(json.dumps(body))
    assert (old.curve, old.actual) == ((), ())
