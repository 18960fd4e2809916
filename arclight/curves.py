"""Curves of evidence, each by a few points: reliability, thresholds, labels by prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.contract import Contract
from arclight.metrics import RELIABILITY_BINS, reliability_slices
from arclight.samples import BinarySample, ClassSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arclight.samples import Floats, Sample

CURVE_STEPS = 40  # of recall and of the false positive rate; a point nearest to each is kept
ACTUAL_BINS = 20


class ReliabilityBin(Contract):
    """Rows with a probability in [start, end): how sure the model was, how often it was right."""

    start: float
    end: float
    rows: int
    mean_score: float | None
    observed: float | None


class CurvePoint(Contract):
    """What calling rows positive from a threshold on does; all are shares from 0 to 1."""

    threshold: float
    recall: float
    """Of the positive rows, those called so."""
    false_positive_rate: float
    """Of the negative rows, those called positive."""
    precision: float
    """Of the rows called positive, those that are."""


class ActualBin(Contract):
    """About equally many rows by rising prediction, and the labels they have."""

    rows: int
    mean_score: float
    low: float
    """The 10th percentile of the label."""
    median: float
    high: float
    """The 90th percentile of the label."""


def reliability(sample: Sample) -> tuple[ReliabilityBin, ...]:
    """Return the reliability curve of probabilities (of the top class), empty for regression."""
    if isinstance(sample, BinarySample):
        scores, hits = sample.scores, sample.pos[0]
        rows = hits + sample.neg[0]
    elif isinstance(sample, ClassSample):
        _, scores, hits = sample.data.by_confidence
        rows = np.ones(len(scores))
    else:
        return ()
    bins = []
    for k, part in enumerate(reliability_slices(scores)):
        count = float(rows[part].sum())
        bins.append(
            ReliabilityBin(
                start=k / RELIABILITY_BINS,
                end=(k + 1) / RELIABILITY_BINS,
                rows=round(count),
                mean_score=float((scores[part] * rows[part]).sum()) / count if count else None,
                observed=float(hits[part].sum()) / count if count else None,
            )
        )
    return tuple(bins)


def curve_points(sample: BinarySample) -> tuple[CurvePoint, ...]:
    """Return points of the ROC and precision-recall curves, each a threshold that exists.

    They are those nearest to even steps of recall and of the false positive rate, from the highest
    score down to the lowest; none when a class has no row, since the curves are undefined then.
    """
    hits, alarms = (np.cumsum(side[0][::-1]) for side in (sample.pos, sample.neg))
    if not len(hits) or not hits[-1] or not alarms[-1]:
        return ()
    steps = np.linspace(0, 1, CURVE_STEPS + 1)
    recall, false = hits / hits[-1], alarms / alarms[-1]
    kept = {0, len(hits) - 1, *_nearest(recall, steps), *_nearest(false, steps)}
    return tuple(
        CurvePoint(
            threshold=float(sample.scores[::-1][place]),
            recall=float(recall[place]),
            false_positive_rate=float(false[place]),
            precision=float(hits[place] / (hits[place] + alarms[place])),
        )
        for place in sorted(kept)
    )


def _nearest(rising: Floats, steps: Floats) -> list[int]:
    """Return the place of the value nearest to each step."""
    after = np.clip(np.searchsorted(rising, steps), 1, len(rising) - 1) if len(rising) > 1 else 0
    is_before = np.abs(rising[after - 1] - steps) <= np.abs(rising[after] - steps)
    return [int(place) for place in np.maximum(after - is_before, 0)]


def actual_bins(labels: NDArray[Any], predictions: Floats) -> tuple[ActualBin, ...]:
    """Return the labels of rows by rising prediction, in bins of about as many rows each."""
    order = np.argsort(predictions, kind="stable")
    parts = np.array_split(order, max(1, min(ACTUAL_BINS, len(order))))
    found = []
    for part in (p for p in parts if len(p)):
        low, median, high = np.quantile(labels[part].astype(np.float64), (0.1, 0.5, 0.9))
        found.append(
            ActualBin(
                rows=len(part),
                mean_score=float(predictions[part].mean()),
                low=float(low),
                median=float(median),
                high=float(high),
            )
        )
    return tuple(found)
