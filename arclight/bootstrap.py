"""95% percentile bootstrap intervals of every metric of a sample, in one go.

Rows are redrawn with replacement (Efron 1979): a resample is a line of counts, and the formulas of
`arclight.metrics` read lines of counts. Large samples are first condensed, so that the cost of a
resample is bounded; each resample still draws as many rows as there are.

- binary: more than 2^15 distinct scores are merged into about 2^12, each with an equal share of
  the positives and negatives, and never across the threshold or a reliability bin. Every row
  takes part.
- multiclass and regression: a random subset stands for all rows, each kept row with the weight of
  those it stands for (the bag of little bootstraps of Kleiner et al. 2014, with one bag). It is
  stratified: by class, so that rare classes stay; by size of the error, so that outliers stay.
- multiclass with many classes: fewer resamples, at least 100.

What condensing shifts is put back: an interval is the condensed one moved by (exact figure -
condensed figure). A percentile interval need not hold its figure: the calibration error of a
resample is larger on average than that of the sample.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arclight.metrics import reliability_slices
from arclight.samples import BinarySample, ClassRows, ClassSample, ErrorSample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arclight.metrics import Metric
    from arclight.samples import Floats, Ints, Sample, Task

RESAMPLES = 400
MAX_SCORES = 2**15  # distinct scores resampled as they are
SCORE_CELLS = 2**12  # distinct scores kept of more than that
MAX_KEPT = 50_000  # rows kept of a multiclass or regression sample of more than twice as many
_MIN_KEPT = 20_000
_CLASS_CELLS = 2**19  # rows x classes kept
_CLASS_WORK = 2**31  # rows x classes x resamples
_LEAST_RESAMPLES = 100
_CHUNK = 2**18  # counts held at a time: 2 MiB, near the cache
TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bootstrap:
    """Intervals by metric name, and what they rest on."""

    intervals: dict[str, Interval]
    resamples: int
    condensed_to: int | None  # cells or rows that stood for all rows; None: nothing was condensed


def bootstrap(
    task: Task,
    sample: Sample,
    metrics: Sequence[Metric],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Bootstrap:
    """Return figures of a sample with 95% percentile bootstrap intervals.

    Resamples in which a figure is undefined (one class only, say) are left out of its interval.

    Args:
        task: the task of the sample.
        sample: predictions, every row with weight 1.
        metrics: what to measure, each of this task.
        seed: the same seed gives the same intervals.
        resamples: how many; 0 leaves the intervals out; the module says when fewer are drawn.
    """
    rng = np.random.default_rng(seed)
    values = {metric.name: metric.value(task, sample) for metric in metrics}
    base = condense(sample, rng) if resamples else sample
    resamples = min(resamples, affordable(base))
    drawn: dict[str, list[Floats]] = {metric.name: [] for metric in metrics}
    for weights in draws(base.weights[0], resamples, rng):
        resample = base.drawn(weights)
        for metric in metrics:
            drawn[metric.name].append(metric.lines(task, resample))
    intervals = {}
    for metric in metrics:
        value = values[metric.name]
        anchor = value if base is sample else metric.value(task, base)
        intervals[metric.name] = _interval(metric, value, anchor, drawn[metric.name])
    return Bootstrap(intervals, resamples, None if base is sample else _size(base))


def _interval(
    metric: Metric, value: float | None, anchor: float | None, drawn: list[Floats]
) -> Interval:
    lines = np.concatenate(drawn) if drawn else np.zeros(0)
    lines = lines[np.isfinite(lines)]
    if value is None or anchor is None or not len(lines):
        return Interval(value)
    low, high = (float(tail) + (value - anchor) for tail in np.quantile(lines, TAILS))
    # the shift must not carry an interval past what the metric can be
    if metric.direction == "higher":
        return Interval(value, min(low, 1.0), min(high, 1.0))
    if metric.direction == "lower":
        return Interval(value, max(low, 0.0), max(high, 0.0))
    return Interval(value, low, high)


def draws(counts: Floats, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield matrices [some resamples, cells] of how often each cell is drawn.

    Args:
        counts: rows in each cell, or rows each cell stands for.
        resamples: lines in all.
        rng: where chance comes from.
    """
    rows, kept = round(counts.sum()), np.flatnonzero(counts)
    if not rows:
        return
    step = max(1, _CHUNK // len(counts))
    owner = None
    if 2 * len(kept) > rows:  # few rows a cell: drawing rows is faster than drawing cells
        owner = np.repeat(kept, counts[kept].astype(np.int64))
    for start in range(0, resamples, step):
        lines = np.zeros((min(step, resamples - start), len(counts)))
        if owner is None:
            lines[:, kept] = rng.multinomial(rows, counts[kept] / rows, size=len(lines))
        else:
            for line in lines:
                picked = owner[rng.integers(0, rows, size=rows)]
                line[:] = np.bincount(picked, minlength=len(counts))
        yield lines


def condense(sample: Sample, rng: np.random.Generator) -> Sample:
    """Return a smaller sample that stands for a large one, or a small sample itself."""
    if isinstance(sample, BinarySample):
        return _merge_scores(sample) if len(sample.scores) > MAX_SCORES else sample
    kept = _kept_rows(sample)
    if sample.weights.shape[1] <= 2 * kept:
        return sample
    if isinstance(sample, ClassSample):
        index, weights = thin(sample.data.labels, kept, rng)
        data = ClassRows(sample.data.labels[index], sample.data.probabilities[index])
        return ClassSample(data, weights[None, :])
    # rows are in the order of their absolute error: the tail, a quarter of what is kept, is last
    rows = len(sample.errors)
    is_tail = (np.arange(rows) >= rows - kept // 4).astype(np.int64)
    index, weights = thin(is_tail, kept, rng)
    return ErrorSample(sample.labels[index], sample.errors[index], weights[None, :])


def thin(strata: Ints, kept: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw about `kept` rows, as evenly over strata as their sizes allow.

    Returns:
        Indices in ascending order, and how many rows of its stratum each stands for.
    """
    rows = np.bincount(strata)
    quota, left, open_strata = np.zeros(len(rows), np.int64), kept, np.count_nonzero(rows)
    for stratum in np.argsort(rows, kind="stable"):
        if rows[stratum]:
            quota[stratum] = min(rows[stratum], max(1, left // open_strata))
            left, open_strata = left - quota[stratum], open_strata - 1
    parts = [
        rng.choice(np.flatnonzero(strata == k), size=size, replace=False, shuffle=False)
        for k, size in enumerate(quota)
        if size
    ]
    index = np.sort(np.concatenate(parts))
    return index, (rows / np.maximum(quota, 1))[strata[index]]


def _merge_scores(sample: BinarySample) -> BinarySample:
    """Merge neighbouring scores; a merged score is the mean of its rows."""
    pos, neg = sample.pos[0], sample.neg[0]
    share = pos / max(pos.sum(), 1) + neg / max(neg.sum(), 1)
    cell = ((np.cumsum(share) - share / 2) * (SCORE_CELLS / 2)).astype(np.int64)
    cuts = [part.start for part in reliability_slices(sample.scores)]
    cuts.append(int(np.searchsorted(sample.scores, sample.threshold)))
    breaks = np.union1d(np.flatnonzero(np.diff(cell)) + 1, np.array([0, *cuts]))
    starts = breaks[breaks < len(cell)].astype(np.int64)
    last = np.append(starts[1:], len(cell)) - 1
    merged_pos, merged_neg = np.add.reduceat(pos, starts), np.add.reduceat(neg, starts)
    mean = np.add.reduceat(sample.scores * (pos + neg), starts) / (merged_pos + merged_neg)
    # rounding must not carry a mean over the threshold or out of its reliability bin
    scores = np.clip(mean, sample.scores[starts], sample.scores[last])
    return BinarySample(scores, merged_neg[None, :], merged_pos[None, :], sample.threshold)


def _kept_rows(sample: ClassSample | ErrorSample) -> int:
    if isinstance(sample, ErrorSample):
        return MAX_KEPT
    classes = int(sample.data.probabilities.shape[1])
    return min(MAX_KEPT, max(_MIN_KEPT, _CLASS_CELLS // classes))


def affordable(sample: Sample) -> int:
    """Return the most resamples of a sample whose cost is bounded."""
    if not isinstance(sample, ClassSample):
        return sys.maxsize
    return max(_LEAST_RESAMPLES, _CLASS_WORK // max(1, sample.data.probabilities.size))


def _size(sample: Sample) -> int:
    return len(sample.scores) if isinstance(sample, BinarySample) else sample.weights.shape[1]
