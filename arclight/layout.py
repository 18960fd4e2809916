"""Which column plays which part: from a table's columns and a spec to a feature layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from arclight.errors import SpecError, nearest
from arclight.expression import compile_expression
from arclight.features import Derived, FeatureColumn, FeatureLayout
from arclight.schema import NAMES, Column

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from arclight.expression import Expression
    from arclight.spec import Spec

ROW_KEY = "row_key"


@dataclass(frozen=True)
class TableLayout:
    """The parts of a joined table.

    Attributes:
        schema: the table's columns with their raw types.
        key: the key columns, or `row_key` when the spec names none.
        carried: columns stored as they are: key, time, group, segments that are no features.
        features: the feature layout.
    """

    schema: pa.Schema
    key: tuple[str, ...]
    carried: tuple[str, ...]
    features: FeatureLayout


def lay_out(schema: pa.Schema, spec: Spec) -> TableLayout:
    """Give every column its part.

    Raises:
        SpecError: the spec names a column that is not there, a key is not exact, or a column can
            be no feature and has no other part.
    """
    etl = spec.etl
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SpecError(
            f"the joined table has two columns '{twice[0]}'; name the columns in etl.sql, or join "
            "with USING."
        )
    check_names(schema.names, spec)
    for name in etl.key:
        if pa.types.is_floating(schema.field(name).type):
            raise SpecError(
                f"etl.key: '{name}' is {schema.field(name).type}; a key must compare exactly: "
                "cast it to a whole number or a string in etl.sql."
            )
    if etl.time and not pa.types.is_temporal(schema.field(etl.time).type):
        raise SpecError(
            f"etl.time: '{etl.time}' must be a date or timestamp, got "
            f"{schema.field(etl.time).type}; cast it in etl.sql."
        )
    key = etl.key or (ROW_KEY,)
    time = (etl.time,) if etl.time else ()
    features = _features(schema, spec)
    kept = {feature.name for feature in features.features}
    segments = (name for name in spec.evaluate.segments if name not in kept)
    carried = dict.fromkeys((*key, *time, *etl.group, *segments))
    return TableLayout(schema=schema, key=key, carried=tuple(carried), features=features)


def segments_to_carry(spec: Spec) -> tuple[str, ...]:
    """Return the segments that may be columns of their own, as far as a spec alone tells.

    The others are kept whether they are segments or not: what a dataset is hangs on these alone.
    """
    etl, wanted = spec.etl, spec.features
    kept = {*etl.key, etl.time, *etl.group, *wanted.derive, *(wanted.categorical or ())}
    return tuple(name for name in spec.evaluate.segments if name not in kept)


def check_names(names: Collection[str], spec: Spec) -> None:
    """Check that a table has every column that the spec names as a part.

    Raises:
        SpecError: a column is not there, or has the name of the key that rows without one get.
    """
    etl, wanted = spec.etl, spec.features
    listed = [name for name in wanted.categorical or () if name not in wanted.derive]
    _known(names, "etl.label", (etl.label,))
    _known(names, "etl.key", etl.key)
    _known(names, "etl.time", (etl.time,) if etl.time else ())
    _known(names, "etl.split.group", etl.group)
    _known(names, "evaluate.segments", _plain_segments(spec))
    _known(names, "features.categorical", listed)
    if ROW_KEY in etl.key or (not etl.key and (ROW_KEY in names or ROW_KEY in wanted.derive)):
        raise SpecError(
            f"column '{ROW_KEY}' is the key of a table without one; rename it in etl.sql, or name "
            "another key in etl.key."
        )


def _plain_segments(spec: Spec) -> list[str]:
    return [name for name in spec.evaluate.segments if name not in spec.features.derive]


def _features(schema: pa.Schema, spec: Spec) -> FeatureLayout:
    etl, wanted = spec.etl, spec.features
    listed = wanted.categorical or ()
    parts = {*etl.key, etl.label, *etl.drop, *((etl.time,) if etl.time else ())}
    open_columns = [n for n in schema.names if n != etl.label and n not in etl.drop]
    allowed = pa.schema([schema.field(name) for name in open_columns])
    features: dict[str, FeatureColumn] = {}
    used: set[str] = set()
    derive = []
    for name, text in wanted.derive.items():
        expression = compile_derived(name, text, allowed, spec)
        used.update(expression.columns)
        derive.append(Derived(name=name, expression=text))
        features[name] = _feature(name, expression.type, spec)
    plain = [n for n in open_columns if n not in parts and n not in features]
    keys = [n for n in listed if n in parts and n not in features]
    ordered: dict[str, FeatureColumn] = {}
    for name in open_columns:
        kind = schema.field(name).type
        is_open = _is_opaque(kind) or (pa.types.is_string(kind) and wanted.categorical is not None)
        is_only_read = name in used and is_open and name not in listed
        if (name in plain and not is_only_read) or name in keys:
            ordered[name] = _feature(name, kind, spec)
    if not ordered and not features:
        raise SpecError("no column is left as a feature; drop fewer columns or derive some.")
    used.update(ordered)
    return FeatureLayout(
        inputs=tuple(
            Column(name=n, type=NAMES[schema.field(n).type]) for n in schema.names if n in used
        ),
        derive=tuple(derive),
        features=(*ordered.values(), *features.values()),
    )


def compile_derived(name: str, text: str, allowed: pa.Schema, spec: Spec) -> Expression:
    """Compile a derived feature over the columns it may read.

    Raises:
        SpecError: the expression is wrong; the message names the feature.
    """
    try:
        return compile_expression(text, allowed)
    except SpecError as error:
        closed = (spec.etl.label, *spec.etl.drop)
        hidden = [c for c in closed if re.search(rf"(?<!\w){re.escape(c)}(?!\w)", text)]
        why = f" ('{hidden[0]}' is the label or is dropped.)" if hidden else ""
        raise SpecError(f"features.derive.{name}: {error.message}{why}") from error


def _is_opaque(kind: pa.DataType) -> bool:
    """Whether a type can be read by expressions but is no feature by itself."""
    return bool(pa.types.is_temporal(kind) or pa.types.is_binary(kind))


def _feature(name: str, kind: pa.DataType, spec: Spec) -> FeatureColumn:
    listed = spec.features.categorical
    is_text = pa.types.is_string(kind) or pa.types.is_boolean(kind)
    is_category = is_text if listed is None else name in listed
    if _is_opaque(kind):
        raise SpecError(
            f"column '{name}' is {kind}, which is no feature by itself; derive features from it "
            f"{_way_in(name, kind)}or name it in etl.drop."
        )
    if is_category and pa.types.is_floating(kind):
        raise SpecError(
            f"features.categorical: '{name}' is {kind}; a category must be text, a whole number "
            "or a boolean: cast it in etl.sql."
        )
    if not is_category and pa.types.is_string(kind):
        raise SpecError(
            f"column '{name}' is text but not in features.categorical; add it there, derive "
            "features from it, or name it in etl.drop."
        )
    return FeatureColumn(name=name, type="category" if is_category else "number")


def _way_in(name: str, kind: pa.DataType) -> str:
    """Return how an expression reads such a column, or nothing where no short one does."""
    if not pa.types.is_temporal(kind):
        return ""
    quoted = name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f"`{name}`"
    return f"(such as {'hour' if pa.types.is_timestamp(kind) else 'month'}({quoted})), "


def _known(columns: Collection[str], field: str, names: Iterable[str]) -> None:
    for name in names:
        if name not in columns:
            raise SpecError(
                f"{field}: the joined table has no column '{name}'."
                f"{nearest(name, columns)} It has: {', '.join(columns)}."
            )
