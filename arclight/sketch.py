"""A mergeable quantile sketch.

While rows come in it is a stack of levels: level h holds values that stand for 2**h rows each. A
level that outgrows its capacity is sorted and every other value moves one level up, odd and even
in turn, so that the errors of neighbouring compactions cancel (Munro and Paterson 1980; Manku,
Rajagopalan, Lindsay, SIGMOD 1998). No random numbers: the same batches in the same order give the
same bytes. Its rank error is at most levels / (2 * capacity) of the rows; while all values fit,
it is zero. As stored it is a row of values at evenly spaced ranks, which adds 1 / (2 * size).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from arclight.contract import Contract

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64]
CAPACITY = 4096
POINTS = 1024


class QuantileSketch:
    """Quantiles of a stream of finite float32 values."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.count = 0
        self._levels: list[list[Floats]] = [[]]
        self._odd: list[bool] = [False]

    def add(self, values: Floats) -> None:
        """Take in values; none may be NaN."""
        if len(values):
            self.count += len(values)
            # a copy, since a view would keep the whole batch it was cut from in memory
            self._levels[0].append(np.array(values, dtype=np.float32))
            self._compact()

    def _compact(self) -> None:
        level = 0
        while level < len(self._levels):
            # the lowest level buffers more, since sorting one long run beats sorting many short
            if sum(map(len, self._levels[level])) > self.capacity * (8 if level == 0 else 1):
                self._promote(level)
            level += 1

    def _promote(self, level: int) -> None:
        if level + 1 == len(self._levels):
            self._levels.append([])
            self._odd.append(False)
        values = np.sort(np.concatenate(self._levels[level]))
        even = len(values) - len(values) % 2
        self._levels[level + 1].append(values[:even][int(self._odd[level]) :: 2])
        self._odd[level] = not self._odd[level]
        self._levels[level] = [values[even:]]

    def freeze(self, size: int = POINTS) -> SketchPoints:
        """Return the stored form with at most `size` points."""
        values = [np.concatenate([*parts, np.empty(0, np.float32)]) for parts in self._levels]
        weights = [np.full(len(v), float(1 << level)) for level, v in enumerate(values)]
        return _even_ranks(np.concatenate(values), np.concatenate(weights), self.count, size)


class SketchPoints(Contract):
    """A sketch as stored: values at evenly spaced ranks, each standing for as many rows."""

    count: int = 0
    values: str = ""
    """Base64 of ascending little-endian float32 values."""

    def points(self) -> Floats:
        """Return the values, ascending."""
        return np.frombuffer(base64.b64decode(self.values), dtype="<f4").astype(np.float32)

    def quantiles(self, at: Sequence[float]) -> tuple[float | None, ...]:
        """Return the values at the given shares (0 to 1), None when there are no rows."""
        points = self.points()
        if not len(points):
            return tuple(None for _ in at)
        # 0.07 * 100 is a little more than 7: the nearest whole rank is the one that is meant
        index = np.ceil(np.asarray(at) * len(points) - 1e-6).astype(np.int64) - 1
        return tuple(float(v) for v in points[np.clip(index, 0, len(points) - 1)])


def merge_points(parts: Sequence[SketchPoints], size: int = POINTS) -> SketchPoints:
    """Return the sketch of all parts' rows with at most `size` points."""
    filled = [part for part in parts if part.count]
    if not filled:
        return SketchPoints()
    values = [part.points() for part in filled]
    weights = [np.full(len(v), p.count / len(v)) for v, p in zip(values, filled, strict=True)]
    count = sum(part.count for part in filled)
    return _even_ranks(np.concatenate(values), np.concatenate(weights), count, size)


def _even_ranks(values: Floats, weights: Weights, count: int, size: int) -> SketchPoints:
    order = np.argsort(values, kind="stable")
    values, ends = values[order], np.cumsum(weights[order])
    if count > size or len(values) != count:
        size = min(size, count)
        ranks = (np.arange(size) + 0.5) / max(size, 1) * (ends[-1] if len(ends) else 0.0)
        values = values[np.minimum(np.searchsorted(ends, ranks), len(values) - 1)]
    return SketchPoints(
        count=count, values=base64.b64encode(values.astype("<f4").tobytes()).decode()
    )
