"""Labels to what a library takes, and why a row's label cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from arclight.errors import SpecError
from arclight.features import FLOAT32_MAX, level_names
from arclight.summary import MAX_LEVEL_BYTES
from arclight.utf8 import broken_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

Task = Literal["binary", "multiclass", "regression"]
Mask = npt.NDArray[np.bool_]

LABEL_REASONS = (
    "label_null", "label_not_finite", "label_not_0_or_1", "label_too_large", "label_too_long",
    "label_not_utf8",
)  # fmt: skip
"""Why a row's label cannot be used."""
EXACT_INTEGER = 2**53
"""Up to here float64 holds every whole number."""


def check_label_type(task: Task, name: str, kind: pa.DataType) -> None:
    """Refuse a label of a type that its task cannot have.

    Raises:
        SpecError: the type does not fit; the message says how to make it fit.
    """
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    fits = {
        "binary": number or pa.types.is_boolean(kind),
        "regression": number,
        "multiclass": pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_boolean(kind),
    }
    ways = {
        "binary": f"compare it in etl.sql, as in {name} = 'yes' AS {name}",
        "regression": f"cast it in etl.sql, as in CAST({name} AS DOUBLE) AS {name}",
        "multiclass": f"cast it in etl.sql, as in CAST({name} AS STRING) AS {name}",
    }
    if not fits[task]:
        raise SpecError(
            f"etl.label: '{name}' is {kind}, which no {task} label can be; {ways[task]}."
        )


def read_labels(task: Task, values: pa.Array) -> tuple[pa.Array, Mapping[str, Mask]]:
    """Return the stored label and, reason by reason, the rows whose label is outside the task.

    The stored label is float64 (binary: 0 or 1; regression), or a string (multiclass). A
    regression label is `label_too_large` past float32's largest, where the libraries overflow,
    and as a whole number past 2**53, where float64 would round it in silence.
    """
    if task == "multiclass":
        names = level_names(values)
        null = names.is_null().to_numpy(zero_copy_only=False)
        reasons = {"label_null": null, "label_too_long": _too_long(names)}
        broken = broken_texts(names)
        if broken is not None:
            names, reasons["label_not_utf8"] = pc.if_else(pa.array(broken), None, names), broken
        return names, reasons
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers = values.cast(pa.float64(), safe=False)
    x = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    null = numbers.is_null().to_numpy(zero_copy_only=False)
    is_finite = np.isfinite(x)
    reasons = {"label_null": null, "label_not_finite": ~is_finite}
    if task == "binary":
        reasons["label_not_0_or_1"] = is_finite & (x != 0) & (x != 1)
    else:
        reasons["label_too_large"] = is_finite & _too_large(values, x)
    return numbers, reasons


def _too_long(names: pa.Array) -> Mask:
    """Return the classes that a summary, and so the plan, would not keep."""
    size = pc.fill_null(pc.binary_length(names), 0).to_numpy(zero_copy_only=False)
    return np.asarray(size > MAX_LEVEL_BYTES)


def _too_large(values: pa.Array, x: npt.NDArray[np.float64]) -> Mask:
    if not pa.types.is_integer(values.type):
        return np.asarray(np.abs(x) > FLOAT32_MAX)
    # compared as whole numbers: as float64, 2**53 + 1 is 2**53 already
    whole = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return np.asarray((whole > EXACT_INTEGER) | (whole < -EXACT_INTEGER))
