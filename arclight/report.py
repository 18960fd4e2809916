"""The evidence about a model on one split: figures with intervals, whole and by segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.bootstrap import RESAMPLES, Bootstrap, bootstrap
from arclight.contract import Contract
from arclight.curves import (
    ActualBin,
    CurvePoint,
    ReliabilityBin,
    actual_bins,
    curve_points,
    reliability,
)
from arclight.errors import DataError, MissingError, nearest, printable
from arclight.metrics import (
    AT_THRESHOLD,
    METRICS,
    confusion_matrix,
    default_metric,
    metric_for,
    metrics_of,
)
from arclight.paired import Redrawn, redraw
from arclight.samples import DEFAULT_THRESHOLD, BinarySample, ClassSample, Task, make_sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from arclight.samples import Floats, Sample

MAX_LEVELS = 30  # of a segment column, by rows; the rest is one segment
LEAST_ROWS = 10  # of a level of a column that has more than so many levels
REST, NULL = "other", "null"


class Figure(Contract):
    """A metric and its 95% interval; None where undefined or not computed."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Segment(Contract):
    """Figures of the rows at one level of a column; only the main metric has an interval.

    `level` is the value as text; `null` and `other` are the missing values and the rarer levels
    of a column that has many, and a value that reads like one of these is quoted.
    """

    column: str
    level: str
    rows: int
    positives: int | None
    figures: tuple[Figure, ...]


class EvalReport(Contract):
    """What a model did on the rows of a split. `figures` are point values of all rows."""

    kind: ClassVar[str] = "eval-report"

    task: Task
    split: str
    metric: str
    """The main metric: what gates compare."""
    constant: float | None = None
    """The main metric of a prediction that is the same for every row: the mean of the label."""
    rows: int
    positives: int | None
    class_counts: tuple[int, ...]
    classes: tuple[str, ...]
    threshold: float | None
    figures: tuple[Figure, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows by label (line) and prediction (column); empty for regression."""
    reliability: tuple[ReliabilityBin, ...]
    curve: tuple[CurvePoint, ...] = ()
    """Binary: what other thresholds do, highest first; empty in reports of older releases."""
    actual: tuple[ActualBin, ...] = ()
    """Regression: labels by prediction; empty in reports of older releases."""
    segments: tuple[Segment, ...]
    seed: int
    redrawn: Redrawn | None = None
    """The main metric on resamples that other models are measured on too; None in reports of
    older releases."""
    resamples: int
    condensed_to: int | None
    """Score cells or rows that stood for all rows in the resamples; None: all rows did."""
    model: str | None
    dataset: str
    opening: str | None

    @property
    def is_no_better_than_constant(self) -> bool:
        """Whether the main figure says that nothing was learnt; False when it is undefined."""
        ours = self.figure(self.metric).value
        if ours is None or self.constant is None:
            return False
        if METRICS[self.metric].higher_is_better:
            return ours <= self.constant
        return ours >= self.constant

    def figure(self, name: str) -> Figure:
        """Return the figure of a metric.

        Raises:
            MissingError: the report has no such figure.
        """
        found = {figure.name: figure for figure in self.figures}
        if name not in found:
            raise MissingError(
                f"The report has no '{printable(name)}', only {', '.join(found)}."
                f"{nearest(name, found)}"
            )
        return found[name]


@dataclass(frozen=True)
class _Evaluation:
    """Checked predictions and how to measure them."""

    task: Task
    labels: NDArray[Any]
    predictions: Floats
    classes: tuple[str, ...]
    threshold: float
    metric: str
    seed: int
    resamples: int
    keys: bytes

    def sample(self, rows: NDArray[Any] | None = None) -> Sample:
        labels = self.labels if rows is None else self.labels[rows]
        predictions = self.predictions if rows is None else self.predictions[rows]
        return make_sample(self.task, labels, predictions, self.threshold)

    def positives(self, rows: NDArray[Any] | None = None) -> int | None:
        if self.task != "binary":
            return None
        return int(self.labels.sum() if rows is None else self.labels[rows].sum())


@dataclass(frozen=True)
class _Origin:
    """Whose predictions they are, and on what."""

    split: str
    model: str | None
    dataset: str
    opening: str | None


def evaluate_predictions(  # noqa: PLR0913 - what a report states, by keyword
    task: Task,
    labels: NDArray[Any],
    predictions: NDArray[Any],
    *,
    seed: int,
    dataset: str,
    classes: tuple[str, ...] = (),
    threshold: float | None = None,
    segments: Mapping[str, pa.Array] | None = None,
    metric: str | None = None,
    resamples: int = RESAMPLES,
    split: str = "test",
    model: str | None = None,
    opening: str | None = None,
    keys: bytes = b"",
) -> EvalReport:
    """Measure predictions against labels.

    Args:
        task: what was predicted.
        labels: binary 0/1, multiclass class index, regression number; [rows].
        predictions: binary probability of class 1 [rows], multiclass [rows, classes], else [rows].
        seed: of the bootstrap; the same inputs give the same report.
        dataset: label of the dataset, `name@version`.
        classes: names of the classes in the order of their index; needed for multiclass.
        threshold: binary only, positive at probability >= threshold; None: 0.5.
        segments: columns as long as the labels whose levels are measured one by one.
        metric: the main metric; None: the default of the task.
        resamples: of the bootstrap; 0 leaves intervals out.
        split: which split the rows are.
        model: label of the model, when it has one.
        opening: the entry that opened the test split.
        keys: what tells these rows, in this order, from others; figures of two models are
            compared row by row where it is the same.

    Raises:
        DataError: shapes differ, or a label or prediction is not what the task allows.
        SpecError: the main metric does not fit the task.
    """
    metric = metric_for(task, metric or default_metric(task)).name
    labels, values = np.asarray(labels), np.asarray(predictions, dtype=np.float64)
    _check_shapes(task, labels, values, classes)
    _check_values(task, labels, values, len(classes))
    cut = DEFAULT_THRESHOLD if threshold is None else threshold
    job = _Evaluation(task, labels, values, classes, cut, metric, seed, resamples, keys)
    return _report(job, segments or {}, _Origin(split, model, dataset, opening))


def _report(job: _Evaluation, segments: Mapping[str, pa.Array], origin: _Origin) -> EvalReport:
    sample = job.sample()
    metrics = metrics_of(job.task)
    result = bootstrap(job.task, sample, metrics, seed=job.seed, resamples=job.resamples)
    return EvalReport(
        task=job.task,
        split=origin.split,
        metric=job.metric,
        constant=_constant(job),
        rows=len(job.labels),
        positives=job.positives(),
        class_counts=_class_counts(job),
        classes=job.classes,
        threshold=job.threshold if job.task == "binary" else None,
        figures=_figures(result),
        confusion=_confusion(sample),
        reliability=reliability(sample),
        curve=curve_points(sample) if isinstance(sample, BinarySample) else (),
        actual=actual_bins(job.labels, job.predictions) if job.task == "regression" else (),
        segments=tuple(_segments(job, segments)),
        seed=job.seed,
        redrawn=_redrawn(job) if job.resamples else None,
        resamples=result.resamples,
        condensed_to=result.condensed_to,
        model=origin.model,
        dataset=origin.dataset,
        opening=origin.opening,
    )


def figure_rows(
    report: EvalReport,
) -> list[tuple[str, float | None, float | None, float | None]]:
    """Return (name, value, low, high) of every figure, for a table."""
    return [(f.name, f.value, f.low, f.high) for f in report.figures]


def _redrawn(job: _Evaluation) -> Redrawn:
    return redraw(
        job.task,
        job.metric,
        job.labels,
        job.predictions,
        threshold=job.threshold,
        keys=job.keys,
    )


def _figures(result: Bootstrap) -> tuple[Figure, ...]:
    return tuple(
        Figure(name=name, value=found.value, low=found.low, high=found.high)
        for name, found in result.intervals.items()
    )


def _confusion(sample: Sample) -> tuple[tuple[int, ...], ...]:
    if isinstance(sample, BinarySample):
        counts = sample.counts
        lines = ((counts.tn, counts.fp), (counts.fn, counts.tp))
        return tuple(tuple(round(float(x[0])) for x in line) for line in lines)
    if isinstance(sample, ClassSample):
        data = sample.data
        table = confusion_matrix(data.labels, data.top, data.probabilities.shape[1])
        return tuple(tuple(int(x) for x in line) for line in table)
    return ()


def _constant(job: _Evaluation) -> float | None:
    """Return the main metric of the label's mean, or of each class's share, for every row.

    Of a metric that takes yes or no for an answer it is that of the better one.
    """
    rows = len(job.labels)
    if not rows:
        return None
    if job.task == "multiclass":
        shares = np.bincount(job.labels.astype(np.int64), minlength=len(job.classes)) / rows
        same = np.broadcast_to(shares, job.predictions.shape)
    else:
        same = np.full(rows, float(job.labels.mean(dtype=np.float64)))
    metric = metric_for(job.task, job.metric)

    def figure(predictions: Any) -> float | None:
        found = make_sample(job.task, job.labels, np.ascontiguousarray(predictions), job.threshold)
        return metric.value(job.task, found)

    if job.task == "binary" and job.metric in AT_THRESHOLD:
        # the better answer of both, on whichever side of the threshold the mean is
        both = [figure(np.full(rows, answer)) for answer in (0.0, 1.0)]
        return max((value for value in both if value is not None), default=None)
    return figure(same)


def _class_counts(job: _Evaluation) -> tuple[int, ...]:
    if job.task == "regression":
        return ()
    size = 2 if job.task == "binary" else len(job.classes)
    return tuple(int(x) for x in np.bincount(job.labels.astype(np.int64), minlength=size))


def _segments(job: _Evaluation, columns: Mapping[str, pa.Array]) -> Iterator[Segment]:
    for column, values in columns.items():
        if len(values) != len(job.labels):
            raise DataError(
                f"The segment column '{printable(column)}' must have one value for each of the "
                f"{len(job.labels)} predictions, got {len(values)}; read both from the same rows."
            )
        for level, rows in _levels(column, values):
            yield _segment(job, column, level, rows)


def _segment(job: _Evaluation, column: str, level: str, rows: NDArray[Any]) -> Segment:
    sample = job.sample(rows)
    main = metric_for(job.task, job.metric)
    interval = bootstrap(job.task, sample, [main], seed=job.seed, resamples=job.resamples)
    (judged,) = _figures(interval)
    figures = tuple(
        judged
        if other.name == main.name
        else Figure(name=other.name, value=other.value(job.task, sample))
        for other in metrics_of(job.task)
    )
    return Segment(
        column=column,
        level=level,
        rows=len(rows),
        positives=job.positives(rows),
        figures=figures,
    )


def _levels(column: str, values: pa.Array) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield each level's name and rows: by falling count, then the rest, then nulls."""
    codes, names = _encode(column, values)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    ranked = sorted(range(len(names)), key=lambda k: (-counts[k], names[k]))
    place = np.empty(len(names) + 1, dtype=np.int64)
    place[ranked] = MAX_LEVELS
    if len(ranked) > MAX_LEVELS:  # as those of a key or a time, each of a row or two
        kept = int(np.count_nonzero(counts[ranked[:MAX_LEVELS]] >= LEAST_ROWS))
    else:
        kept = len(ranked)
    place[ranked[:kept]] = np.arange(kept)
    place[-1] = MAX_LEVELS + 1  # code -1: null
    slots = place[codes]
    order = np.argsort(slots, kind="stable")
    shown = [f"'{n}'" if (n := names[k]) in (REST, NULL) else n for k in ranked[:MAX_LEVELS]]
    shown += [""] * (MAX_LEVELS - len(shown)) + [REST, NULL]
    edges = np.searchsorted(slots[order], np.arange(MAX_LEVELS + 3))
    for slot, name in enumerate(shown):
        if edges[slot] < edges[slot + 1]:
            yield name, order[edges[slot] : edges[slot + 1]]


def _encode(column: str, values: pa.Array) -> tuple[NDArray[np.int64], list[str]]:
    """Return a code for each row, -1 for null, and the text of each code."""
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    try:
        encoded = pc.dictionary_encode(pc.cast(flat, pa.large_string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"The segment column '{printable(column)}' must hold values that can be named, got "
            f"{flat.type}; leave it out of evaluate.segments."
        ) from error
    codes = pc.fill_null(pc.cast(encoded.indices, pa.int64()), -1)
    return codes.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _check_shapes(
    task: Task, labels: NDArray[Any], values: Floats, classes: tuple[str, ...]
) -> None:
    wanted = (*labels.shape, len(classes)) if task == "multiclass" else labels.shape
    if labels.ndim != 1 or values.shape != wanted:
        raise DataError(
            f"Predictions of a {task} task with {len(classes)} named classes must have shape "
            f"{wanted} for labels of shape {labels.shape}, got {values.shape}; score the same "
            "rows with the model of this task."
        )


def _check_values(task: Task, labels: NDArray[Any], values: Floats, classes: int) -> None:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise DataError(
            f"Every prediction must be a finite number, got {bad} of {values.size} that are not; "
            "the model diverged or its file is damaged: train it again."
        )
    if task != "regression":
        outside = int(np.count_nonzero((values < 0) | (values > 1)))
        if outside:
            raise DataError(
                f"Every prediction of a {task} task must be a probability from 0 to 1, got "
                f"{outside} of {values.size} outside; turn raw scores into probabilities first."
            )
    allowed, rule = _allowed_labels(task, labels, classes)
    wrong = int(np.count_nonzero(~allowed))
    if wrong:
        raise DataError(
            f"Every label of a {task} task must be {rule}, got {wrong} of {len(labels)} that are "
            "not; check the label column of the dataset."
        )


def _allowed_labels(task: Task, labels: NDArray[Any], classes: int) -> tuple[NDArray[Any], str]:
    if task == "regression":
        return np.isfinite(labels.astype(np.float64)), "a finite number"
    if task == "binary":
        return np.isin(labels, (0, 1)), "0 or 1"
    return np.isin(labels, np.arange(classes)), f"a class index from 0 to {classes - 1}"
