from __future__ import annotations

import pickle
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, roc_auc_score

from arclight.errors import DataError, IntegrityError, MissingError, SpecError
from arclight.metrics import metrics_of
from arclight.report import EvalReport, evaluate_predictions, figure_rows


def rows_of(task: str, rows: int = 900) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    if task == "regression":
        y = rng.normal(size=rows)
        return y, y + rng.normal(size=rows)
    if task == "binary":
        p = rng.random(rows)
        return (rng.random(rows) < p).astype(float), p
    odds = np.exp(rng.normal(size=(rows, 3)))
    p = odds / odds.sum(axis=1, keepdims=True)
    return (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1), p


def report_of(task: str, rows: int = 900, **changes) -> EvalReport:
    y, p = rows_of(task, rows)
    options = {
        "classes": ("a", "b", "c") if task == "multiclass" else (),
        "segments": {"carrier": pa.array(["AA", "UA", None] * (rows // 3))},
        "seed": 7,
        "dataset": "flights@3",
        "resamples": 40,
        "threshold": 0.4 if task == "binary" else None,
    }
    return evaluate_predictions(task, y, p, **(options | changes))


TASKS = ["binary", "multiclass", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_a_report_survives_json_and_pickling(task):
    report = report_of(task, model="flights@2", opening="evaluate-1")
    assert EvalReport.from_json(report.to_json()) == report
    assert EvalReport.from_json(report.to_json()).digest == report.digest
    assert pickle.loads(pickle.dumps(report)) == report


@pytest.mark.parametrize("task", TASKS)
def test_the_same_inputs_give_the_same_report(task):
    assert report_of(task) == report_of(task)
    assert report_of(task).digest != report_of(task, seed=8).digest


@pytest.mark.parametrize("task", TASKS)
def test_a_report_holds_every_figure_of_its_task(task):
    report = report_of(task)
    assert [row[0] for row in figure_rows(report)] == [m.name for m in metrics_of(task)]
    for name, value, low, high in figure_rows(report):
        assert None not in (value, low, high), name
        assert report.figure(name).value == value


def test_binary_counts_confusion_and_reliability():
    y, p = rows_of("binary")
    report = report_of("binary")
    assert (report.rows, report.positives) == (900, int(y.sum()))
    assert report.class_counts == (900 - int(y.sum()), int(y.sum()))
    assert np.array_equal(report.confusion, confusion_matrix(y, p >= 0.4))
    assert report.threshold == 0.4
    observed, mean = calibration_curve(y, p, n_bins=10)
    assert [b.observed for b in report.reliability] == pytest.approx(observed)
    assert [b.mean_score for b in report.reliability] == pytest.approx(mean)
    assert sum(b.rows for b in report.reliability) == 900
    assert (report.reliability[3].start, report.reliability[3].end) == (0.3, 0.4)


def test_an_empty_reliability_bin_has_no_rate():
    report = evaluate_predictions(
        "binary", np.array([0, 1.0]), np.array([0.05, 0.95]), seed=1, dataset="d@1"
    )
    empty = report.reliability[5]
    assert (empty.rows, empty.mean_score, empty.observed) == (0, None, None)
    assert report.threshold == 0.5


def test_multiclass_counts_confusion_and_reliability():
    y, p = rows_of("multiclass")
    report = report_of("multiclass")
    assert report.class_counts == tuple(np.bincount(y))
    assert np.array_equal(report.confusion, confusion_matrix(y, p.argmax(axis=1)))
    assert sum(b.rows for b in report.reliability) == 900
    assert (report.positives, report.threshold) == (None, None)


def test_regression_has_no_classes():
    report = report_of("regression")
    assert (report.positives, report.class_counts, report.confusion) == (None, (), ())
    assert (report.reliability, report.threshold) == ((), None)


CONSTANTS = [
    ("binary", "auc", lambda _: 0.5),
    ("binary", "log_loss", lambda y: -np.mean(np.log(np.where(y == 1, y.mean(), 1 - y.mean())))),
    ("multiclass", "log_loss", lambda y: -np.mean(np.log((np.bincount(y) / len(y))[y]))),
    ("multiclass", "accuracy", lambda y: np.bincount(y).max() / len(y)),
    ("regression", "rmse", np.std),
    ("regression", "r2", lambda _: 0.0),
]


@pytest.mark.parametrize(("task", "metric", "wanted"), CONSTANTS)
def test_a_model_is_held_against_one_prediction_for_every_row(task, metric, wanted):
    y, p = rows_of(task)
    classes = ("a", "b", "c") if task == "multiclass" else ()

    def judge(predictions):
        return evaluate_predictions(
            task, y, predictions, classes=classes, metric=metric, seed=1, dataset="d@1",
            resamples=0,
        )  # fmt: skip

    assert judge(p).constant == pytest.approx(wanted(y), abs=1e-9)
    assert not judge(p).is_no_better_than_constant
    turned = p[:, ::-1] if task == "multiclass" else p.max() - p
    assert judge(turned).is_no_better_than_constant


@pytest.mark.parametrize("task", TASKS)
def test_a_segment_is_what_its_rows_alone_give(task):
    y, p = rows_of(task)
    report = report_of(task)
    assert [(s.level, s.rows) for s in report.segments] == [
        ("AA", 300), ("UA", 300), ("null", 300),
    ]  # fmt: skip
    alone = evaluate_predictions(
        task, y[1::3], p[1::3], classes=report.classes, threshold=report.threshold,
        seed=7, dataset="flights@3", resamples=40,
    )  # fmt: skip
    segment = report.segments[1]
    assert segment.positives == alone.positives
    for ours, theirs in zip(segment.figures, alone.figures, strict=True):
        assert (ours.name, ours.value) == (theirs.name, theirs.value)
        assert (ours.low is not None) == (ours.name == report.metric)


def test_rare_levels_are_one_segment():
    names = [f"L{k:02d}" for k in range(40) for _ in range(50 - k)]
    column = pa.array([*names, None, None])
    report = report_of("binary", rows=len(column), segments={"origin": column}, resamples=0)
    levels = [(s.level, s.rows) for s in report.segments]
    assert levels[:2] == [("L00", 50), ("L01", 49)]
    assert levels[29:] == [("L29", 21), ("other", sum(50 - k for k in range(30, 40))), ("null", 2)]
    assert sum(rows for _, rows in levels) == len(column)


@pytest.mark.parametrize(
    ("sizes", "levels"),
    [
        ([1] * 900, [("other", 900)]),
        ([12, 10, 9, *[1] * 29], [("L00", 12), ("L01", 10), ("other", 38)]),
        ([12, 9, *[1] * 28], [("L00", 12), ("L01", 9), *((f"L{k:02d}", 1) for k in range(2, 30))]),
    ],
)
def test_a_level_of_a_row_is_no_segment_of_its_own_where_there_are_many(sizes, levels):
    """As of a key or a time; a column with few levels is shown with all of them."""
    column = pa.array([f"L{k:02d}" for k, size in enumerate(sizes) for _ in range(size)])
    report = report_of("binary", rows=len(column), segments={"id": column}, resamples=0)
    assert [(s.level, s.rows) for s in report.segments] == levels


@pytest.mark.parametrize(
    ("column", "levels"),
    [
        (pa.array([True, False, True]), ["true", "false"]),
        (pa.array([2, 1, 1], pa.int8()), ["1", "2"]),
        (pa.array([date(2024, 1, 2)] * 3), ["2024-01-02"]),
        (pa.array(["b", "a", None]).dictionary_encode(), ["a", "b", "null"]),
        (pa.chunked_array([["x"], ["y", "x"]]), ["x", "y"]),
        (pa.array(["null", "other", None]), ["'null'", "'other'", "null"]),
        (pa.nulls(3), ["null"]),
        (pa.array(["", "", "ü"], pa.large_string()), ["", "ü"]),
    ],
)
def test_levels_of_any_type_are_named(column, levels):
    report = evaluate_predictions(
        "binary", np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), seed=1, dataset="d@1",
        segments={"c": column}, resamples=0,
    )  # fmt: skip
    assert [s.level for s in report.segments] == levels


def test_a_segment_of_one_class_has_no_auc():
    y, p = np.array([0, 1, 1.0, 0]), np.array([0.1, 0.2, 0.3, 0.4])
    segments = {"c": pa.array(["x", "y", "y", "x"])}
    report = evaluate_predictions("binary", y, p, seed=1, dataset="d@1", segments=segments)
    found = [
        (s.level, s.rows, f.value) for s in report.segments for f in s.figures if f.name == "auc"
    ]
    assert found == [("x", 2, None), ("y", 2, None)]


def test_the_main_metric_can_be_chosen():
    report = report_of("binary", metric="log_loss")
    assert report.metric == "log_loss"
    with pytest.raises(SpecError, match="got 'rmse'"):
        report_of("binary", metric="rmse")


@pytest.mark.parametrize("task", TASKS)
def test_no_rows_make_an_empty_report(task):
    predictions = np.zeros((0, 3)) if task == "multiclass" else np.zeros(0)
    report = evaluate_predictions(
        task, np.zeros(0), predictions, seed=1, dataset="d@1",
        classes=("a", "b", "c") if task == "multiclass" else (),
        segments={"c": pa.array([], "string")},
    )  # fmt: skip
    assert report.rows == 0
    assert {f.value for f in report.figures} == {None}
    assert EvalReport.from_json(report.to_json()) == report


def test_float32_predictions_are_read_as_they_are():
    y, p = rows_of("binary")
    report = evaluate_predictions(
        "binary", y, p.astype(np.float32), seed=1, dataset="d@1", resamples=0
    )
    assert report.figure("auc").value == pytest.approx(roc_auc_score(y, p.astype(np.float32)))


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "match"),
    [
        ("binary", [0, 1, 1], [0.1, np.nan, np.inf], "finite number, got 2 of 3"),
        ("regression", [0, 1, 1], [0.1, 2, -np.inf], "finite number, got 1 of 3"),
        ("multiclass", [0, 1], [[np.nan, 0.1], [0.5, 0.5]], "finite number, got 1 of 4"),
        ("binary", [0, 1], [1.5, -0.1], "probability from 0 to 1, got 2 of 2"),
        (
            "binary",
            [0, 2, np.nan],
            [0.1, 0.2, 0.3],
            "label of a binary task must be 0 or 1, got 2",
        ),
        ("multiclass", [0, 2], [[0.5, 0.5]] * 2, "class index from 0 to 1, got 1 of 2"),
        ("regression", [0, np.nan], [0.1, 0.2], "must be a finite number, got 1 of 2"),
        ("binary", [0, 1], [0.1], r"must have shape \(2,\) .*got \(1,\)"),
        ("multiclass", [0, 1], [0.1, 0.2], r"must have shape \(2, 2\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_count(task, labels, predictions, match):
    classes = ("a", "b") if task == "multiclass" else ()
    with pytest.raises(DataError, match=match):
        evaluate_predictions(
            task, np.array(labels, float), np.array(predictions, float),
            classes=classes, seed=1, dataset="d@1",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (pa.array(["a"]), "'c' must have one value for each of the 900 predictions, got 1"),
        (pa.array([[1]] * 900), "'c' must hold values that can be named, got list"),
    ],
)
def test_a_segment_column_that_does_not_fit_is_refused(column, match):
    with pytest.raises(DataError, match=match):
        report_of("binary", segments={"c": column})


def test_a_missing_figure_names_the_nearest():
    with pytest.raises(MissingError, match=r"no 'acc', only .*\. Did you mean"):
        report_of("binary").figure("acc")


def test_a_report_refuses_nan():
    text = report_of("binary").to_json()
    with pytest.raises(IntegrityError, match="eval-report"):
        EvalReport.from_json(text.replace('"threshold": 0.4', '"threshold": NaN'))


@pytest.mark.parametrize(
    ("metric", "positives", "threshold", "constant"),
    [("f1", 0.5, 0.51, 2 / 3), ("accuracy", 0.1, 0.05, 0.9), ("recall", 0.1, 0.9, 1.0)],
)
def test_one_answer_for_every_row_is_the_better_of_both(metric, positives, threshold, constant):
    label = (np.arange(1000) < 1000 * positives).astype(np.float64)
    scores = np.random.default_rng(0).uniform(0, 1, 1000)
    report = evaluate_predictions(
        "binary", label, scores, seed=0, dataset="a@1", metric=metric, threshold=threshold
    )
    assert report.constant == pytest.approx(constant)
