"""How far apart two models are: both measured on the same resamples of the same rows.

What a figure owes to the rows that chance put into a split, it owes in both models: the interval
of their difference is far narrower than that of either figure. Each model is measured by itself,
when its scores are there; as the resamples are the same, the differences can be taken later.

Rows are redrawn with replacement (Efron 1979). Of many rows a random subset stands for all, each
kept row with the weight of those it stands for (one bag of the little bootstraps of Kleiner et al.
2014); it is stratified by the label, which is the same for every model: by class, so that rare
classes stay; by distance from the median, so that the tails stay.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.bootstrap import RESAMPLES, TAILS, affordable, draws, thin
from arclight.contract import Contract
from arclight.metrics import metric_for
from arclight.samples import DEFAULT_THRESHOLD, by_rows, make_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arclight.samples import Floats, Ints, Task

MAX_ROWS = 20_000
"""Rows that stand for all where there are more than twice as many."""
SEED = 0


class Redrawn(Contract):
    """A metric of one model on resamples that other models are measured on too."""

    metric: str
    rows: str
    """Digest of the rows, in their order, and of how often each resample has each of them."""
    value: float | None
    """Of all rows."""
    kept: float | None
    """Of the rows that stand for all."""
    drawn: tuple[float | None, ...]
    """Of each resample; None where undefined."""


def redraw(
    task: Task,
    metric: str,
    labels: NDArray[Any],
    predictions: NDArray[Any],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    keys: bytes = b"",
) -> Redrawn:
    """Measure a model on resamples of rows that are the same for every model.

    Args:
        task: what was predicted.
        metric: a name of `arclight.metrics`.
        labels: as in `make_sample`, [rows].
        predictions: as in `make_sample`, [rows] or [rows, classes].
        threshold: binary only; a row is called positive at score >= threshold.
        keys: what tells these rows, in this order, from others with the same labels.
    """
    truth = np.ascontiguousarray(labels, dtype=np.float64)
    digest = hashlib.sha256(keys + truth.tobytes())
    formula = metric_for(task, metric)
    rng = np.random.default_rng(SEED)
    index, counts = _kept(task, truth, rng)
    weighted = by_rows(task, labels[index], predictions[index], threshold)
    base = weighted(counts[None, :])
    drawn: list[Floats] = []
    for weights in draws(counts, min(RESAMPLES, affordable(base)), rng):
        digest.update(weights.tobytes())
        drawn.append(formula.lines(task, weighted(weights)))
    lines = np.concatenate(drawn) if drawn else np.zeros(0)
    whole = make_sample(task, truth, predictions, threshold)
    return Redrawn(
        metric=metric,
        rows=digest.hexdigest(),
        value=formula.value(task, whole),
        kept=formula.value(task, base),
        drawn=tuple(float(x) if np.isfinite(x) else None for x in lines),
    )


def difference(one: Redrawn, other: Redrawn) -> tuple[float, float] | None:
    """Return the 95% interval of the first model's figure less the second's.

    A percentile interval of the resamples' differences, moved by what the kept rows are off.

    Returns:
        Low and high end; None where the rows or metrics are not the same, or all is undefined.
    """
    if (one.metric, one.rows) != (other.metric, other.rows):
        return None
    if one.value is None or other.value is None or one.kept is None or other.kept is None:
        return None
    lines = np.array(one.drawn, np.float64) - np.array(other.drawn, np.float64)
    lines = lines[np.isfinite(lines)]
    if not len(lines):
        return None
    shift = (one.value - other.value) - (one.kept - other.kept)
    low, high = (float(tail) + shift for tail in np.quantile(lines, TAILS))
    return low, high


def _kept(task: Task, labels: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Return the rows that stand for all, ascending, and how many each stands for."""
    if len(labels) <= 2 * MAX_ROWS:
        return np.arange(len(labels)), np.ones(len(labels))
    if task != "regression":
        return thin(labels.astype(np.int64), MAX_ROWS, rng)
    order = np.argsort(np.abs(labels - np.median(labels)), kind="stable")
    is_tail = np.zeros(len(labels), dtype=np.int64)
    is_tail[order[-MAX_ROWS // 4 :]] = 1
    return thin(is_tail, MAX_ROWS, rng)
