"""The types a row expression can have, as Spark names them, and which two types meet in which."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(Enum):
    """A type of the expression language; the value is Spark's name for it."""

    NULL = "void"
    BOOL = "boolean"
    I8 = "tinyint"
    I16 = "smallint"
    I32 = "int"
    I64 = "bigint"
    F32 = "float"
    F64 = "double"
    TEXT = "string"
    DATE = "date"
    TIME = "timestamp"


INTEGERS = (Kind.I8, Kind.I16, Kind.I32, Kind.I64)
FLOATS = (Kind.F32, Kind.F64)
NUMBERS = (*INTEGERS, *FLOATS)
MOMENTS = (Kind.DATE, Kind.TIME)

DTYPES: dict[Kind, np.dtype[Any]] = {
    Kind.NULL: np.dtype(np.bool_),
    Kind.BOOL: np.dtype(np.bool_),
    Kind.I8: np.dtype(np.int8),
    Kind.I16: np.dtype(np.int16),
    Kind.I32: np.dtype(np.int32),
    Kind.I64: np.dtype(np.int64),
    Kind.F32: np.dtype(np.float32),
    Kind.F64: np.dtype(np.float64),
    Kind.DATE: np.dtype(np.int32),
    Kind.TIME: np.dtype(np.int64),
}
ARROW: dict[Kind, pa.DataType] = {
    Kind.NULL: pa.null(),
    Kind.BOOL: pa.bool_(),
    Kind.I8: pa.int8(),
    Kind.I16: pa.int16(),
    Kind.I32: pa.int32(),
    Kind.I64: pa.int64(),
    Kind.F32: pa.float32(),
    Kind.F64: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.DATE: pa.date32(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
}


def common_kind(left: Kind, right: Kind) -> Kind | None:
    """Return the type both sides are widened to, or None when there is none.

    An integer beside a float gives a double, as in Spark with ANSI on.
    """
    if left is right or right is Kind.NULL:
        return left
    if left is Kind.NULL:
        return right
    if left in INTEGERS and right in INTEGERS:
        return INTEGERS[max(INTEGERS.index(left), INTEGERS.index(right))]
    if left in NUMBERS and right in NUMBERS:
        return Kind.F64
    if left in MOMENTS and right in MOMENTS:
        return Kind.TIME
    return None


def common_kind_of(kinds: Iterable[Kind]) -> Kind | None:
    """Return the type all of them are widened to, or None when there is none."""
    found: Kind | None = Kind.NULL
    for kind in kinds:
        found = None if found is None else common_kind(found, kind)
    return found
