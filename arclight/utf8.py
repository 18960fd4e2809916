"""Text that is not UTF-8: files may hold it, and neither Arrow's functions nor readers take it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]


def broken_texts(texts: pa.Array) -> Mask | None:
    """Return which of some texts (strings of any kind) are not UTF-8, None where all are."""
    if pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([not _is_utf8(raw) for raw in texts.cast(pa.binary()).to_pylist()])
    return None


def _is_utf8(raw: bytes | None) -> bool:
    try:
        (raw or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
