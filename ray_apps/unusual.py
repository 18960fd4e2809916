"""What rows to score hold that training did not: counted, so that nobody guesses at a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arclight.errors import printable
from arclight.features import FLOAT32_MAX

if TYPE_CHECKING:
    from arclight.plan import FeaturePlan, Matrix

FAR_STD = 10.0
"""A number this many standard deviations from the training mean is far; less than 1% of the
training rows can be, whatever their distribution."""

TOLD = 5
"""Features named in a sentence."""

Unusual = dict[str, dict[str, int]]


class Watch:
    """Counts, per feature, rows without a value, of an unknown level or far from training."""

    def __init__(self, plan: FeaturePlan) -> None:
        self._names = plan.names
        numbers = np.array([feature.type == "number" for feature in plan.features], dtype=np.bool_)
        mean = np.array([feature.mean for feature in plan.features])
        reach = FAR_STD * np.array([feature.std for feature in plan.features])
        self._low = _limit(np.where(numbers, mean - reach, -np.inf))
        self._high = _limit(np.where(numbers, mean + reach, np.inf))
        codes = np.array([feature.unknown_code for feature in plan.features])
        self._unknown = np.where(numbers, np.nan, codes).astype(np.float32)

    def count(self, matrix: Matrix) -> Unusual:
        """Return feature -> what is unusual -> rows; what does not occur is left out.

        Args:
            matrix: encoded features, [rows, features].
        """
        found: Unusual = {}
        for what, mask in (
            ("missing", np.isnan(matrix)),
            ("unseen", matrix == self._unknown),
            ("far", (matrix < self._low) | (matrix > self._high)),
        ):
            if mask.any():
                counts = mask.sum(axis=0)
                for place in np.flatnonzero(counts).tolist():
                    found.setdefault(self._names[place], {})[what] = int(counts[place])
        return found


def add_up(whole: Unusual, part: Unusual) -> None:
    """Add the rows of a part to those of a whole."""
    for name, counts in part.items():
        known = whole.setdefault(name, {})
        for what, rows in counts.items():
            known[what] = known.get(what, 0) + rows


def told(found: Unusual) -> str:
    """Return what few or no rows of training had, the most frequent first.

    Missing values are left out: training may have had as many.
    """
    counts = [
        (rows, f"{printable(name)} {what} in {rows:,} rows")
        for name, each in found.items()
        for what, rows in each.items()
        if what != "missing"
    ]
    counts.sort(key=lambda one: -one[0])
    more = f" and {len(counts) - TOLD} more" if len(counts) > TOLD else ""
    return "; ".join(text for _, text in counts[:TOLD]) + more


def _limit(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Matrix:
    """Return limits as float32, whose rounding swallows that of a mean of equal values.

    A limit beyond the range stops at its end, as values do.
    """
    return np.clip(values, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)
