"""Rows without nulls that split as rows with nulls do: XGBoost goes through them sooner.

In a matrix with a single null every value takes the library four bytes, and to divide rows by a
category it searches each row for it. So a number that has nulls is shown to it twice: once with
the nulls above every value, once with the lowest value in their place. A split of the first sends
nulls to the right and a split of the second to the left, at the same edges: these are the splits
that the library tries where there are nulls. A null category is one more level, so that it may
stand on either side of a split; the library's limits on the number of levels count it. Model files
are those of the features as they are: a split of either twin is one of the feature, with the
direction of its nulls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_apps.trainers.xgb_trees import NO_CHILD, as_json, as_ubj, booster_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray_apps.trainers import TrainJob

Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Codes = list[int]
MOST_NULLS = 0.3
"""Of all values. With more of them the rows as they are take less memory, twins counted."""
LEAST_BINS = 16
"""A twin has one bin less: of fewer bins that would be much."""
MOST_CODES = 1 << 20
"""More than any category has."""
SHARES = ("colsample_bytree", "colsample_bylevel", "colsample_bynode")
"""Parameters that choose among features by chance, unless they are 1."""
BY_FEATURE = (
    "monotone_constraints", "interaction_constraints", "max_cat_to_onehot", "max_cat_threshold",
)  # fmt: skip
"""Parameters that speak of features, or of the number of levels."""


def may_have_twins(job: TrainJob) -> bool:
    """Say whether features may be shown twice as far as the job goes, whatever the rows are."""
    params = job.params
    is_whole = all(params.get(name, 1) == 1 for name in SHARES)
    is_free = is_whole and not any(name in params for name in BY_FEATURE)
    bins = int(params.get("max_bin", LEAST_BINS))
    return is_free and bins >= LEAST_BINS and job.device == "cpu" and bool(job.categorical)


@dataclass(frozen=True)
class Twins:
    """Which features stand twice.

    Attributes:
        low, high: by feature, in place of nulls; of a number the lowest value and one above all,
            of a category the code of nulls (`high`), of a number that is always null anything
            (`high`); NaN for a feature that has no nulls.
        categorical: which features are categories.
        no_code: stands where only nulls go to the right, since the library wants a code there
            that goes with them; no level has it.
    """

    low: Singles
    high: Singles
    categorical: tuple[int, ...]
    no_code: int = MOST_CODES

    @property
    def features(self) -> int:
        """How many there are, twins as one."""
        return len(self.low)

    @property
    def places(self) -> list[tuple[int, str]]:
        """Each column that the library is shown: its feature, and `high` or `low` of a twin."""
        return [
            (feature, side)
            for feature in range(self.features)
            for side in (("high", "low") if self._is_twin(feature) else ("",))
        ]

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [f"f{feature}{side}" for feature, side in self.places]

    def table(self, rows: pa.Table) -> pa.Table:
        """Return encoded rows as the library is shown them."""
        columns = [self._column(rows.column(f), f, side) for f, side in self.places]
        return pa.table(columns, names=self.names)

    def ends(self, rows: Singles, bins: int) -> list[Singles]:
        """Return what the library makes the edges of each column of; those of twins are the same.

        Args:
            rows: of each feature what it would make them of, ascending, NaN where there is no
                more: [rows, features].
            bins: of a feature at most.
        """
        columns = []
        for feature, side in self.places:
            values = rows[~np.isnan(rows[:, feature]), feature]
            if not np.isnan(self.high[feature]):
                # where there are more values than bins the greatest is no edge
                kept = values[:-1] if side and len(values) == bins else values
                values = np.append(kept, self.high[feature])
            columns.append(values)
        return columns

    def folded(self, model: bytes) -> bytes:
        """Return a model file of the features from one of the columns."""
        body, places = as_json(booster_of(model)), self.places
        for tree in _trees(body):
            for node in _splits(tree):
                feature, side = places[tree["split_indices"][node]]
                tree["split_indices"][node] = feature
                if side:  # below the edge is to the left
                    null = self.high[feature] if side == "high" else self.low[feature]
                    tree["default_left"][node] = int(null < tree["split_conditions"][node])
            self._each_category(tree, self._without_null)
        kinds = ["c" if f in self.categorical else "q" for f in range(self.features)]
        return _named(body, [f"f{i}" for i in range(self.features)], kinds)

    def unfolded(self, model: bytes) -> bytes:
        """Return a model file of the columns from one of the features; undoes `folded`."""
        body = as_json(booster_of(model))
        column = {place: i for i, place in enumerate(self.places)}
        for tree in _trees(body):
            self._each_category(tree, self._with_null)
            for node in _splits(tree):
                feature = tree["split_indices"][node]
                side = ("high", "low")[tree["default_left"][node]]
                place = (feature, side if self._is_twin(feature) else "")
                tree["split_indices"][node] = column[place]
        kinds = ["c" if f in self.categorical else "q" for f, _ in self.places]
        return _named(body, self.names, kinds)

    def can_unfold(self, model: bytes) -> bool:
        """Say whether no split is one that columns have not: only nulls to the left.

        The library makes it of rows as they are, such as on a GPU.
        """
        return not any(
            self._is_twin(feature)
            and tree["default_left"][node]
            and tree["split_conditions"][node] <= self.low[feature]
            for tree in _trees(as_json(booster_of(model)))
            for node in _splits(tree)
            for feature in [tree["split_indices"][node]]
        )

    def _is_twin(self, feature: int) -> bool:
        return not np.isnan(self.low[feature])

    def _null_code(self, feature: int) -> int | None:
        is_code = feature in self.categorical and not np.isnan(self.high[feature])
        return int(self.high[feature]) if is_code else None

    def _column(self, values: pa.ChunkedArray, feature: int, side: str) -> pa.ChunkedArray:
        code = self._null_code(feature)
        if code is not None:
            # a level that train never had must not be the code of nulls
            is_new = pc.greater_equal(values, code)
            moved = pc.if_else(is_new, pc.add(values, pa.scalar(1, values.type)), values)
            return pc.fill_null(moved, pa.scalar(code, values.type))
        filling = self.low[feature] if side == "low" else self.high[feature]
        if np.isnan(filling):
            return values
        return pc.fill_null(values, pa.scalar(float(filling), pa.float32()))

    def _without_null(self, tree: Any, node: int, null: int, codes: Codes) -> Codes:
        """Say by the direction of nulls where their code went; codes listed go to the right."""
        tree["default_left"][node] = int(null not in codes)
        return [code for code in codes if code != null] or [self.no_code]

    def _with_null(self, tree: Any, node: int, null: int, codes: Codes) -> Codes:
        codes = [code for code in codes if code != self.no_code]
        return codes if tree["default_left"][node] else [*codes, null]

    def _each_category(self, tree: Any, change: Callable[[Any, int, int, Codes], Codes]) -> None:
        """Change the splits of a tree of features by a category that has nulls."""
        codes: Codes = []
        sizes, starts = [], []
        for node, start, size in zip(
            tree["categories_nodes"],
            tree["categories_segments"],
            tree["categories_sizes"],
            strict=True,
        ):
            found = tree["categories"][start : start + size]
            null = self._null_code(tree["split_indices"][node])
            if null is not None:
                found = change(tree, node, null, found)
            starts.append(len(codes))
            sizes.append(len(found))
            codes += found
        tree |= {
            "categories": codes,
            "categories_sizes": sizes,
            "categories_segments": starts,
        }


def twins_of(rows: Singles, has_nulls: Bools, job: TrainJob) -> Twins | None:
    """Return what stands in place of nulls; None where there is no number above all.

    Args:
        rows: as for `Twins.ends`; of a category its highest code is among them.
        has_nulls: by feature.
        job: what is trained.
    """
    categorical = tuple(job.categorical)
    top = np.nan_to_num(np.fmax.reduce(rows, axis=0), nan=-1.0)
    above = end_of(top)
    is_category = np.isin(np.arange(len(top)), categorical)
    high = np.where(has_nulls, np.where(is_category, top + 1, above), np.nan).astype(np.float32)
    low = np.where(has_nulls & ~is_category, rows[0], np.nan).astype(np.float32)
    no_code = max(job.codes, default=MOST_CODES)
    return None if np.isinf(high).any() else Twins(low, high, categorical, no_code)


def end_of(top: Singles) -> Singles:
    """Return where the library lets a last bin end whose greatest value this is."""
    exact = np.asarray(top, dtype=np.float64)
    with np.errstate(over="ignore"):
        end: Singles = (exact + (np.abs(exact) + 1e-5)).astype(np.float32)
    return end


# --------------------------------------------------------------------------------- inside


def _trees(body: Any) -> list[Any]:
    trees: list[Any] = body["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def _splits(tree: Any) -> Iterator[int]:
    """Return the nodes of a tree that are no leaves."""
    return (node for node, child in enumerate(tree["left_children"]) if child != NO_CHILD)


def _named(body: Any, names: list[str], kinds: list[str]) -> bytes:
    """Return a model file of so many columns."""
    learner = body["learner"]
    learner["feature_names"], learner["feature_types"] = names, kinds
    learner["learner_model_param"]["num_feature"] = str(len(names))
    for tree in _trees(body):
        tree["tree_param"]["num_feature"] = str(len(names))
    return as_ubj(body)
