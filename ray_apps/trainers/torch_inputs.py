"""What a network sees of a row: numbers by their rank in train, nulls marked, codes in bounds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arclight.plan import Matrix
    from ray_apps.gang import Gang

KNOTS = 65
"""Quantiles of all values of a feature, and of its distinct ones."""
SAMPLE_ROWS = 100_000
"""Rows of all workers together that the ranks come from."""
SEEN_ROWS = 8192
"""Rows laid out at once: what a processor has at hand while it goes through their columns."""

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """Rows as a network takes them.

    Attributes:
        numbers: float32 [rows, numbers], normal scores; 0 for null.
        is_null: float32 [rows, numbers], 1 for null.
        codes: int64 [rows, categories].
    """

    numbers: Singles
    is_null: Singles
    codes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Turns encoded rows into what a network sees; made of train alone.

    A number becomes the normal score of its rank in train, linear between knots and flat beyond
    the ends: scales, outliers and skew do not matter to it.

    Attributes:
        categorical: places of the category features.
        knots: of each numeric feature, some of its values, each greater than the last.
        scores: the normal scores of those ranks.
        levels: codes of each category feature, those for null and for unseen codes included.
    """

    features: int
    categorical: tuple[int, ...]
    knots: tuple[Singles, ...]
    scores: tuple[Singles, ...]
    levels: tuple[int, ...]

    @property
    def numeric(self) -> tuple[int, ...]:
        """Places of the numeric features."""
        return tuple(i for i in range(self.features) if i not in self.categorical)

    def see(self, matrix: Matrix, run: Callable[..., Iterable[None]] = map) -> Seen:
        """Return what a network sees of encoded rows.

        Args:
            matrix: float32 [rows, features], NaN for null.
            run: calls a function with each of some values, as `map` does; perhaps on threads.
        """
        rows = len(matrix)
        seen = Seen(
            np.empty((rows, len(self.knots)), np.float32),
            np.empty((rows, len(self.knots)), np.float32),
            np.empty((rows, len(self.levels)), np.int64),
        )

        def some(start: int) -> None:
            cut = slice(start, start + SEEN_ROWS)
            self._see(matrix[cut], seen.numbers[cut], seen.is_null[cut], seen.codes[cut])

        deque(run(some, range(0, rows, SEEN_ROWS)), maxlen=0)
        return seen

    def _see(
        self,
        matrix: Matrix,
        numbers: Singles,
        is_null: Singles,
        codes: npt.NDArray[np.int64],
    ) -> None:
        """Leave what a network sees of some rows in three arrays."""
        for place, feature in enumerate(self.numeric):
            column = matrix[:, feature]
            null = np.isnan(column)
            found = np.interp(column, self.knots[place], self.scores[place])
            numbers[:, place] = np.where(null, 0.0, found)
            is_null[:, place] = null
        for place, feature in enumerate(self.categorical):
            column, unseen = matrix[:, feature], self.levels[place] - 1
            whole = np.where(np.isnan(column), unseen - 1, column).astype(np.int64)
            is_known = (column < unseen - 1) & (column >= 0)
            codes[:, place] = np.where(is_known | np.isnan(column), whole, unseen)


def fit_inputs(matrix: Matrix, categorical: Sequence[int], gang: Gang, *, seed: int) -> Inputs:
    """Learn ranks and levels from the train rows of all workers; the same on each of them.

    Args:
        matrix: this worker's encoded rows.
        categorical: places of the category features.
        gang: the workers.
        seed: of the sample that ranks come from.
    """
    sample = _sample_of_all(matrix, gang, seed)
    features = matrix.shape[1]
    numeric = [i for i in range(features) if i not in categorical]
    pairs = [_ranks(sample[:, i]) for i in numeric]
    tops = _tops_of_all(matrix, categorical, gang)
    return Inputs(
        features=features,
        categorical=tuple(categorical),
        knots=tuple(knots for knots, _ in pairs),
        scores=tuple(scores for _, scores in pairs),
        levels=tuple(int(top) + 3 for top in tops),
    )


# --------------------------------------------------------------------------------- inside


def _sample_of_all(matrix: Matrix, gang: Gang, seed: int) -> Matrix:
    rows = min(len(matrix), -(-SAMPLE_ROWS // gang.world))
    places = np.random.default_rng(seed).choice(len(matrix), rows, replace=False)
    mine = np.ascontiguousarray(matrix[np.sort(places)])
    found = gang.exchange([mine.tobytes()] * gang.world)
    return np.concatenate(
        [np.frombuffer(part, np.float32).reshape(-1, matrix.shape[1]) for part in found]
    )


def _tops_of_all(
    matrix: Matrix, categorical: Sequence[int], gang: Gang
) -> npt.NDArray[np.float64]:
    """Return the highest code of each category feature; -1 where all are null."""
    mine = np.array([np.nanmax(matrix[:, i], initial=-1.0) for i in categorical], dtype=np.float64)
    found = gang.exchange([mine.tobytes()] * gang.world)
    tops: npt.NDArray[np.float64] = np.stack([np.frombuffer(part) for part in found]).max(axis=0)
    return tops


def _ranks(column: Singles) -> tuple[Singles, Singles]:
    """Return a feature's knots and the normal scores of their ranks.

    Knots are quantiles of all values and of the distinct ones, so that a value is told from the
    others however rare it is; the rank of one that stands many times is the middle of its rows.
    """
    known = np.sort(column[~np.isnan(column)]).astype(np.float64)
    if not len(known):
        return np.zeros(1, np.float32), np.zeros(1, np.float32)
    distinct = np.unique(known)
    if len(distinct) > 2 * KNOTS:
        shares = np.linspace(0, 1, KNOTS)
        both = [np.quantile(values, shares, method="nearest") for values in (known, distinct)]
        knots = np.unique(np.concatenate(both))
    else:
        knots = distinct
    low, high = (np.searchsorted(known, knots, side) for side in ("left", "right"))
    scores = torch.special.ndtri(torch.from_numpy((low + high) / 2 / len(known))).numpy()
    return knots.astype(np.float32), (scores if len(knots) > 1 else np.zeros(1)).astype(np.float32)
