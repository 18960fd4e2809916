"""How far a column moved between two sets of rows: one formula for profile and monitoring.

The population stability index of shares e (expected) and a (actual) over bins is
sum (a - e) * ln(a / e): 0 when nothing moved, symmetric, unbounded (Siddiqi 2006). Two samples of
the same rows do not give 0: (1/n + 1/m) times a chi-squared with bins - 1 degrees of freedom is
what chance alone gives (Yurdakul and Naranjo 2020), so a shift below that is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from arclight.summary import ColumnSummary

Grade = Literal["none", "moderate", "large"]

BINS = 10
MIN_SHARE = 0.01  # a level below this share of the expected rows is pooled with the rare ones
FLOOR = 1e-4  # an empty bin counts as this share, so that one new level is not infinitely far,
HALF = 0.5  # and as no less than half a row, or few rows would look far from anything
MODERATE, LARGE = 0.1, 0.25  # the usual reading of the index
_UNNAMED = 2  # bins when no level is frequent enough: the rest and the nulls
_Z95 = 1.6448536269514722

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How far a column moved.

    Attributes:
        psi: the population stability index.
        noise: what chance alone exceeds in one of twenty pairs of samples of this size.
    """

    psi: float
    noise: float

    @property
    def grade(self) -> Grade:
        """`large` from 0.25, `moderate` from 0.1, and `none` below that or within the noise."""
        if self.psi < max(MODERATE, self.noise):
            return "none"
        return "large" if self.psi >= LARGE else "moderate"


def measure_shift(expected: ColumnSummary, actual: ColumnSummary) -> Shift | None:
    """Return how far a column moved, None when a side has no rows or it cannot be told.

    A number is binned at the tenths of the expected rows, and a value that is more than one of
    them has a bin of its own; a category by its levels of at least 1 % of the expected rows with
    the rest in one bin; nulls are a bin of their own. Of a category without such a level only a
    move of the nulls can be told.

    Args:
        expected: the column where the model learned, such as the train split's summary.
        actual: the same column elsewhere.
    """
    if not expected.rows or not actual.rows:
        return None
    counted = _number_counts if expected.type == "number" else _level_counts
    before, after = counted(expected, actual)
    shift = Shift(psi=stability_index(before, after), noise=_noise(before, after))
    is_blind = expected.type == "category" and len(before) == _UNNAMED and before[0] > 0
    return None if is_blind and shift.grade == "none" else shift


def stability_index(expected: Counts, actual: Counts) -> float:
    """Return the population stability index of two counts per bin, each with at least one row.

    A bin without rows on both sides is left out.
    """
    known = expected + actual > 0
    e, a = _shares(expected)[known], _shares(actual)[known]
    return float(np.sum((a - e) * np.log(a / e)))


def _shares(counts: Counts) -> Counts:
    rows = counts.sum()
    found: Counts = np.maximum(counts / rows, max(FLOOR, HALF / rows))
    return found


def _number_counts(expected: ColumnSummary, actual: ColumnSummary) -> tuple[Counts, Counts]:
    tenths = expected.sketch.quantiles([place / BINS for place in range(1, BINS)])
    edges, times = np.unique([edge for edge in tenths if edge is not None], return_counts=True)
    # what lies below such a value would share its bin: all of a flag that is mostly 1
    edges = np.union1d(edges, np.nextafter(edges[times > 1], -np.inf))
    return _binned(expected, edges), _binned(actual, edges)


def _binned(summary: ColumnSummary, edges: Counts) -> Counts:
    """Return rows per bin (low, high], the nulls last."""
    points = summary.sketch.points()
    place = np.searchsorted(edges, points, side="left")
    counts = np.bincount(place, minlength=len(edges) + 1).astype(np.float64)
    return np.append(counts * (summary.sketch.count / max(len(points), 1)), summary.nulls)


def _level_counts(expected: ColumnSummary, actual: ColumnSummary) -> tuple[Counts, Counts]:
    named = [lv.value for lv in expected.levels if lv.count >= MIN_SHARE * expected.rows]
    return _by_level(expected, named), _by_level(actual, named)


def _by_level(summary: ColumnSummary, named: list[str]) -> Counts:
    found = {level.value: level.count for level in summary.levels}
    counts = [found.get(name, 0) for name in named]
    rest = summary.rows - summary.nulls - sum(counts)
    return np.array([*counts, rest, summary.nulls], dtype=np.float64)


def _noise(expected: Counts, actual: Counts) -> float:
    bins = int(np.count_nonzero(expected + actual))
    return _chi_squared_95(bins - 1) * (1 / float(expected.sum()) + 1 / float(actual.sum()))


def _chi_squared_95(freedom: int) -> float:
    """Return the 95 % point of a chi-squared (Wilson and Hilferty 1931), within 2 %."""
    if freedom < 1:
        return 0.0
    part = 2 / (9 * freedom)
    return freedom * (1 - part + _Z95 * math.sqrt(part)) ** 3
