"""Upper and lower case."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def upper(text: pa.Array) -> pa.Array:
    """Return the strings in upper case."""
    return pc.utf8_upper(text)


def lower(text: pa.Array) -> pa.Array:
    """Return the strings in lower case."""
    return pc.utf8_lower(text)
