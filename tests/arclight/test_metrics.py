from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from arclight.errors import SpecError
from arclight.metrics import (
    METRICS,
    confusion_matrix,
    default_metric,
    measure,
    measure_scores,
    metric_for,
    metrics_of,
)
from arclight.samples import binary_sample, make_sample
from arclight.thresholds import best_f1_threshold, cheapest_threshold

BINARY = {
    "auc": reference.roc_auc_score,
    "average_precision": reference.average_precision_score,
    "log_loss": lambda y, p: reference.log_loss(y, np.clip(p, 1e-15, 1 - 1e-15), labels=[0, 1]),
    "brier": reference.brier_score_loss,
    "accuracy": lambda y, p: reference.accuracy_score(y, p >= 0.4),
    "precision": lambda y, p: reference.precision_score(y, p >= 0.4),
    "recall": lambda y, p: reference.recall_score(y, p >= 0.4),
    "f1": lambda y, p: reference.f1_score(y, p >= 0.4),
}
AVERAGED = {
    f"{how}_{name}": (function, how)
    for how in ("macro", "weighted")
    for name, function in (
        ("precision", reference.precision_score),
        ("recall", reference.recall_score),
        ("f1", reference.f1_score),
    )
}
REGRESSION = {
    "rmse": reference.root_mean_squared_error,
    "mae": reference.mean_absolute_error,
    "r2": reference.r2_score,
    "median_absolute_error": reference.median_absolute_error,
    "bias": lambda y, p: (p - y).mean(),
}


def binary_rows(rows: int, decimals: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(rows), decimals)  # few decimals: many ties, and exact 0 and 1
    return (rng.random(rows) < 0.2 + 0.5 * scores).astype(np.float64), scores


def class_rows(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    odds = np.exp(np.round(rng.normal(size=(rows, classes)), 1))
    p = odds / odds.sum(axis=1, keepdims=True)
    return (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1), p


def plain_ece(confidence: np.ndarray, hit: np.ndarray) -> float:
    place = np.minimum((confidence * 10).astype(int), 9)
    total = 0.0
    for k in range(10):
        inside = place == k
        if inside.any():
            total += inside.sum() * abs(hit[inside].mean() - confidence[inside].mean())
    return total / len(hit)


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("name", BINARY)
def test_binary_figures_equal_the_reference(name, decimals):
    y, p = binary_rows(3001, decimals)
    ours = metric_for("binary", name).value("binary", make_sample("binary", y, p, 0.4))
    assert ours == pytest.approx(BINARY[name](y, p), rel=1e-12)


@pytest.mark.parametrize("weights_seed", [1, 2])
@pytest.mark.parametrize("name", BINARY)
def test_a_line_of_counts_is_the_rows_repeated(name, weights_seed):
    y, p = binary_rows(500, 2)
    counts = np.random.default_rng(weights_seed).poisson(1.0, size=500)
    again_y, again_p = np.repeat(y, counts), np.repeat(p, counts)
    base = make_sample("binary", y, p, 0.4)
    cells = np.concatenate([base.scores, base.scores])
    side = np.repeat([0, 1], len(base.scores))
    weights = np.array(
        [counts[(p == s) & (y == c)].sum() for s, c in zip(cells, side, strict=True)], float
    )
    line = METRICS[name].lines("binary", base.drawn(np.stack([base.weights[0], weights])))
    assert line[0] == pytest.approx(BINARY[name](y, p), rel=1e-12)
    assert line[1] == pytest.approx(BINARY[name](again_y, again_p), rel=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_ece_equals_the_plain_loop(decimals):
    y, p = binary_rows(2000, decimals)
    p[:3] = [0.0, 1.0, 0.3]
    # tenths are compared as numbers here and as cut points there: move ties off the edges
    p = np.where(np.isin(p, np.arange(1, 10) / 10), p + 1e-9, p)
    assert measure("binary", "ece", y, p) == pytest.approx(plain_ece(p, y), rel=1e-9)


def test_a_reliability_bin_holds_its_lower_edge():
    # 0.1 falls into [0.1, 0.2) with 0.19, not into [0, 0.1)
    y, p = np.array([1.0, 0.0]), np.array([0.1, 0.19])
    assert measure("binary", "ece", y, p) == pytest.approx(abs(1 - 0.29) / 2)


@pytest.mark.parametrize("classes", [3, 7])
@pytest.mark.parametrize("name", AVERAGED)
def test_averaged_class_figures_equal_the_reference(name, classes):
    y, p = class_rows(900, classes)
    function, how = AVERAGED[name]
    expected = function(y, p.argmax(axis=1), average=how, zero_division=0)
    assert measure("multiclass", name, y, p) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", AVERAGED)
def test_averages_over_unseen_classes_equal_the_reference(name):
    # class 2 is only predicted, class 3 only a label, class 4 neither
    y = np.array([0, 0, 1, 1, 3, 0])
    called = np.array([0, 2, 1, 1, 0, 0])
    p = np.full((6, 5), 0.1)
    p[np.arange(6), called] = 0.6
    function, how = AVERAGED[name]
    expected = function(y, called, average=how, zero_division=0)
    assert measure("multiclass", name, y, p) == pytest.approx(expected, rel=1e-12)


def test_other_class_figures_equal_the_reference():
    y, p = class_rows(2000, 4)
    expected = {
        "log_loss": reference.log_loss(y, p),
        "accuracy": reference.accuracy_score(y, p.argmax(axis=1)),
        "macro_auc": reference.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "ece": plain_ece(p.max(axis=1), (p.argmax(axis=1) == y).astype(float)),
    }
    for name, value in expected.items():
        assert measure("multiclass", name, y, p) == pytest.approx(value, rel=1e-12), name


def test_macro_auc_leaves_out_a_class_without_rows():
    y, p = class_rows(400, 3)
    wider = np.hstack(
        [
            p * 0.5,  # a power of two keeps the ties
            np.full((400, 1), 0.1),
        ]
    )
    assert measure("multiclass", "macro_auc", y, wider) == pytest.approx(
        measure("multiclass", "macro_auc", y, p)
    )


def test_class_weights_are_the_rows_repeated():
    y, p = class_rows(600, 4)
    counts = np.random.default_rng(3).poisson(1.0, size=600)
    once = make_sample("multiclass", y, p)
    again = make_sample("multiclass", np.repeat(y, counts), np.repeat(p, counts, axis=0))
    for metric in metrics_of("multiclass"):
        line = metric.lines("multiclass", once.drawn(counts[None, :].astype(float)))[0]
        assert line == pytest.approx(metric.value("multiclass", again), rel=1e-12), metric.name


@pytest.mark.parametrize("rows", [1001, 1000])
@pytest.mark.parametrize("name", REGRESSION)
def test_regression_figures_equal_the_reference(name, rows):
    rng = np.random.default_rng(5)
    y = rng.normal(1e6, 3, size=rows)  # far from zero: squares would cancel
    p = np.round(y + rng.standard_t(3, size=rows), 2)
    metric = METRICS[name]
    ours = metric.value("regression", make_sample("regression", y, p))
    assert ours == pytest.approx(REGRESSION[name](y, p), rel=1e-9)


def test_regression_weights_are_the_rows_repeated():
    rng = np.random.default_rng(6)
    y = rng.normal(size=501)
    once = make_sample("regression", y, y + rng.normal(size=501))
    counts = rng.poisson(1.0, size=501)
    labels, errors = np.repeat(once.labels, counts), np.repeat(once.errors, counts)
    for name, function in REGRESSION.items():
        line = METRICS[name].lines("regression", once.drawn(counts[None, :].astype(float)))[0]
        assert line == pytest.approx(function(labels, labels + errors), rel=1e-9), name


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_no_rows_have_no_figures(task):
    predictions = np.zeros((0, 3)) if task == "multiclass" else np.zeros(0)
    sample = make_sample(task, np.zeros(0), predictions)
    assert {metric.value(task, sample) for metric in metrics_of(task)} == {None}


@pytest.mark.parametrize(
    ("label", "undefined"),
    [(1.0, {"auc"}), (0.0, {"auc", "average_precision", "recall"})],
)
def test_one_class_leaves_some_figures_undefined(label, undefined):
    sample = make_sample("binary", np.full(9, label), np.linspace(0.1, 0.9, 9))
    found = {m.name for m in metrics_of("binary") if m.value("binary", sample) is None}
    assert found == undefined


def test_precision_is_undefined_when_nothing_is_called_positive():
    y, p = np.array([0.0, 1.0]), np.array([0.1, 0.2])
    assert measure("binary", "precision", y, p) is None
    assert measure("binary", "f1", y, p) == 0.0


@pytest.mark.parametrize(("labels", "figure"), [([0, 1], 0.0), ([0, 0], None), ([1, 1], None)])
def test_while_a_model_is_trained_precision_is_0_where_both_classes_are(labels, figure):
    scores = np.array([0.1, 0.2])
    assert measure_scores("binary", "precision", np.array(labels, float), scores) == figure


@pytest.mark.parametrize("label", [0.0, 0.1, 1e9 + 0.1])
def test_r2_of_a_constant_label_is_undefined(label):
    assert measure("regression", "r2", np.full(7, label), np.arange(7.0)) is None


def test_r2_of_a_resample_of_one_row_is_undefined():
    # its spread is a difference of equal squares: zero, or rounding
    sample = make_sample("regression", np.array([0.0, 0.1, 0.7]), np.array([0.1, 0.3, 1.0]))
    repeated = np.outer(np.arange(1.0, 60), [1, 0, 0])
    for row in range(3):
        lines = METRICS["r2"].lines("regression", sample.drawn(np.roll(repeated, row, axis=1)))
        assert np.isnan(lines).all()


def test_constant_scores_have_no_ranking():
    assert measure("binary", "auc", np.array([0.0, 1.0, 1.0]), np.full(3, 0.4)) == 0.5


def test_certain_and_wrong_is_a_finite_loss():
    assert measure("binary", "log_loss", np.ones(1), np.zeros(1)) == pytest.approx(
        -np.log(1e-15), rel=1e-9
    )


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_best_f1_threshold_beats_every_other(decimals):
    y, p = binary_rows(400, decimals, seed=9)
    best = best_f1_threshold(y, p)
    scores = [reference.f1_score(y, p >= t) for t in np.unique(p)]
    assert reference.f1_score(y, p >= best) == max(scores)


@pytest.mark.parametrize(
    ("labels", "scores", "best"),
    [
        # f1 is 2/3 at 0.9 (tp 1, fn 1) and at 0.2 (tp 2, fp 2): the higher one
        ([1, 0, 0, 1], [0.9, 0.5, 0.4, 0.2], 0.7),
        ([1, 1, 0], [0.75, 0.5, 0.25], 0.375),
        ([1, 1], [0.75, 0.5], 0.25),  # no score is lower, and none can be below 0
        ([1, 0], [0.0, 0.0], 0.0),
        ([1, 0], [np.nextafter(0.5, 1), 0.5], np.nextafter(0.5, 1)),  # no number is between
        ([0, 0], [0.3, 0.6], 0.5),
        ([], [], 0.5),
    ],
)
def test_best_f1_threshold_has_one_answer(labels, scores, best):
    assert best_f1_threshold(np.array(labels, float), np.array(scores, float)) == best


@pytest.mark.parametrize("bits", [-1, 1])
def test_last_bits_of_a_score_move_no_label(bits):
    """A network gives a row in a request other last bits than in a batch."""
    y, p = binary_rows(400, 2, seed=9)
    p = np.clip(p, 0.01, 0.99)
    moved = (p.astype(np.float32) * (1 + bits * np.finfo(np.float32).eps)).astype(np.float64)
    found = [best_f1_threshold(y, p)]
    for costs in ((1, 1), (1, 5), (5, 1), (1, 1e6), (1e6, 1)):
        pair = {"false_positive": costs[0], "false_negative": costs[1]}
        found.append(cheapest_threshold(y, p, **pair))
    for threshold in found:
        assert np.array_equal(moved >= threshold, p >= threshold)


def test_threshold_counts_a_row_at_it_as_positive():
    counts = binary_sample(np.array([1.0, 0.0]), np.array([0.5, 0.49]), 0.5).counts
    assert (counts.tp[0], counts.tn[0], counts.fp[0], counts.fn[0]) == (1, 1, 0, 0)


def test_confusion_matrix_equals_the_reference():
    y, p = class_rows(500, 5)
    called = p.argmax(axis=1)
    assert (confusion_matrix(y, called, 5) == reference.confusion_matrix(y, called)).all()


@pytest.mark.parametrize("costs", [(1, 1), (1, 5), (5, 1), (1e-6, 1), (1, 1e-6)])
@pytest.mark.parametrize("decimals", [1, 3])
def test_the_cheapest_threshold_beats_every_other(costs, decimals):
    rng = np.random.default_rng(decimals)
    p = rng.random(300).round(decimals)
    y = (rng.random(300) < p).astype(float)
    positive, negative = costs

    def cost(t):
        return positive * ((p >= t) & (y == 0)).sum() + negative * ((p < t) & (y == 1)).sum()

    best = cheapest_threshold(y, p, false_positive=positive, false_negative=negative)
    others = [*np.unique(p), 2.0]
    assert cost(best) == min(cost(t) for t in others)
    called = (p >= best).sum()
    assert all(cost(t) > cost(best) for t in others if 0 < (p >= t).sum() < called)


def test_the_cheapest_threshold_may_call_nobody_and_needs_no_rows():
    y, p = np.array([0.0, 0.0, 1.0]), np.array([0.9, 0.8, 0.1])
    nobody = cheapest_threshold(y, p, false_positive=9, false_negative=1)
    assert nobody > 0.9
    assert not (p >= nobody).any()
    sure = cheapest_threshold(y, np.ones(3), false_positive=9, false_negative=1)
    assert not (np.ones(3) >= sure).any()
    assert cheapest_threshold(y[:0], p[:0], false_positive=1, false_negative=1) == 0.5


@pytest.mark.parametrize(
    ("task", "name"), [("binary", "auc"), ("multiclass", "log_loss"), ("regression", "rmse")]
)
def test_each_task_has_a_default_that_fits(task, name):
    assert default_metric(task) == name
    assert metric_for(task, name).name == name


@pytest.mark.parametrize(
    ("task", "name", "match"),
    [
        ("binary", "acu", r"must be one of auc, .*got 'acu'\. Did you mean 'auc'\?"),
        ("regression", "auc", r"metric of a regression task must be one of rmse, mae, r2"),
        ("multiclass", "macro_ac", r"Did you mean 'macro_auc'\?"),
        ("regression", "bias", "got 'bias'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(task, name, match):
    with pytest.raises(SpecError, match=match):
        metric_for(task, name)


def test_directions_agree_with_a_better_model():
    y, p = binary_rows(2000, 12)
    for metric in metrics_of("binary"):
        good = metric.value("binary", make_sample("binary", y, 0.01 + 0.98 * y))
        bad = metric.value("binary", make_sample("binary", y, 1 - p))
        assert (good > bad) == metric.higher_is_better, metric.name


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from([0.0, -0.0, 5e-324, 0.1, 0.5, np.nextafter(0.5, 1), 1.0, np.inf]),
                st.floats(min_value=-2, max_value=2),
            ),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_rows_are_put_together_by_score_whatever_the_sign(pairs):
    """Scores below 0 are sorted in another way than those that are none."""
    scores, labels = (np.array([pair[i] for pair in pairs], np.float64) for i in (0, 1))
    for mine in (scores, np.abs(scores)):
        found = binary_sample(labels, mine)
        assert found.scores.tolist() == sorted(set(mine.tolist()))
        for place, score in enumerate(found.scores):
            rows = labels[mine == score]
            assert found.pos[0, place] == rows.sum()
            assert found.neg[0, place] == len(rows) - rows.sum()
