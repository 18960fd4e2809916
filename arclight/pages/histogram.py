"""Histograms out of quantile sketches: the same bins for every split of a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arclight.summary import ColumnSummary

Floats = npt.NDArray[np.float64]

BINS = 36
TAIL = 0.005  # share of rows cut off at each end of a long-tailed column
_LONG_TAIL = 2.0  # a tail is long when it stretches the axis by more than this

_EXACT = 2**51  # half a step beyond a whole number below this is still a number of its own


@dataclass(frozen=True)
class Histogram:
    """Shares of each split's known rows per bin.

    Attributes:
        edges: of the bins, one more than there are bins.
        shares: split -> share per bin; below 1 in sum when tails are cut.
        is_cut: whether rows lie beyond the edges.
    """

    edges: Floats
    shares: Mapping[str, Floats]
    is_cut: bool

    @property
    def peak(self) -> float:
        """The largest share of a bin."""
        return max(float(share.max()) for share in self.shares.values())


def make_histogram(splits: Mapping[str, ColumnSummary], bins: int = BINS) -> Histogram | None:
    """Return the histogram of a number's splits, None when no split has a value."""
    points = {
        name: found.sketch.points().astype(np.float64)
        for name, found in splits.items()
        if found.sketch.count
    }
    if not points:
        return None
    low, high, is_cut = _limits(splits, points)
    whole = all(bool(np.all(values == np.round(values))) for values in points.values())
    edges = _edges(low, high, bins, whole=whole)
    return Histogram(
        edges=edges,
        shares={n: np.histogram(values, edges)[0] / len(values) for n, values in points.items()},
        is_cut=is_cut,
    )


def _limits(
    splits: Mapping[str, ColumnSummary], points: Mapping[str, Floats]
) -> tuple[float, float, bool]:
    low = min(s.low for s in splits.values() if s.low is not None)
    high = max(s.high for s in splits.values() if s.high is not None)
    inner = [np.quantile(values, (TAIL, 1 - TAIL)) for values in points.values()]
    start, end = float(min(q[0] for q in inner)), float(max(q[1] for q in inner))
    if end > start and high - low > _LONG_TAIL * (end - start):
        return start, end, True
    return low, high, False


def _edges(low: float, high: float, bins: int, *, whole: bool) -> Floats:
    """Return bin edges; whole numbers get bins of whole width, centred, so that none is empty."""
    if whole and max(abs(low), abs(high)) < _EXACT:
        low = np.floor(low)
        width = max(1.0, np.ceil((high - low + 1) / bins))
        steps = int((high - low) // width) + 2
        return np.asarray(low - 0.5 + width * np.arange(steps), dtype=np.float64)
    if low == high:
        pad = abs(low) * 0.05 or 0.5
        return np.array([low - pad, low + pad])
    return np.linspace(low, high, bins + 1)
