"""Raw rows as a table gives them, made into the rows a model takes; and as JSON, both ways."""

from __future__ import annotations

import base64
import datetime as dt
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arclight.errors import SchemaError, closest, printable
from arclight.features import FLOAT32_MAX
from arclight.schema import TIMESTAMP
from arclight.utf8 import broken_texts
from ray_apps.json_values import rules_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.schema import Column
    from arclight.utf8 import Mask

JsonValue = str | int | float | bool | None
MAX_HINTS = 3
"""Missing columns that are told the nearest other one: each costs a look at all of them."""


def check_columns(found: pa.Schema, wanted: pa.Schema, *, where: str) -> None:
    """Refuse a table that lacks inputs of a model, before any row is read.

    Types may be narrower or another form of the same (int32 for int64, text in a dictionary) and
    wider ones of the same kind, whose values are then checked one by one.

    Raises:
        SchemaError: columns are missing, stand twice or are of another kind; all are named, and
            beside a missing one another of nearly its name.
    """
    others = sorted(set(found.names) - set(wanted.names))
    wrong: list[str] = []
    for field in wanted:
        places = found.get_all_field_indices(field.name)
        if len(places) != 1:
            state = "stands more than once" if places else "is missing"
            close = closest(field.name, others) if not places and len(wrong) < MAX_HINTS else None
            hint = "" if close is None else f" (there is '{printable(close)}')"
            wrong.append(f"column '{printable(field.name)}' ({field.type}) {state}{hint}")
        elif not _fits(found.field(places[0]).type, field.type):
            was = found.field(places[0]).type
            wrong.append(f"column '{printable(field.name)}' must be {field.type}, is {was}")
    if wrong:
        raise SchemaError(
            f"{where}: {'; '.join(wrong)}; give the columns the model was trained on "
            "(`arclight models NAME@VERSION` lists them)."
        )


def conform(batch: pa.RecordBatch, wanted: pa.Schema, *, where: str) -> pa.RecordBatch:
    """Return the wanted columns of a checked batch with the wanted types.

    Raises:
        SchemaError: a value of a wider type does not fit; the column is named.
    """
    columns = []
    for field in wanted:
        values = batch.column(field.name)
        try:
            columns.append(_cast(values, field.type))
        except pa.ArrowException as error:
            raise SchemaError(
                f"{where}: column '{printable(field.name)}' is {values.type} and must fit "
                f"{field.type}, but a value does not ({printable(error)}); mend it or give the "
                "column its type."
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def with_json(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows that a request can hold: the others have no JSON form.

    These have an infinite number, a date or time of a year outside 1 to 9999, or text that is not
    UTF-8; a table may hold them all.
    """
    is_kept = np.ones(batch.num_rows, dtype=np.bool_)
    for values in batch.columns:
        is_kept &= _has_json(values)
    return batch if is_kept.all() else batch.filter(pa.array(is_kept))


def to_json_rows(batch: pa.RecordBatch) -> list[dict[str, JsonValue]]:
    """Return rows as JSON objects: times in ISO and UTC, bytes in base64, NaN as null.

    Only those of `with_json` can be.
    """
    columns = {
        name: [_json_value(value) for value in batch.column(name).to_pylist()]
        for name in batch.schema.names
    }
    return [{name: values[i] for name, values in columns.items()} for i in range(batch.num_rows)]


def from_json_rows(rows: Sequence[dict[str, Any]], inputs: Sequence[Column]) -> pa.RecordBatch:
    """Return JSON rows as a batch; the inverse of `to_json_rows`, by the rules of serving."""
    arrays = [rule.column([row[rule.name] for row in rows]) for rule in rules_for(inputs)]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in inputs])


_EPOCH = dt.datetime(1970, 1, 1)
_SPANS = {
    pa.date32(): [(end - _EPOCH).days for end in (dt.datetime.min, dt.datetime.max)],
    TIMESTAMP: [
        (end - _EPOCH) // dt.timedelta(microseconds=1)
        for end in (dt.datetime.min, dt.datetime.max)
    ],
}
"""Type -> the first and the last number of it that Python, and so JSON, has a date for."""


def _has_json(values: pa.Array) -> Mask | bool:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_floating(kind):
        is_infinite: Mask = np.isinf(values.to_numpy(zero_copy_only=False))
        return ~is_infinite
    if pa.types.is_string(kind):
        broken = broken_texts(values)
        return True if broken is None else ~broken
    if kind not in _SPANS:
        return True
    first, last = _SPANS[kind]
    number = pc.fill_null(values.view(pa.int32() if kind == pa.date32() else pa.int64()), 0)
    found = pc.and_(pc.greater_equal(number, first), pc.less_equal(number, last))
    return cast("Mask", found.to_numpy(zero_copy_only=False))


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        return _fits(found.value_type, wanted)
    if pa.types.is_null(found):
        return True
    pair = {_kind(found), _kind(wanted)}
    # whole numbers come as floats from tools that have no null integer
    return len(pair) == 1 or pair == {"integer", "float"}


_TESTS = (
    ("integer", pa.types.is_integer),
    ("float", pa.types.is_floating),
    ("float", pa.types.is_decimal),
    ("boolean", pa.types.is_boolean),
    ("text", pa.types.is_string),
    ("text", pa.types.is_large_string),
    ("text", pa.types.is_string_view),
    ("bytes", pa.types.is_binary),
    ("bytes", pa.types.is_large_binary),
    ("date", pa.types.is_date),
    ("time", pa.types.is_timestamp),
)


def _kind(kind: pa.DataType) -> str:
    return next((name for name, test in _TESTS if test(kind)), str(kind))


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.type == wanted:
        return values
    if pa.types.is_null(values.type):
        return values.cast(wanted)
    if pa.types.is_timestamp(wanted) and values.type.tz is None:
        # Arrow refuses to guess a zone; a time without one is UTC everywhere in Arclight
        values = values.cast(pa.timestamp(values.type.unit, tz="UTC"))
    if pa.types.is_decimal(values.type) and pa.types.is_floating(wanted):
        # Arrow's own cast makes 0.70 0.7000000000000001; a dataset and a request have 0.7
        values = values.cast(pa.string()).cast(pa.float64())
    if pa.types.is_float32(wanted):
        return _narrow_float(values)
    if pa.types.is_floating(values.type) and pa.types.is_integer(wanted):
        values = pc.if_else(pc.is_nan(values), None, values)  # as tools have it that lack nulls
    # a float64 rounds what it cannot hold, in training and in a request as well
    is_finer = pa.types.is_timestamp(values.type) and values.type.unit == "ns"
    is_rounded = is_finer or pa.types.is_floating(wanted)
    return pc.cast(values, wanted, safe=not is_rounded)


def _narrow_float(values: pa.Array) -> pa.Array:
    """Return float32, rounded as serving rounds a JSON number, if every value is within it."""
    wide = pc.cast(values, pa.float64(), safe=False)
    finite = pc.is_finite(wide)
    if pc.any(pc.and_(finite, pc.greater(pc.abs(wide), FLOAT32_MAX))).as_py():
        raise pa.ArrowInvalid("a number is beyond float32")
    return pc.cast(wide, pa.float32(), safe=False)


def _json_value(value: Any) -> JsonValue:
    if isinstance(value, float):
        return value if value == value else None  # noqa: PLR0124 -- the test for NaN
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value  # type: ignore[no-any-return]
