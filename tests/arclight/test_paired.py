"""How far apart two models are on the same rows, by figures that each has by itself."""

from __future__ import annotations

import numpy as np
import pytest

from arclight import paired
from arclight.metrics import measure
from arclight.paired import MAX_ROWS, Redrawn, difference, redraw


def binary(rows: int, share: float = 0.4, seed: int = 0):
    """Labels, scores that know them, and scores that know them less."""
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < share).astype(float)
    good = np.clip(label * 0.3 + rng.random(rows) * 0.7, 0, 1)
    return label, good, np.clip(good + 0.3 * rng.standard_normal(rows), 0, 1)


def test_of_two_the_same_rows_are_drawn():
    label, good, worse = binary(3000)
    one, other = (redraw("binary", "auc", label, scores) for scores in (good, worse))
    assert difference(one, one) == (0.0, 0.0)
    low, high = difference(one, other)
    assert 0 < low < high
    assert difference(other, one) == pytest.approx((-high, -low))
    none = redraw("binary", "auc", np.ones(9), np.ones(9))
    assert difference(none, none) is None


@pytest.mark.parametrize(
    ("task", "metric"),
    [("binary", "auc"), ("binary", "f1"), ("multiclass", "macro_auc"), ("multiclass", "macro_f1"),
     ("regression", "rmse"), ("regression", "median_absolute_error"), ("regression", "r2")],
)  # fmt: skip
def test_the_interval_is_that_of_a_plain_bootstrap_of_pairs(task: str, metric: str):
    rng = np.random.default_rng(3)
    if task == "binary":
        label, one, other = binary(800)
        one, other = one.round(2), other.round(2)  # ties
    elif task == "multiclass":
        label = rng.integers(0, 3, 800)
        raw = np.eye(3)[label] + rng.exponential(1, (2, 800, 3))
        one, other = raw / raw.sum(axis=2, keepdims=True)
    else:
        label = rng.standard_normal(800)
        one, other = (label + rng.standard_normal(800) * spread for spread in (0.5, 0.6))
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, 800, 800)
        figures = [measure(task, metric, label[rows], s[rows]) for s in (one, other)]
        drawn.append(figures[0] - figures[1])
    low, high = np.quantile(drawn, (0.025, 0.975))
    found = difference(redraw(task, metric, label, one), redraw(task, metric, label, other))
    assert found == pytest.approx((low, high), abs=0.15 * (high - low))


def test_many_rows_give_as_narrow_an_interval_as_they_should():
    rng = np.random.default_rng(0)
    widths = []
    for rows in (2 * MAX_ROWS, 8 * MAX_ROWS):
        label = rng.standard_normal(rows)
        one, other = (
            redraw("regression", "rmse", label, label + rng.standard_normal(rows) * spread)
            for spread in (0.5, 0.6)
        )
        low, high = difference(one, other)
        assert low < -0.1 < high  # errors of spread 0.5 and 0.6
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.25)


def test_rare_positives_of_many_rows_stay(monkeypatch: pytest.MonkeyPatch):
    """Of 32,000 rows 80 are positive: 4,000 by chance would have ten of them."""
    monkeypatch.setattr(paired, "MAX_ROWS", 4000)
    spreads, widths = [], []
    for seed in range(8):
        label, good, worse = binary(32_000, share=0.0025, seed=seed)
        one, other = (redraw("binary", "auc", label, scores) for scores in (good, worse))
        low, high = difference(one, other)
        spreads.append(one.value - other.value)
        widths.append((high - low) / 3.92)
    assert np.std(spreads) / 2 < np.mean(widths) < np.std(spreads) * 2
    assert np.std(widths) < 0.3 * np.mean(widths)


def test_figures_of_other_rows_have_no_difference():
    label, good, worse = binary(500)
    ours = redraw("binary", "auc", label, good, keys=b"a")
    assert difference(ours, redraw("binary", "auc", label, worse, keys=b"a")) is not None
    assert difference(ours, redraw("binary", "auc", label, worse, keys=b"b")) is None
    assert difference(ours, redraw("binary", "f1", label, worse, keys=b"a")) is None
    turned = redraw("binary", "auc", label[::-1], worse[::-1], keys=b"a")
    assert difference(ours, turned) is None


def test_they_survive_json():
    label, good, _ = binary(50)
    found = redraw("binary", "precision", label, good, threshold=0.999)
    assert None in found.drawn
    assert Redrawn.model_validate_json(found.model_dump_json()) == found
