"""From a JSON value to an Arrow value of a column's type; the same rule for every door."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from arclight.features import FLOAT32_MAX
from arclight.schema import ARROW_TYPES, TIMESTAMP
from arclight.spec_field import parse_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.schema import Column

JSON_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction or exponent, or beyond 64 bits",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
WRONG_VALUE = (ValueError, OverflowError)
"""What building a column raises for a value of the right JSON type that the column cannot hold."""


@dataclass(frozen=True)
class Rule:
    """What one column takes.

    Attributes:
        name: the column.
        expects: for people, such as `an integer from -128 to 127`.
        types: the Python types orjson gives for the JSON types taken; null always is.
        build: makes the column, raising one of `WRONG_VALUE` for a value out of range.
    """

    name: str
    expects: str
    types: frozenset[type]
    build: Callable[[Sequence[Any]], pa.Array]

    def column(self, values: Sequence[Any]) -> pa.Array:
        """Return the values as an Arrow array.

        Raises:
            ValueError: some value is wrong; ask `complaint` about each to learn which.
            OverflowError: the same.
        """
        if not self.types.issuperset(map(type, values)):
            raise ValueError(self.expects)
        return self.build(values)

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with one value, None if it is right."""
        try:
            self.column([value])
        except WRONG_VALUE:
            got = JSON_NAMES.get(type(value), "something else")
            allowed = type(value) in self.types
            found = f"{got} that is not one" if allowed and got == "a string" else got
            found = f"{got} out of range" if allowed and got != "a string" else found
            return f"must be {self.expects} or null, got {found}."
        return None


def rules_for(columns: Sequence[Column]) -> tuple[Rule, ...]:
    """Return the rule of each column of a signature."""
    return tuple(_rule(column) for column in columns)


def _rule(column: Column) -> Rule:
    arrow = ARROW_TYPES[column.type]
    if pa.types.is_integer(arrow):
        top = 2 ** (arrow.bit_width - 1)
        return Rule(
            name=column.name,
            expects=f"an integer from {-top} to {top - 1}",
            types=frozenset({int, type(None)}),
            build=lambda values: pa.array(values, arrow),
        )
    expects, types, build = _OTHER[column.type]
    return Rule(
        name=column.name,
        expects=expects,
        types=frozenset({*types, type(None)}),
        build=build,
    )


def _doubles(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.float64())
    except ValueError:
        # Arrow takes only integers a float64 holds exactly; numpy rounds, as JSON numbers allow.
        # It makes null NaN, which JSON cannot hold, and Arrow turns it back.
        return pa.array(np.array(values, dtype=np.float64), from_pandas=True)


def _floats(values: Sequence[Any]) -> pa.Array:
    wide = np.array(values, dtype=np.float64)
    if (np.abs(wide) > FLOAT32_MAX).any():
        raise ValueError("beyond float32")
    return pa.array(wide.astype(np.float32), from_pandas=True)


def _dates(values: Sequence[str | None]) -> pa.Array:
    read = dt.date.fromisoformat
    return pa.array([None if v is None else read(v) for v in values], pa.date32())


def _instants(values: Sequence[str | None]) -> pa.Array:
    return pa.array([None if v is None else parse_instant(v) for v in values], TIMESTAMP)


def _bytes(values: Sequence[str | None]) -> pa.Array:
    decoded = [None if v is None else base64.b64decode(v, validate=True) for v in values]
    return pa.array(decoded, pa.binary())


_OTHER: dict[str, tuple[str, tuple[type, ...], Callable[[Sequence[Any]], pa.Array]]] = {
    "bool": ("true, false", (bool,), lambda values: pa.array(values, pa.bool_())),
    "float32": ("a number within float32", (int, float), _floats),
    "float64": ("a number", (int, float), _doubles),
    "string": ("a string", (str,), lambda values: pa.array(values, pa.string())),
    "date": ("an ISO date such as 2013-11-01", (str,), _dates),
    "timestamp": ("an ISO time such as 2013-11-01T06:00:00Z (UTC if no zone)", (str,), _instants),
    "binary": ("a string in base64", (str,), _bytes),
}
