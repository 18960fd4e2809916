"""Every metric formula, once: a function of a weighted sample that answers for many weightings.

A formula returns one float64 per line of weights (`arclight.samples`), NaN where it is undefined;
NaN leaves this module as None.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from arclight.errors import SpecError, nearest, printable
from arclight.samples import (
    DEFAULT_THRESHOLD,
    BinarySample,
    ClassSample,
    ErrorSample,
    Floats,
    Ints,
    Ranking,
    Sample,
    Task,
    make_sample,
)
from arclight.thresholds import threshold_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

Direction = Literal["higher", "lower", "zero"]

CLIP = 1e-15  # log loss sees probabilities in [CLIP, 1 - CLIP]
RELIABILITY_BINS = 10  # equal width over [0, 1]; [low, high), the last one closed
_ROUNDING = 1e-12  # label spread below this share of the square sum is rounding, not variance


def _ratio(top: Floats, bottom: Floats) -> Floats:
    empty = np.full(bottom.shape, np.nan)
    return cast("Floats", np.divide(top, bottom, out=empty, where=bottom > 0))


def _share(top: Floats, bottom: Floats) -> Floats:
    return cast("Floats", np.divide(top, bottom, out=np.zeros(bottom.shape), where=bottom > 0))


def _dot(weights: Floats, column: Floats) -> Floats:
    # einsum, not BLAS: the order of the sum must not hang on a thread count
    return cast("Floats", np.einsum("bn,n->b", weights, column))


def _binned_gap(confidence: Floats, gaps: Callable[[slice], Floats], rows: Floats) -> Floats:
    """Return the sum over bins of |hits - confidence|, per row; `confidence` is ascending."""
    total = np.zeros_like(rows)
    for part in reliability_slices(confidence):
        total += np.abs(gaps(part))
    return _ratio(total, rows)


def reliability_slices(ascending: Floats) -> list[slice]:
    """Return the rows of each equal-width bin of [0, 1] in scores sorted ascending."""
    inner = np.arange(1, RELIABILITY_BINS) / RELIABILITY_BINS
    cuts = np.searchsorted(ascending, inner, side="left")
    edges = [0, *(int(cut) for cut in cuts), len(ascending)]
    return [slice(low, high) for low, high in pairwise(edges)]


# ------------------------------------------------------------------------------------- binary


def rank_auc(pos: Floats, neg: Floats) -> Floats:
    """Return (#(pos above neg) + #ties / 2) / (#pos * #neg): Mann-Whitney U (Hanley, McNeil 1982).

    Args:
        pos: weighted positives by ascending distinct score, [lines, cells].
        neg: weighted negatives, likewise.
    """
    below = np.cumsum(neg, axis=1) - 0.5 * neg
    wins = np.einsum("bn,bn->b", pos, below)
    return _ratio(wins, pos.sum(axis=1) * neg.sum(axis=1))


def auc(s: BinarySample) -> Floats:
    """Return the area under the ROC curve, ties counted half (`rank_auc`)."""
    return rank_auc(s.pos, s.neg)


def average_precision(s: BinarySample) -> Floats:
    """Return sum over falling thresholds of precision * (step in recall), no interpolation.

    The definition of scikit-learn's `average_precision_score`; undefined without positives.
    """
    gained = s.pos[:, ::-1]
    hits = np.cumsum(gained, axis=1)
    precision = _share(hits, hits + np.cumsum(s.neg[:, ::-1], axis=1))
    return _ratio(np.einsum("bn,bn->b", precision, gained), s.pos.sum(axis=1))


def log_loss(s: BinarySample) -> Floats:
    """Return mean of -[y log p + (1 - y) log(1 - p)], p clipped to [1e-15, 1 - 1e-15]."""
    p = np.clip(s.scores, CLIP, 1 - CLIP)
    return _ratio(_dot(s.pos, -np.log(p)) + _dot(s.neg, -np.log1p(-p)), s.rows)


def brier(s: BinarySample) -> Floats:
    """Return mean of (p - y)^2 (Brier 1950)."""
    return _ratio(_dot(s.pos, (1 - s.scores) ** 2) + _dot(s.neg, s.scores**2), s.rows)


def accuracy(s: BinarySample) -> Floats:
    """Return (tp + tn) / rows."""
    return _ratio(s.counts.tp + s.counts.tn, s.rows)


def precision(s: BinarySample) -> Floats:
    """Return tp / (tp + fp); undefined when nothing is called positive."""
    return _ratio(s.counts.tp, s.counts.tp + s.counts.fp)


def recall(s: BinarySample) -> Floats:
    """Return tp / (tp + fn); undefined without positives."""
    return _ratio(s.counts.tp, s.counts.tp + s.counts.fn)


def f1(s: BinarySample) -> Floats:
    """Return 2 tp / (2 tp + fp + fn), the harmonic mean of precision and recall."""
    c = s.counts
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def ece(s: BinarySample) -> Floats:
    """Return sum over bins of (rows in bin / rows) * |observed rate - mean score|.

    10 equal-width bins [low, high), the last one closed (Naeini et al. 2015).
    """
    return _binned_gap(
        s.scores,
        lambda i: _dot(s.pos[:, i], 1 - s.scores[i]) - _dot(s.neg[:, i], s.scores[i]),
        s.rows,
    )


AT_THRESHOLD = ("accuracy", "precision", "recall", "f1")
"""Metrics of a binary task that take yes or no for an answer: scores are cut at a threshold."""


# --------------------------------------------------------------------------------- multiclass


def class_log_loss(s: ClassSample) -> Floats:
    """Return mean of -log p[label], p clipped to [1e-15, 1 - 1e-15] and not rescaled to sum 1."""
    p = s.data.probabilities[np.arange(len(s.data.labels)), s.data.labels]
    return _ratio(_dot(s.weights, -np.log(np.clip(p, CLIP, 1 - CLIP))), s.rows)


def class_accuracy(s: ClassSample) -> Floats:
    """Return the share of rows whose most probable class is the label."""
    return _ratio(s.tallies[0].sum(axis=1), s.rows)


def macro_auc(s: ClassSample) -> Floats:
    """Return the mean over classes of AUC(class against the rest).

    A class without rows, or with all of them, has no AUC and is left out of the mean.
    """
    values = np.array([_one_vs_rest(ranking, s.weights) for ranking in s.data.rankings])
    return _ratio(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0).astype(np.float64))


def _one_vs_rest(ranking: Ranking, weights: Floats) -> Floats:
    lines = weights[:, ranking.order]
    pos = lines * ranking.hit
    neg = lines - pos
    if len(ranking.starts) < len(ranking.order):
        pos = np.add.reduceat(pos, ranking.starts, axis=1)
        neg = np.add.reduceat(neg, ranking.starts, axis=1)
    return rank_auc(pos, neg)


def class_ece(s: ClassSample) -> Floats:
    """Return the `ece` of the top class: its probability against how often it is the label."""
    order, confidence, hit = s.data.by_confidence
    lines = s.weights[:, order]
    return _binned_gap(confidence, lambda i: _dot(lines[:, i], hit[i] - confidence[i]), s.rows)


def _class_precision(s: ClassSample) -> Floats:
    hit, _, called = s.tallies
    return _share(hit, called)


def _class_recall(s: ClassSample) -> Floats:
    hit, support, _ = s.tallies
    return _share(hit, support)


def _class_f1(s: ClassSample) -> Floats:
    hit, support, called = s.tallies
    return _share(2 * hit, support + called)


def _macro(per_class: Callable[[ClassSample], Floats]) -> Callable[[ClassSample], Floats]:
    """Mean over classes seen as label or prediction; 0/0 within one counts 0 (scikit-learn)."""

    def formula(s: ClassSample) -> Floats:
        seen = (s.tallies[1] + s.tallies[2] > 0).astype(np.float64)
        return _ratio((per_class(s) * seen).sum(axis=1), seen.sum(axis=1))

    return formula


def _weighted(per_class: Callable[[ClassSample], Floats]) -> Callable[[ClassSample], Floats]:
    """Mean over classes weighted by their label rows; 0/0 within one counts 0 (scikit-learn)."""

    def formula(s: ClassSample) -> Floats:
        return _ratio((per_class(s) * s.tallies[1]).sum(axis=1), s.rows)

    return formula


def confusion_matrix(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> Ints:
    """Return row counts [classes, classes]: line = label, column = prediction."""
    code = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(code, minlength=classes * classes).reshape(classes, classes)


# --------------------------------------------------------------------------------- regression


def rmse(s: ErrorSample) -> Floats:
    """Return the square root of mean (prediction - label)^2."""
    return cast("Floats", np.sqrt(_ratio(_dot(s.weights, s.errors**2), s.rows)))


def mae(s: ErrorSample) -> Floats:
    """Return mean |prediction - label|."""
    return _ratio(_dot(s.weights, np.abs(s.errors)), s.rows)


def bias(s: ErrorSample) -> Floats:
    """Return mean (prediction - label): above zero when predictions are too high."""
    return _ratio(_dot(s.weights, s.errors), s.rows)


def median_absolute_error(s: ErrorSample) -> Floats:
    """Return the median of |prediction - label|; of an even count the mean of the middle two."""
    if not len(s.errors):
        return np.full(len(s.weights), np.nan)
    size = np.abs(s.errors)
    reached = np.cumsum(s.weights, axis=1)
    last = len(size) - 1
    out = np.empty(len(reached))
    for line, cumulated in enumerate(reached):
        rows = round(cumulated[-1])
        middle = np.searchsorted(cumulated, [(rows - 1) // 2, rows // 2], side="right")
        out[line] = size[np.minimum(middle, last)].mean()
    return out


def r2(s: ErrorSample) -> Floats:
    """Return 1 - sum e^2 / sum (y - mean y)^2; undefined when the label is constant."""
    # measured from a middle label, so that the squares below do not cancel
    y = s.labels - s.labels[len(s.labels) // 2] if len(s.labels) else s.labels
    square = _dot(s.weights, y**2)
    spread = square - _ratio(_dot(s.weights, y) ** 2, s.rows)
    spread = np.where(spread > _ROUNDING * square, spread, 0.0)
    return 1 - _ratio(_dot(s.weights, s.errors**2), spread)


# -------------------------------------------------------------------------------------- table

Formula: TypeAlias = (
    "Callable[[Any], Floats]"  # Any: the sample class of the task it is filed under
)


@dataclass(frozen=True)
class Metric:
    """A metric by name: the formula for each task it fits, and which way is better."""

    name: str
    direction: Direction
    formulas: Mapping[Task, Formula]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks this metric fits."""
        return tuple(self.formulas)

    @property
    def higher_is_better(self) -> bool:
        """Whether more is better; a metric that is best at zero answers no."""
        return self.direction == "higher"

    def lines(self, task: Task, sample: Sample) -> Floats:
        """Return the figure under each line of weights, NaN where undefined."""
        return self.formulas[task](sample)

    def value(self, task: Task, sample: Sample) -> float | None:
        """Return the figure of a sample with one line of weights, None where undefined."""
        figure = float(self.lines(task, sample)[0])
        return figure if np.isfinite(figure) else None


def _table() -> dict[str, Metric]:
    rows: list[tuple[str, Direction, dict[Task, Formula]]] = [
        ("auc", "higher", {"binary": auc}),
        ("average_precision", "higher", {"binary": average_precision}),
        ("log_loss", "lower", {"binary": log_loss, "multiclass": class_log_loss}),
        ("brier", "lower", {"binary": brier}),
        ("accuracy", "higher", {"binary": accuracy, "multiclass": class_accuracy}),
        ("precision", "higher", {"binary": precision}),
        ("recall", "higher", {"binary": recall}),
        ("f1", "higher", {"binary": f1}),
        ("macro_auc", "higher", {"multiclass": macro_auc}),
        ("macro_precision", "higher", {"multiclass": _macro(_class_precision)}),
        ("macro_recall", "higher", {"multiclass": _macro(_class_recall)}),
        ("macro_f1", "higher", {"multiclass": _macro(_class_f1)}),
        ("weighted_precision", "higher", {"multiclass": _weighted(_class_precision)}),
        ("weighted_recall", "higher", {"multiclass": _weighted(_class_recall)}),
        ("weighted_f1", "higher", {"multiclass": _weighted(_class_f1)}),
        ("ece", "lower", {"binary": ece, "multiclass": class_ece}),
        ("rmse", "lower", {"regression": rmse}),
        ("mae", "lower", {"regression": mae}),
        ("r2", "higher", {"regression": r2}),
        ("median_absolute_error", "lower", {"regression": median_absolute_error}),
        ("bias", "zero", {"regression": bias}),
    ]
    return {name: Metric(name, way, MappingProxyType(fits)) for name, way, fits in rows}


METRICS: Mapping[str, Metric] = MappingProxyType(_table())
_DEFAULTS: Mapping[Task, str] = MappingProxyType(
    {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
)


def default_metric(task: Task) -> str:
    """Return the metric a task is judged by when the spec names none."""
    return _DEFAULTS[task]


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Return every metric of a task, in the order reports show them."""
    return tuple(metric for metric in METRICS.values() if task in metric.formulas)


def metric_for(task: Task, name: str) -> Metric:
    """Return the metric to train, search and compare by.

    Raises:
        SpecError: there is no such metric, it is of another task, or it has no better direction.
    """
    fitting = {metric.name: metric for metric in metrics_of(task) if metric.direction != "zero"}
    if name not in fitting:
        raise SpecError(
            f"The metric of a {task} task must be one of {', '.join(fitting)}, "
            f"got '{printable(name)}'.{nearest(name, fitting)}"
        )
    return fitting[name]


def measure(
    task: Task,
    name: str,
    labels: NDArray[Any],
    predictions: NDArray[Any],
    *,
    threshold: float = DEFAULT_THRESHOLD,
) -> float | None:
    """Return one point figure of plain arrays (shapes as in `make_sample`), None if undefined."""
    return metric_for(task, name).value(task, make_sample(task, labels, predictions, threshold))


def measure_scores(
    task: Task, name: str, labels: NDArray[Any], predictions: NDArray[Any]
) -> float | None:
    """Return a figure of scores for which no threshold is chosen yet, None if undefined.

    F1 is that of the threshold at which it is best: at 0.5 it is 0 as long as no score is as high,
    as with few positives. Precision is 0 as long, where there are rows of both classes.
    """
    threshold = threshold_for(task, name, labels, predictions)
    value = measure(task, name, labels, predictions, threshold=threshold)
    if value is None and name == "precision" and len(np.unique(labels)) > 1:
        return 0.0
    return value
