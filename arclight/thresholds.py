"""Where the scores of a binary task are cut: by F1, by what wrong answers cost, or at 0.5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arclight.samples import DEFAULT_THRESHOLD, binary_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arclight.samples import Floats, Task


def threshold_for(task: Task, name: str, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Return where a metric cuts scores for which no threshold is chosen yet."""
    is_f1 = task == "binary" and name == "f1"
    return best_f1_threshold(labels, predictions) if is_f1 else DEFAULT_THRESHOLD


def best_f1_threshold(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Return the threshold t with the best F1 of `score >= t`, over all that differ.

    Of equal F1 the highest t wins (fewest rows called positive); t is midway between the lowest
    score above it and the next lower one. Without positives there is no best one and 0.5 is
    returned.
    """
    s = binary_sample(np.asarray(labels, np.float64), np.asarray(scores, np.float64))
    hits = np.cumsum(s.pos[0, ::-1])
    if not len(hits) or hits[-1] == 0:
        return DEFAULT_THRESHOLD
    called = hits + np.cumsum(s.neg[0, ::-1])
    values = 2 * hits / (called + hits[-1])
    return _midway(s.scores, int(np.argmax(values)) + 1)


def cheapest_threshold(
    labels: NDArray[Any], scores: NDArray[Any], *, false_positive: float, false_negative: float
) -> float:
    """Return the threshold t with the least cost of `score >= t`, over all that differ.

    Of equal cost the highest t wins (fewest rows called positive), as with `best_f1_threshold`;
    where calling nobody is cheapest, t is above every score.

    Args:
        labels: 0 or 1, [rows].
        scores: [rows].
        false_positive: the cost of a 0 called 1.
        false_negative: the cost of a 1 called 0.
    """
    s = binary_sample(np.asarray(labels, np.float64), np.asarray(scores, np.float64))
    if not len(s.scores):
        return DEFAULT_THRESHOLD
    called_wrongly = np.concatenate([[0.0], np.cumsum(s.neg[0, ::-1])])
    found = np.concatenate([[0.0], np.cumsum(s.pos[0, ::-1])])
    cost = false_positive * called_wrongly + false_negative * (found[-1] - found)
    return _midway(s.scores, int(np.argmin(cost)))


def _midway(ascending: Floats, called: int) -> float:
    """Return the threshold that calls so many distinct scores positive, as far from all as it can.

    A score may differ in its last bits between a batch and a request: at a score itself, the rows
    that have it would be called positive in one of them alone.
    """
    place = len(ascending) - called
    lower = float(ascending[place - 1]) if place else 0.0
    upper = float(ascending[place]) if called else 1.0
    middle = lower + (upper - lower) / 2
    if lower < middle <= upper:
        return middle
    return upper if called else float(np.nextafter(lower, np.inf))
