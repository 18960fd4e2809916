"""ColumnSummary: what is known of a column after one pass, mergeable across batches and tasks.

One implementation for the ETL, the profile, batch scoring and serving: a builder takes in Arrow
batches, freezes into a value, and values merge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arclight.contract import Contract
from arclight.keys import hash_rows
from arclight.sketch import POINTS, QuantileSketch, SketchPoints, merge_points

if TYPE_CHECKING:
    from collections.abc import Sequence

TASK_POINTS = 4096
RANK_ERROR = 0.005
"""Of the values: so far is the rank of a trimmed summary's quantile off at most, by what
`arclight.sketch` states, for up to 10**12 rows of 10**6 tasks; not at all while POINTS hold them.
"""
MAX_LEVELS = 200_000
TOP_LEVELS = 200
MAX_LEVEL_BYTES = 256
_KMV = 1024

Doubles = npt.NDArray[np.float64]


class Level(Contract):
    """A category level: how often it occurred and the sum of the label over its rows."""

    value: str
    count: int
    label_sum: float = 0.0


def _dot(a: Doubles, b: Doubles) -> float:
    """Return a sum of products; not `@`, which sums in as many parts as BLAS has threads."""
    return float(np.einsum("i,i->", a, b))


def _centre(values: Doubles) -> tuple[float, Doubles]:
    """Return the mean and the distances to it, exactly 0 where all values are equal."""
    is_constant = bool((values == values[0]).all())
    mean = float(values[0] if is_constant else values.mean())
    return mean, values - mean


class Moments(Contract):
    """Count, mean and squared deviations of x, of the label y on the same rows, and of both."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    label_mean: float = 0.0
    label_m2: float = 0.0
    co_m2: float = 0.0

    @classmethod
    def of(cls, x: Doubles, y: Doubles) -> Self:
        """Return the moments of rows; shapes [n], all finite."""
        if not len(x):
            return cls()
        (mean, dx), (label_mean, dy) = _centre(x), _centre(y)
        return cls(
            count=len(x),
            mean=mean,
            m2=_dot(dx, dx),
            label_mean=label_mean,
            label_m2=_dot(dy, dy),
            co_m2=_dot(dx, dy),
        )

    @classmethod
    def of_label(cls, y: Doubles) -> Self:
        """Return the moments of rows that have no x, such as a category's."""
        if not len(y):
            return cls()
        label_mean, dy = _centre(y)
        return cls(count=len(y), label_mean=label_mean, label_m2=_dot(dy, dy))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows (Chan, Golub, LeVeque 1979)."""
        if not self.count or not other.count:
            return other if other.count else self
        count = self.count + other.count
        dx, dy = other.mean - self.mean, other.label_mean - self.label_mean
        share = self.count * other.count / count
        return Moments(
            count=count,
            mean=self.mean + dx * other.count / count,
            m2=self.m2 + other.m2 + dx * dx * share,
            label_mean=self.label_mean + dy * other.count / count,
            label_m2=self.label_m2 + other.label_m2 + dy * dy * share,
            co_m2=self.co_m2 + other.co_m2 + dx * dy * share,
        )

    @property
    def std(self) -> float:
        """Population standard deviation of x, 0 for no rows."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else 0.0

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation of x with the label, None where either is constant."""
        scale = float(np.sqrt(self.m2) * np.sqrt(self.label_m2))
        return max(-1.0, min(1.0, self.co_m2 / scale)) if scale > 0 else None


class ColumnSummary(Contract):
    """What is known of one column of one split."""

    name: str
    type: Literal["number", "category"]
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    """NaN in the source, taken as null and counted in `nulls` too."""
    zeros: int = 0
    low: float | None = None
    high: float | None = None
    moments: Moments = Moments()
    """Of a number's values against the label; of a category, the label's alone."""
    sketch: SketchPoints = SketchPoints()
    levels: tuple[Level, ...] = ()
    """Most frequent first, ties by value; all of them up to MAX_LEVELS until trimmed."""
    other_rows: int = 0
    """Rows of a category in no level listed here."""
    minima: tuple[int, ...] = ()
    """The smallest hashes of a category's values, for `distinct`."""

    @property
    def distinct(self) -> int:
        """Distinct non-null levels: exact below 1024, else the KMV estimate (Bar-Yossef 2002)."""
        if len(self.minima) < _KMV:
            return len(self.minima)
        return round((_KMV - 1) / ((self.minima[-1] + 1) / 2**64))

    @property
    def is_constant(self) -> bool:
        """Whether every non-null value is the same; a column of nulls is constant."""
        if self.type == "number":
            return self.low == self.high
        return self.distinct <= 1

    @property
    def association(self) -> float | None:
        """Strength of the relation with the label in 0…1: |Pearson|, or the correlation ratio."""
        if self.type == "number":
            found = self.moments.correlation
            return None if found is None else abs(found)
        return self._correlation_ratio()

    def _correlation_ratio(self) -> float | None:
        """Return eta: the root of the label's variance share between levels."""
        whole = self.moments
        if whole.label_m2 <= 0:
            return None
        groups = [(level.count, level.label_sum) for level in self.levels]
        if self.other_rows:
            rest = whole.count * whole.label_mean - sum(total for _, total in groups)
            groups.append((self.other_rows, rest))
        between = sum(n * (total / n - whole.label_mean) ** 2 for n, total in groups if n)
        return float(np.sqrt(min(1.0, between / whole.label_m2)))

    def trim(self, *, points: int = POINTS, levels: int = TOP_LEVELS) -> ColumnSummary:
        """Return a smaller copy for a manifest: fewer sketch points, only the top levels."""
        rest = sum(level.count for level in self.levels[levels:])
        return self.model_copy(
            update={
                "sketch": merge_points([self.sketch], points),
                "levels": self.levels[:levels],
                "other_rows": self.other_rows + rest,
            }
        )


def merge_summaries(parts: Sequence[ColumnSummary]) -> ColumnSummary:
    """Return the summary of all parts' rows; parts are of one column, at least one."""
    lows = [part.low for part in parts if part.low is not None]
    highs = [part.high for part in parts if part.high is not None]
    moments = parts[0].moments
    for part in parts[1:]:
        moments = moments.merge(part.moments)
    levels, cut = _merge_levels(parts)
    return ColumnSummary(
        name=parts[0].name,
        type=parts[0].type,
        rows=sum(part.rows for part in parts),
        nulls=sum(part.nulls for part in parts),
        nans=sum(part.nans for part in parts),
        zeros=sum(part.zeros for part in parts),
        low=min(lows, default=None),
        high=max(highs, default=None),
        moments=moments,
        sketch=merge_points([part.sketch for part in parts], TASK_POINTS),
        levels=levels,
        other_rows=sum(part.other_rows for part in parts) + cut,
        minima=tuple(sorted({h for part in parts for h in part.minima})[:_KMV]),
    )


def _merge_levels(parts: Sequence[ColumnSummary]) -> tuple[tuple[Level, ...], int]:
    counts: dict[str, tuple[int, float]] = {}
    for part in parts:
        for level in part.levels:
            count, total = counts.get(level.value, (0, 0.0))
            counts[level.value] = (count + level.count, total + level.label_sum)
    return _rank(counts)


def _rank(counts: dict[str, tuple[int, float]]) -> tuple[tuple[Level, ...], int]:
    """Return levels by falling count, ties by value, at most MAX_LEVELS; and the rows cut off."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    kept = tuple(Level(value=v, count=n, label_sum=s) for v, (n, s) in ranked[:MAX_LEVELS])
    return kept, sum(n for _, (n, _) in ranked[MAX_LEVELS:])


class NumberBuilder:
    """Takes in batches of a numeric column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = self.nulls = self.nans = self.zeros = 0
        self.low, self.high = np.inf, -np.inf
        self.moments = Moments()
        self.sketch = QuantileSketch()

    def add(self, values: pa.Array, label: Doubles, *, nans: int = 0) -> None:
        """Take in float32 values with nulls (no NaN), the label [n], and how many were NaN."""
        self.rows += len(values)
        self.nulls += values.null_count
        self.nans += nans
        known = values.is_valid().to_numpy(zero_copy_only=False) if values.null_count else None
        x = values.drop_null().to_numpy(zero_copy_only=False)
        if not len(x):
            return
        self.zeros += len(x) - int(np.count_nonzero(x))
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        y = label if known is None else label[known]
        self.moments = self.moments.merge(Moments.of(x.astype(np.float64), y))
        self.sketch.add(x)

    def freeze(self) -> ColumnSummary:
        """Return what was taken in so far."""
        return ColumnSummary(
            name=self.name,
            type="number",
            rows=self.rows,
            nulls=self.nulls,
            nans=self.nans,
            zeros=self.zeros,
            low=self.low if self.moments.count else None,
            high=self.high if self.moments.count else None,
            moments=self.moments,
            sketch=self.sketch.freeze(TASK_POINTS),
        )


class CategoryBuilder:
    """Takes in batches of a category column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = self.nulls = self.nans = self.other_rows = 0
        self.moments = Moments()
        self._counts: dict[str, tuple[int, float]] = {}
        self._minima = np.empty(0, dtype=np.uint64)

    def add(self, values: pa.Array, label: Doubles, *, nans: int = 0) -> None:
        """Take in string values with nulls, the label [n], and how many nulls were NaN."""
        self.rows += len(values)
        self.nans += nans
        coded = _coded(values)
        known = coded.is_valid().to_numpy(zero_copy_only=False)
        codes = coded.indices.drop_null().to_numpy(zero_copy_only=False)
        self.nulls += coded.null_count
        y = label[known] if coded.null_count else label
        self.moments = self.moments.merge(Moments.of_label(y))
        size = len(coded.dictionary)
        if not size:
            return
        counts = np.bincount(codes, minlength=size)
        totals = np.bincount(codes, weights=y, minlength=size).astype(np.float64)
        self._add_levels(coded.dictionary.cast(pa.string()), counts, totals)

    def _add_levels(
        self, levels: pa.Array, counts: npt.NDArray[np.int64], totals: Doubles
    ) -> None:
        hashes = np.unique(np.concatenate([self._minima, hash_rows([levels])[counts > 0]]))
        self._minima = hashes[:_KMV]
        short = pc.less_equal(pc.binary_length(levels), MAX_LEVEL_BYTES).to_pylist()
        for value, fits, count, total in zip(
            levels.to_pylist(), short, counts.tolist(), totals.tolist(), strict=True
        ):
            if not fits:
                self.other_rows += count
            elif count:
                before = self._counts.get(value, (0, 0.0))
                self._counts[value] = (before[0] + count, before[1] + total)
        if len(self._counts) > 2 * MAX_LEVELS:
            self._forget()

    def _forget(self) -> None:
        """Keep the most frequent levels; the rest count as other rows (lossy counting)."""
        kept, cut = _rank(self._counts)
        self.other_rows += cut
        self._counts = {level.value: (level.count, level.label_sum) for level in kept}

    def freeze(self) -> ColumnSummary:
        """Return what was taken in so far."""
        levels, cut = _rank(self._counts)
        return ColumnSummary(
            name=self.name,
            type="category",
            rows=self.rows,
            nulls=self.nulls,
            nans=self.nans,
            moments=self.moments,
            levels=levels,
            other_rows=self.other_rows + cut,
            minima=tuple(self._minima.tolist()),
        )


def _coded(values: pa.Array) -> pa.DictionaryArray:
    """Return a dictionary array in which null is a null code, never a level."""
    if pa.types.is_dictionary(values.type):
        if not values.dictionary.null_count:
            return values
        values = values.cast(values.type.value_type)
    return values.dictionary_encode()


Builder = NumberBuilder | CategoryBuilder


def make_builder(name: str, kind: Literal["number", "category"]) -> Builder:
    """Return an empty builder for a column."""
    return NumberBuilder(name) if kind == "number" else CategoryBuilder(name)
