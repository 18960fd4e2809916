"""Predictions in the form the metric formulas read: sorted once, under a matrix of weights.

A sample holds predictions and weights, one line per weighting. A point figure is the one line of
ones; a bootstrap resample is a line of resample counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Task = Literal["binary", "multiclass", "regression"]
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class BinarySample:
    """Binary predictions by distinct score, ascending, with weighted rows of each class.

    Nothing binary depends on more than (score, label), so tied rows are one cell.
    """

    scores: Floats  # [cells]
    neg: Floats  # [lines, cells]
    pos: Floats  # [lines, cells]
    threshold: float = DEFAULT_THRESHOLD

    @property
    def weights(self) -> Floats:
        """Weights as one matrix [lines, 2 * cells]: negatives, then positives."""
        return np.hstack([self.neg, self.pos])

    def drawn(self, weights: Floats) -> BinarySample:
        """Return the same predictions under other weights."""
        cells = len(self.scores)
        return BinarySample(self.scores, weights[:, :cells], weights[:, cells:], self.threshold)

    @cached_property
    def rows(self) -> Floats:
        """Weighted rows of each line."""
        return cast("Floats", self.neg.sum(axis=1) + self.pos.sum(axis=1))

    @cached_property
    def counts(self) -> Counts:
        """Confusion counts at the threshold; a row is called positive at score >= threshold."""
        cut = int(np.searchsorted(self.scores, self.threshold, side="left"))
        return Counts(
            tn=self.neg[:, :cut].sum(axis=1),
            fp=self.neg[:, cut:].sum(axis=1),
            fn=self.pos[:, :cut].sum(axis=1),
            tp=self.pos[:, cut:].sum(axis=1),
        )


@dataclass(frozen=True, eq=False)
class Counts:
    """Weighted true and false negatives and positives, one number per line."""

    tn: Floats
    fp: Floats
    fn: Floats
    tp: Floats


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows ordered by the probability of one class; `starts` opens each run of ties."""

    order: NDArray[np.int32]
    starts: Ints
    hit: Floats


@dataclass(frozen=True, eq=False)
class ClassRows:
    """Multiclass labels (class index), probabilities [rows, classes], and what is sorted once."""

    labels: Ints
    probabilities: Floats

    @cached_property
    def top(self) -> Ints:
        """Predicted class; the first of equal probabilities."""
        if not len(self.labels):
            return np.zeros(0, dtype=np.int64)
        return cast("Ints", self.probabilities.argmax(axis=1).astype(np.int64))

    @cached_property
    def by_confidence(self) -> tuple[Ints, Floats, Floats]:
        """Row order by top probability, those probabilities, and where the top class is right."""
        confidence = self.probabilities[np.arange(len(self.labels)), self.top]
        order = np.argsort(confidence, kind="stable")
        hit = (self.top == self.labels)[order].astype(np.float64)
        return order, confidence[order], hit

    @cached_property
    def rankings(self) -> tuple[Ranking, ...]:
        """One ranking per class."""
        return tuple(self._ranking(k) for k in range(self.probabilities.shape[1]))

    def _ranking(self, k: int) -> Ranking:
        order = np.argsort(self.probabilities[:, k], kind="stable").astype(np.int32)
        starts = run_starts(self.probabilities[order, k])
        return Ranking(order, starts, (self.labels[order] == k).astype(np.float64))


@dataclass(frozen=True, eq=False)
class ClassSample:
    """Multiclass rows under weights [lines, rows]."""

    data: ClassRows
    weights: Floats

    def drawn(self, weights: Floats) -> ClassSample:
        """Return the same predictions under other weights."""
        return ClassSample(self.data, weights)

    @cached_property
    def rows(self) -> Floats:
        """Weighted rows of each line."""
        return cast("Floats", self.weights.sum(axis=1))

    @cached_property
    def tallies(self) -> tuple[Floats, Floats, Floats]:
        """Weighted hits, label rows and predicted rows of each class, [lines, classes] each."""
        labels, top = self.data.labels, self.data.top
        hit = (labels == top).astype(np.float64)
        return self._per_class(labels, hit), self._per_class(labels), self._per_class(top)

    def _per_class(self, index: Ints, factor: Floats | None = None) -> Floats:
        size = self.data.probabilities.shape[1]
        lines = self.weights if factor is None else self.weights * factor
        return np.array([np.bincount(index, weights=w, minlength=size) for w in lines])


@dataclass(frozen=True, eq=False)
class ErrorSample:
    """Regression labels and errors (prediction - label), by absolute error, under weights."""

    labels: Floats
    errors: Floats
    weights: Floats

    def drawn(self, weights: Floats) -> ErrorSample:
        """Return the same predictions under other weights."""
        return ErrorSample(self.labels, self.errors, weights)

    @cached_property
    def rows(self) -> Floats:
        """Weighted rows of each line."""
        return cast("Floats", self.weights.sum(axis=1))


Sample: TypeAlias = BinarySample | ClassSample | ErrorSample


def make_sample(
    task: Task,
    labels: NDArray[Any],
    predictions: NDArray[Any],
    threshold: float = DEFAULT_THRESHOLD,
) -> Sample:
    """Return predictions in the form the formulas read, every row with weight 1.

    Args:
        task: what was predicted.
        labels: binary 0/1, multiclass class index, regression number; [rows].
        predictions: binary probability of class 1 [rows], multiclass [rows, classes], else [rows].
        threshold: binary only; a row is called positive at score >= threshold.
    """
    if task == "binary":
        truth, scores = (np.asarray(x, dtype=np.float64) for x in (labels, predictions))
        return binary_sample(truth, scores, threshold)
    return by_rows(task, labels, predictions, threshold)(np.ones((1, len(labels))))


def by_rows(
    task: Task,
    labels: NDArray[Any],
    predictions: NDArray[Any],
    threshold: float = DEFAULT_THRESHOLD,
) -> Callable[[Floats], Sample]:
    """Return what makes a sample of weights [lines, rows], in the order of the rows given.

    Args:
        task: as the others, as in `make_sample`; what is to be sorted is sorted once.
        labels: [rows].
        predictions: [rows] or [rows, classes].
        threshold: binary only.
    """
    values = np.asarray(predictions, dtype=np.float64)
    if task == "multiclass":
        rows = ClassRows(np.asarray(labels, dtype=np.int64), values)
        return lambda weights: ClassSample(rows, weights)
    truth = np.asarray(labels, dtype=np.float64)
    order = np.argsort(values if task == "binary" else np.abs(values - truth), kind="stable")
    ranked, truth = values[order], truth[order]
    if task == "regression":
        return lambda weights: ErrorSample(truth, ranked - truth, weights[:, order])
    starts = run_starts(ranked)

    def cells(weights: Floats) -> Floats:
        return np.add.reduceat(weights, starts, axis=1) if len(starts) else weights

    def weighted(weights: Floats) -> BinarySample:
        lines = weights[:, order]
        pos = lines * truth
        return BinarySample(ranked[starts], cells(lines - pos), cells(pos), threshold)

    return weighted


def binary_sample(
    labels: Floats, scores: Floats, threshold: float = DEFAULT_THRESHOLD
) -> BinarySample:
    """Collapse rows to distinct scores with their negatives and positives."""
    ranked, truth = _ranked(scores, labels)
    starts = run_starts(ranked)
    pos = np.add.reduceat(truth, starts) if len(starts) else np.zeros(0)
    rows = np.diff(starts, append=len(ranked)).astype(np.float64)
    return BinarySample(ranked[starts], (rows - pos)[None, :], pos[None, :], threshold)


def _ranked(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return ascending scores and the labels of the same rows, 0 or 1, ties in any order."""
    if len(scores) and scores.min() >= 0:
        # bits of such numbers stand in the order of the numbers, and that of the sign is free for
        # the label: to sort whole numbers takes a third of the time that places take
        keys = np.sort((scores.view(np.uint64) << 1) | labels.astype(np.uint64))
        return (keys >> 1).view(np.float64), (keys & 1).astype(np.float64)
    order = np.argsort(scores)
    return scores[order], labels[order]


def run_starts(ranked: Floats) -> Ints:
    """Return where each run of equal values begins."""
    if not len(ranked):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
