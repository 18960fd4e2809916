"""From raw rows to stored features: which columns, which types, and why a row cannot have them.

A raw row is what `etl.sql` gives and what a request carries. A stored feature is float32 (a
number) or a string (a category). This is the only place that makes one from the other; the ETL,
batch scoring and serving all call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arclight.contract import Contract
from arclight.expression import Expression, compile_expression
from arclight.schema import ARROW_TYPES, Column
from arclight.utf8 import broken_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

FLOAT32_MAX = float(np.finfo(np.float32).max)

Mask = npt.NDArray[np.bool_]


class Derived(Contract):
    """A feature computed from the raw columns of the same row."""

    name: str
    expression: str


class FeatureColumn(Contract):
    """A feature's name and kind, in the model's order."""

    name: str
    type: Literal["number", "category"]


class FeatureLayout(Contract):
    """Everything about features that is known before any row is seen."""

    kind: ClassVar[str] = "feature-layout"

    inputs: tuple[Column, ...]
    """The raw columns a row must carry, with their types: a model's signature."""
    derive: tuple[Derived, ...] = ()
    features: tuple[FeatureColumn, ...]

    @property
    def input_schema(self) -> pa.Schema:
        """The inputs as an Arrow schema."""
        return pa.schema([(column.name, ARROW_TYPES[column.type]) for column in self.inputs])


@dataclass(frozen=True)
class Built:
    """Stored features of a batch and the rows that cannot have them.

    Attributes:
        columns: one array per feature, in order; float32 or string, null where unknown.
        nans: feature -> rows where it was NaN and is null now; features without any left out.
        rejected: reason -> rows it holds for: `derive:NAME` (the expression has no value there,
            or text that it reads is not UTF-8), `infinite:NAME`, `not_utf8:NAME`.
    """

    columns: Mapping[str, pa.Array]
    nans: Mapping[str, Mask]
    rejected: Mapping[str, Mask]


class FeatureBuilder:
    """Builds stored features batch by batch; compiled once from a layout."""

    def __init__(self, layout: FeatureLayout) -> None:
        self.layout = layout
        schema = layout.input_schema
        self._derived: dict[str, Expression] = {
            item.name: compile_expression(item.expression, schema) for item in layout.derive
        }
        read = dict.fromkeys(name for e in self._derived.values() for name in e.columns)
        self._floats = [name for name in read if pa.types.is_floating(schema.field(name).type)]

    def build(self, raw: pa.RecordBatch) -> Built:
        """Compute the features of raw rows.

        Args:
            raw: has the layout's inputs with their types; other columns are ignored.
        """
        columns: dict[str, pa.Array] = {}
        nans: dict[str, Mask] = {}
        rejected: dict[str, Mask] = {}
        known = self._known(raw)
        for feature in self.layout.features:
            values = self._source(feature.name, raw, known, rejected)
            if feature.type == "category":
                columns[feature.name] = _levels(feature.name, values, rejected)
            else:
                columns[feature.name] = _number(feature.name, values, nans, rejected)
        return Built(columns=columns, nans=nans, rejected=rejected)

    def _known(self, raw: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows as expressions see them: NaN is null, as a request can only say null."""
        for name in self._floats:
            values = raw.column(name)
            is_nan = np.isnan(values.to_numpy(zero_copy_only=False))
            if np.count_nonzero(is_nan) > values.null_count:
                place = raw.schema.get_field_index(name)
                raw = raw.set_column(place, name, pc.if_else(pa.array(is_nan), None, values))
        return raw

    def _source(
        self, name: str, raw: pa.RecordBatch, known: pa.RecordBatch, rejected: dict[str, Mask]
    ) -> pa.Array:
        expression = self._derived.get(name)
        if expression is None:
            return raw.column(name)
        found = expression.evaluate(known)
        if found.invalid is not None:
            rejected[f"derive:{name}"] = found.invalid.to_numpy(zero_copy_only=False)
        return found.values


def _number(
    name: str, values: pa.Array, nans: dict[str, Mask], rejected: dict[str, Mask]
) -> pa.Array:
    """Return float32 with NaN as null; finite values past float32's range stop at its end."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    # not safe: a whole number past 2**53 is rounded, as float32 rounds it anyway
    x = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    unknown = np.isnan(x)
    infinite = np.isinf(x)
    if infinite.any():
        rejected[f"infinite:{name}"] = infinite
    if np.count_nonzero(unknown) > values.null_count:
        nans[name] = unknown & values.is_valid().to_numpy(zero_copy_only=False)
    x = np.clip(x, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)
    return pa.array(x, mask=unknown if unknown.any() else None)


def _levels(name: str, values: pa.Array, rejected: dict[str, Mask]) -> pa.Array:
    """Return level names; text that is not UTF-8 is rejected, since no reader could take it."""
    levels = level_names(values)
    broken = broken_texts(levels)
    if broken is None:
        return levels
    rejected[f"not_utf8:{name}"] = broken
    return pc.if_else(pa.array(broken), None, levels)


def from_stored(kind: Literal["number", "category"], column: pa.Array) -> pa.Array:
    """Return a feature from its stored column, which is raw where the column is carried too."""
    if kind == "category":
        is_coded = pa.types.is_dictionary(column.type) and pa.types.is_string(
            column.type.value_type
        )
        return column if is_coded else level_names(column)
    if pa.types.is_float32(column.type):
        return column
    return _number("", column, {}, {})


def level_names(values: pa.Array) -> pa.Array:
    """Return a column's values as category levels: text as it is, 7 as '7', true as 'true'."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values if pa.types.is_string(values.type) else pc.cast(values, pa.string())
