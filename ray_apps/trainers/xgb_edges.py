"""Where XGBoost's bins end: quantiles of each feature over the rows of all workers.

The library's own sketch takes longer than the rest of its binning. Here every part of the rows is
sorted by the vector instructions that numpy has for it. What is kept of a part are its distinct
values and their weights: all of them, or as many at even steps of weight as make a step an eighth
of a bin. Such summaries are put together, sixteen to one, again and again (Munro and Paterson
1980), by every worker and at the end by the first one. A feature with no more values than bins
gets the library's own edges, another one bins of even weight.

Not `arclight.sketch`: what it leaves out may be a rare value, which has an edge of its own where
there are few others, and its rows weigh the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from ray_apps.gang.totals import total
from ray_apps.trainers.xgb_twins import MOST_NULLS, Twins, end_of, may_have_twins, twins_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from ray_apps.gang import Gang
    from ray_apps.shards import Shard
    from ray_apps.trainers import TrainJob

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
MAX_BIN = 256
"""Bins of a feature where the spec says nothing: the library's default."""
STEPS, LEAST = 8, 1024
"""Values kept of a feature: so many a bin, and no fewer. Leaving some out moves the rank of any
other value by a step at most."""
FAN_IN = 16
"""Summaries that are made one."""


@dataclass(frozen=True)
class Edges:
    """Where bins end, the same on every worker.

    Attributes:
        rows: of each feature what the library makes these edges of, ascending, NaN where there
            is no more: [rows, features]. Of a category some codes, the highest among them.
        categorical: which features are categories.
        bins: of a feature at most.
        twins: how the library is shown the features, whose edges follow from these; None as
            they are.
        further: of each column that the library is shown one more edge, behind the others, or
            a code, up to which there are bins; NaN for none. See `up_to`.
    """

    rows: Singles
    categorical: tuple[int, ...]
    bins: int
    twins: Twins | None = None
    further: Singles | None = None

    @property
    def most_bins(self) -> int:
        """Of a column."""
        return self.bins + (self.further is not None)

    @property
    def names(self) -> list[str]:
        """Of the columns that the library is shown."""
        return self.twins.names if self.twins else [f"f{i}" for i in range(self.rows.shape[1])]

    @property
    def types(self) -> list[str]:
        """Of the columns that the library is shown: `c` for a category."""
        features = range(self.rows.shape[1])
        shown = [f for f, _ in self.twins.places] if self.twins else features
        return ["c" if feature in self.categorical else "q" for feature in shown]

    def matrix(self, threads: int) -> xgb.QuantileDMatrix:
        """Return a matrix of which others take their edges, as `ref`.

        Raises:
            XGBoostError: the library refuses a value, such as an infinite one.
        """
        return xgb.QuantileDMatrix(
            _beside(self._columns()),
            feature_names=self.names,
            feature_types=self.types,
            enable_categorical=True,
            max_bin=self.most_bins,
            nthread=threads,
        )

    def up_to(self, tops: Doubles) -> Edges:
        """Return these edges and those that rows need of which some go further than train's.

        The library takes what is behind the last edge for a value of the last bin, and a code that
        it has no bin for, for the highest one. The model's splits do not: what is behind the last
        edge goes with the nulls. With a bin of its own it is judged as it will be scored, and
        the rows of the other bins are judged as before.

        Args:
            tops: the greatest value of those rows by column as the library is shown them, minus
                infinity for none: [columns].
        """
        further = np.full(len(tops), np.nan, dtype=np.float32)
        shown = zip(self._columns(), tops, self.types, strict=True)
        for place, (values, top, kind) in enumerate(shown):
            if len(values) == 0:  # no tree splits by it
                continue
            if kind == "c" and top > values[-1]:
                further[place] = top
            elif kind == "q" and top >= (end := end_of(values[-1])):
                further[place] = end
        return self if np.isnan(further).all() else replace(self, further=further)

    def _columns(self) -> list[Singles]:
        """Return what the library makes the edges of each column of."""
        if self.twins:
            columns = self.twins.ends(self.rows, self.bins)
        else:
            columns = [values[~np.isnan(values)] for values in self.rows.T]
        if self.further is None:
            return columns
        # of more values than bins the greatest is no edge
        return [
            values if np.isnan(end) else np.append(values[: self.bins], end)
            for values, end in zip(columns, self.further, strict=True)
        ]


def edges_of(shard: Shard, job: TrainJob, gang: Gang, weights: Singles | None = None) -> Edges:
    """Return the edges of all workers' rows; every worker calls this.

    Args:
        shard: this worker's rows.
        job: what is trained on them.
        gang: the workers.
        weights: of each row, or None for 1.
    """
    bins = int(job.params.get("max_bin", MAX_BIN))
    columns = [
        _Column(max(STEPS * bins, LEAST), is_category=place in job.categorical)
        for place in range(shard.tables[0].num_columns)
    ]
    row = 0
    with ThreadPoolExecutor(job.threads, thread_name_prefix="edges") as pool:
        for table in shard.tables:
            part = None if weights is None else weights[row : row + table.num_rows]
            row += table.num_rows
            see = [
                pool.submit(c.see, v, part) for c, v in zip(columns, table.columns, strict=True)
            ]
            for done in see:
                done.result()
        mine = list(pool.map(_Column.whole, columns))

    counts = total(gang, np.array([[column.nulls for column in columns], len(columns) * [row]]))
    nulls, whole = counts.reshape(2, -1)
    has_twins = may_have_twins(job) and 0 < nulls.sum() <= MOST_NULLS * whole.sum()
    # the nulls of a twin have a bin of their own
    most = [bins - (has_twins and n > 0) for n in nulls]

    def settle(parts: Sequence[bytes]) -> bytes:
        of_all = zip(*[_read(part, len(columns)) for part in parts], strict=True)
        found = [_quantiles(_together(one), n) for one, n in zip(of_all, most, strict=True)]
        return _beside(found).tobytes()

    told = gang.agree(_written(mine), settle)
    rows = np.frombuffer(told, np.float32).reshape(-1, len(columns))
    twins = twins_of(rows, nulls > 0, job) if has_twins else None
    return Edges(rows, tuple(job.categorical), bins, twins)


# --------------------------------------------------------------------------------- inside


@dataclass(frozen=True)
class _Summary:
    """Distinct values, ascending, each with the weight of its rows and of those near it.

    Both have the shape [values].
    """

    values: Singles
    weights: Doubles

    def thinned(self, size: int) -> _Summary:
        """Return some `size` values at even steps of weight; what is left out goes to both sides.

        The first and the last stay, and each one that is heavier than a step.
        """
        if len(self.values) <= size:
            return self
        picked = np.unique(np.append(self._steps(size), len(self.values) - 1))
        own = self.weights[picked]
        between = np.diff(np.cumsum(self.weights)[picked], prepend=0.0) - own
        return _Summary(self.values[picked], own + (between + np.append(between[1:], 0.0)) / 2)

    def begins(self, bins: int) -> Places:
        """Return the place where each bin begins, so that bins are of even weight.

        A value that is heavier than a bin is one, but for values before it that are less than
        one; the others share what is left.
        """
        parts = bins
        while len(found := self._steps(parts)) > bins:
            parts -= len(found) - bins
        return found

    def _steps(self, parts: int) -> Places:
        """Return where parts of even weight begin, and where each value heavier than one does."""
        is_heavy = np.zeros(len(self.weights), dtype=np.bool_)
        while True:
            left = max(1, parts - int(np.count_nonzero(is_heavy)))
            level = float(self.weights[~is_heavy].sum()) / left
            heavier = ~is_heavy & (self.weights > level)
            if not heavier.any():
                break
            is_heavy |= heavier
        counted = np.minimum(self.weights, level)
        even = np.searchsorted(np.cumsum(counted) - counted, level * np.arange(parts))
        even = np.minimum(even, len(self.values) - 1)
        return np.unique(np.append(even, np.flatnonzero(is_heavy)))


@dataclass
class _Column:
    """A feature's rows so far: level h holds summaries of sixteen to the power of h parts."""

    size: int
    is_category: bool
    nulls: int = 0
    levels: list[list[_Summary]] = field(default_factory=lambda: [[]])

    def see(self, column: pa.ChunkedArray, weights: Singles | None) -> None:
        """Take in a part's rows."""
        values = column.to_numpy().astype(np.float32, copy=False)
        self.nulls += int(np.count_nonzero(np.isnan(values)))
        if self.is_category:  # it has a bin a code
            found = _distinct(np.fmax.reduce(values, initial=np.nan, keepdims=True))
        else:
            found = _distinct(values, weights)
        self.levels[0].append(found.thinned(self.size))
        for level in range(len(self.levels)):
            if len(self.levels[level]) == FAN_IN:
                if level + 1 == len(self.levels):
                    self.levels.append([])
                whole = _together(self.levels[level])
                self.levels[level + 1].append(whole.thinned(self.size))
                self.levels[level] = []

    def whole(self) -> _Summary:
        """Return the summary of all parts."""
        found = _together([one for level in self.levels for one in level])
        return found.thinned(self.size)


def _distinct(values: Singles, weights: npt.NDArray[np.floating] | None = None) -> _Summary:
    """Return the distinct values among some, NaN left out, and the weight that each one has."""
    if weights is None:
        ranked, steps = np.sort(values), None
    else:
        # the same order of equal values on every processor: their sum depends on it
        order = np.argsort(values, kind="stable")
        ranked, steps = values[order], np.cumsum(weights[order], dtype=np.float64)
    ranked = ranked[: np.searchsorted(ranked, np.float32(np.nan))]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    ends = last + 1.0 if steps is None else steps[last]
    values = ranked[last] + np.float32(0)  # which of -0.0 and 0.0 came last is chance
    return _Summary(values, np.diff(ends, prepend=0.0))


def _together(parts: Sequence[_Summary]) -> _Summary:
    """Return the summary of the rows of all parts, with each value that one of them has."""
    values = np.concatenate([part.values for part in parts])
    return _distinct(values, np.concatenate([part.weights for part in parts]))


def _quantiles(whole: _Summary, bins: int) -> Singles:
    """Return all values where they fit into the bins, else where each bin begins, and the last.

    Of at most `bins + 1` values the library drops the first and takes the next ones as edges.
    """
    if len(whole.values) <= bins:
        return whole.values
    places = np.append(whole.begins(bins), len(whole.values) - 1)
    edges: Singles = whole.values[np.unique(places)]
    return edges


def _beside(columns: Sequence[Singles]) -> Singles:
    """Return columns of different lengths side by side, the shorter ones filled up with NaN."""
    rows = np.full((max(1, *map(len, columns)), len(columns)), np.nan, dtype=np.float32)
    for place, values in enumerate(columns):
        rows[: len(values), place] = values
    return rows


def _written(columns: Sequence[_Summary]) -> bytes:
    """Return summaries as bytes: how many values each has, then all weights, then all values."""
    lengths = np.array([len(one.values) for one in columns], dtype=np.int64)
    weights = np.concatenate([one.weights for one in columns])
    values = np.concatenate([one.values for one in columns])
    return lengths.tobytes() + weights.tobytes() + values.tobytes()


def _read(part: bytes, count: int) -> list[_Summary]:
    lengths = np.frombuffer(part, np.int64, count)
    ends, whole = np.cumsum(lengths)[:-1], int(lengths.sum())
    weights = np.frombuffer(part, np.float64, whole, lengths.nbytes)
    values = np.frombuffer(part, np.float32, whole, lengths.nbytes + weights.nbytes)
    both = zip(np.split(values, ends), np.split(weights, ends), strict=True)
    return [_Summary(v, w) for v, w in both]
