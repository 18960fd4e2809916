"""FeaturePlan: what was fitted on the train split, and the only encoder there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arclight.contract import Contract
from arclight.features import FeatureLayout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arclight.summary import ColumnSummary

Matrix = npt.NDArray[np.float32]


class Feature(Contract):
    """One fitted feature.

    A category's code is its place in `levels`; every other value has the code `len(levels)`, in
    training (rare levels) as later (unseen ones); null stays missing.
    """

    name: str
    type: Literal["number", "category"]
    levels: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 0.0
    median: float = 0.0

    @property
    def unknown_code(self) -> int:
        """The code of every level that is not listed."""
        return len(self.levels)

    @property
    def keeps_nothing(self) -> bool:
        """Whether this is a category of which no level is listed: all values have one code."""
        return self.type == "category" and not self.levels


class FeaturePlan(Contract):
    """How raw rows become the numbers a model sees; the same everywhere."""

    kind: ClassVar[str] = "feature-plan"

    layout: FeatureLayout
    features: tuple[Feature, ...]
    classes: tuple[str, ...] = ()
    """Class labels of a multiclass task, in the order of the model's outputs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in the model's order."""
        return tuple(feature.name for feature in self.features)

    @property
    def categorical(self) -> tuple[int, ...]:
        """The places of category features."""
        return tuple(i for i, f in enumerate(self.features) if f.type == "category")

    @property
    def codes(self) -> tuple[int, ...]:
        """How many codes each category feature has, that of unknown levels among them."""
        return tuple(f.unknown_code + 1 for f in self.features if f.type == "category")


def fit_plan(
    layout: FeatureLayout,
    train: Mapping[str, ColumnSummary],
    *,
    max_levels: int,
    min_count: int,
    classes: tuple[str, ...] = (),
) -> FeaturePlan:
    """Fit the plan from the train split's summaries alone.

    Args:
        layout: the features, in order.
        train: one untrimmed summary per feature.
        max_levels: levels kept per category, the most frequent ones.
        min_count: train rows a level needs to be kept.
        classes: the classes of a multiclass task.
    """
    features = []
    for column in layout.features:
        summary = train[column.name]
        if column.type == "category":
            kept = [lv.value for lv in summary.levels[:max_levels] if lv.count >= min_count]
            features.append(Feature(name=column.name, type="category", levels=tuple(sorted(kept))))
        else:
            median = summary.sketch.quantiles((0.5,))[0]
            features.append(
                Feature(
                    name=column.name,
                    type="number",
                    mean=summary.moments.mean,
                    std=summary.moments.std,
                    median=median if median is not None else 0.0,
                )
            )
    return FeaturePlan(layout=layout, features=tuple(features), classes=classes)


class Encoder:
    """Turns stored features into what a library takes; compiled once from a plan."""

    def __init__(self, plan: FeaturePlan) -> None:
        self.plan = plan
        self._levels = {
            feature.name: pa.array(feature.levels, type=pa.string())
            for feature in plan.features
            if feature.type == "category"
        }

    def codes(self, feature: Feature, values: pa.Array) -> pa.Array:
        """Return int32 codes of a category column, null where the value is null."""
        if pa.types.is_dictionary(values.type):
            levels = self.codes(feature, values.dictionary)
            return levels.take(values.indices)
        found = pc.index_in(values, value_set=self._levels[feature.name])
        unknown = pc.fill_null(found, feature.unknown_code)
        return pc.if_else(values.is_valid(), unknown, pa.scalar(None, pa.int32()))

    def table(self, columns: Mapping[str, pa.Array]) -> pa.Table:
        """Return the features as an Arrow table: float32 numbers, int32 codes, plan order.

        Columns are called f0, f1, …: libraries refuse or change some names that users choose.
        """
        arrays = [self._encode(feature, columns[feature.name]) for feature in self.plan.features]
        return pa.table(arrays, names=[f"f{i}" for i in range(len(arrays))])

    def matrix(self, columns: Mapping[str, pa.Array], out: Matrix | None = None) -> Matrix:
        """Return the features as a C-ordered float32 matrix [rows, features], NaN for null."""
        rows = len(next(iter(columns.values())))
        if out is None:
            out = np.empty((rows, len(self.plan.features)), dtype=np.float32)
        for place, feature in enumerate(self.plan.features):
            values = self._encode(feature, columns[feature.name])
            out[:rows, place] = _with_nan(values)
        return out[:rows]

    def _encode(self, feature: Feature, values: pa.Array) -> pa.Array:
        if feature.type == "number":
            return values
        return self.codes(feature, values)


def _with_nan(values: pa.Array) -> npt.NDArray[np.floating]:
    if pa.types.is_integer(values.type):
        values = values.cast(pa.float32())
    return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def class_codes(values: pa.Array, classes: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the class index of each label as float64, NaN for a label in no class."""
    found = pc.index_in(values, value_set=pa.array(list(classes), type=pa.string()))
    return found.cast(pa.float64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
