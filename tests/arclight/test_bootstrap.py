from __future__ import annotations

import numpy as np
import pytest

from arclight import bootstrap as bootstrapping
from arclight.bootstrap import SCORE_CELLS, bootstrap, condense, draws, thin
from arclight.metrics import METRICS, metrics_of
from arclight.samples import make_sample


def rows_of(task: str, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = rng.normal(size=rows)
        return y, y + rng.normal(0.1, 1, size=rows)
    if task == "binary":
        p = rng.beta(1.5, 4, size=rows)
        return (rng.random(rows) < p).astype(float), p
    odds = np.exp(rng.normal(size=(rows, 4)))
    p = odds / odds.sum(axis=1, keepdims=True)
    return (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1), p


def run(task: str, rows: int, *, seed: int = 1, resamples: int = 200, data_seed: int = 0):
    sample = make_sample(task, *rows_of(task, rows, data_seed), 0.3)
    return bootstrap(task, sample, metrics_of(task), seed=seed, resamples=resamples)


TASKS = ["binary", "multiclass", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_the_seed_decides(task):
    assert run(task, 400) == run(task, 400)
    assert run(task, 400).intervals != run(task, 400, seed=2).intervals


@pytest.mark.parametrize("task", TASKS)
def test_every_figure_has_an_interval_near_it(task):
    found = run(task, 3000)
    assert list(found.intervals) == [metric.name for metric in metrics_of(task)]
    for name, interval in found.intervals.items():
        assert interval.low < interval.high, name
        if name != "ece":  # biased upwards by resampling, see the module
            assert interval.low < interval.value < interval.high, name


@pytest.mark.parametrize("rows", [20, 5000])
@pytest.mark.parametrize("cells", [10, 20])
def test_a_draw_has_as_many_rows_and_the_right_means(rows, cells):
    rng = np.random.default_rng(0)
    counts = np.bincount(np.arange(rows) % (cells // 2) * 2, minlength=cells).astype(float)
    lines = np.concatenate(list(draws(counts, 4000, rng)))
    assert lines.shape == (4000, cells)
    assert (lines.sum(axis=1) == rows).all()
    assert (lines[:, counts == 0] == 0).all()
    spread = np.sqrt(counts * (1 - counts / rows))  # of a multinomial count
    assert np.abs(lines.mean(axis=0) - counts).max() < 5 * spread.max() / np.sqrt(4000)
    assert np.allclose(lines.std(axis=0), spread, rtol=0.1)


def test_intervals_cover_the_truth():
    # mean of 60 exponential errors, truth 1; 200 simulations, nominal 95%
    held = 0
    for seed in range(200):
        errors = np.random.default_rng(seed).exponential(size=60)
        sample = make_sample("regression", np.zeros(60), errors)
        found = bootstrap("regression", sample, [METRICS["bias"]], seed=seed, resamples=200)
        held += found.intervals["bias"].low <= 1.0 <= found.intervals["bias"].high
    assert 0.87 <= held / 200 <= 0.985


def test_auc_intervals_cover_the_truth():
    truth = 0.76025  # Phi(1 / sqrt 2) of two normals one apart
    held = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        y = (np.arange(300) % 3 == 0).astype(float)
        score = 1 / (1 + np.exp(-rng.normal(y)))
        found = bootstrap(
            "binary", make_sample("binary", y, score), [METRICS["auc"]], seed=seed, resamples=200
        )
        held += found.intervals["auc"].low <= truth <= found.intervals["auc"].high
    assert 0.88 <= held / 150 <= 0.993


def test_the_interval_of_a_mean_is_the_one_of_theory():
    found = run("regression", 4000, resamples=1000).intervals["bias"]
    y, p = rows_of("regression", 4000)
    half = 1.96 * (p - y).std() / np.sqrt(4000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize("task", TASKS)
def test_condensing_keeps_figures_and_widths(task, monkeypatch):
    whole = run(task, 30_000, resamples=300)
    monkeypatch.setattr(bootstrapping, "MAX_SCORES", 5000)
    monkeypatch.setattr(bootstrapping, "MAX_KEPT", 12_000)
    small = run(task, 30_000, resamples=300)
    assert whole.condensed_to is None
    assert small.condensed_to is not None
    assert small.condensed_to < 30_000
    for name, interval in small.intervals.items():
        full = whole.intervals[name]
        assert interval.value == full.value, name
        if name == "ece":
            continue
        assert interval.low < interval.value < interval.high, name
        assert interval.high - interval.low == pytest.approx(full.high - full.low, rel=0.25), name


def test_merged_scores_keep_counts_and_stay_on_their_side():
    y, p = rows_of("binary", 200_000)
    sample = make_sample("binary", y, p, 0.2345)
    merged = condense(sample, np.random.default_rng(0))
    assert len(merged.scores) <= SCORE_CELLS + 12
    assert (np.diff(merged.scores) > 0).all()
    for kind in ("tn", "fp", "fn", "tp"):
        assert getattr(merged.counts, kind)[0] == getattr(sample.counts, kind)[0]
    for name in ("auc", "average_precision", "log_loss", "brier", "ece"):
        exact, near = (METRICS[name].value("binary", s) for s in (sample, merged))
        # intervals are 1.8e-3 to 7.6e-3 wide here, and the shift is put back besides
        assert near == pytest.approx(exact, abs=3e-4), name


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_of_many_rows_is_condensed_too(label):
    p = np.random.default_rng(0).random(100_000)
    sample = make_sample("binary", np.full(100_000, label), p)
    found = bootstrap("binary", sample, [METRICS["auc"], METRICS["brier"]], seed=1, resamples=20)
    assert found.intervals["auc"] == bootstrapping.Interval(None)
    assert found.intervals["brier"].low < found.intervals["brier"].value


def test_thin_keeps_small_strata_whole():
    strata = np.repeat([0, 1, 3], [10, 5000, 90_000])
    index, weights = thin(strata, 1000, np.random.default_rng(0))
    assert len(index) == len(weights) == 1000
    assert (np.diff(index) > 0).all()
    assert np.bincount(strata[index]).tolist() == [10, 495, 0, 495]
    assert np.allclose(np.bincount(strata[index], weights=weights), [10, 5000, 0, 90_000])


def test_many_classes_get_fewer_resamples(monkeypatch):
    monkeypatch.setattr(bootstrapping, "_CLASS_WORK", 150 * 4 * 50)
    assert run("multiclass", 50, resamples=400).resamples == 150
    monkeypatch.setattr(bootstrapping, "_CLASS_WORK", 1)
    assert run("multiclass", 50, resamples=400).resamples == 100
    assert run("multiclass", 50, resamples=30).resamples == 30


@pytest.mark.parametrize("task", TASKS)
def test_nothing_to_draw_from(task):
    predictions = np.zeros((0, 3)) if task == "multiclass" else np.zeros(0)
    sample = make_sample(task, np.zeros(0), predictions)
    found = bootstrap(task, sample, metrics_of(task), seed=1)
    assert set(found.intervals.values()) == {bootstrapping.Interval(None)}


def test_resamples_of_one_class_are_left_out():
    # one positive of four: about a third of the resamples have none
    sample = make_sample("binary", np.array([0, 0, 0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4]))
    found = bootstrap("binary", sample, [METRICS["auc"]], seed=1, resamples=50)
    assert found.intervals["auc"] == bootstrapping.Interval(1.0, 1.0, 1.0)


def test_no_resamples_no_intervals():
    found = run("binary", 200, resamples=0)
    assert found.resamples == 0
    assert {(i.low, i.high) for i in found.intervals.values()} == {(None, None)}
    assert found.intervals["auc"].value is not None


def test_condensing_keeps_outliers():
    y = np.zeros(300_000)
    errors = np.random.default_rng(0).normal(size=300_000)
    sample = make_sample("regression", y, errors)
    small = condense(sample, np.random.default_rng(0))
    assert len(small.errors) == bootstrapping.MAX_KEPT
    assert (np.diff(np.abs(small.errors)) >= 0).all()
    tail = bootstrapping.MAX_KEPT // 4
    assert np.array_equal(small.errors[-tail:], sample.errors[-tail:])
    assert small.weights.sum() == pytest.approx(300_000)


def test_an_interval_stays_where_the_metric_can_be(monkeypatch):
    # one wrong row of many: where it is kept it weighs more than one row, and the shift is upwards
    monkeypatch.setattr(bootstrapping, "MAX_KEPT", 500)
    y = np.arange(1250) % 2
    p = np.eye(2)[y]
    p[0] = p[0, ::-1]
    sample = make_sample("multiclass", y, p)
    accuracy, loss = METRICS["accuracy"], METRICS["log_loss"]
    for seed in range(8):
        found = bootstrap("multiclass", sample, [accuracy, loss], seed=seed, resamples=50)
        assert found.condensed_to == 500
        assert found.intervals["accuracy"].high <= 1.0
        assert found.intervals["log_loss"].low >= 0.0
