"""Labels to what a library takes, and why a row's label cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.errors import SpecError
from arclight.features import level_names

if TYPE_CHECKING:
    from collections.abc import Mapping

Task = Literal["binary", "multiclass", "regression"]
Mask = npt.NDArray[np.bool_]


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

    The stored label is float64 (binary: 0 or 1; regression), or a string (multiclass).
    """
    if task == "multiclass":
        names = level_names(values)
        return names, {"label_null": names.is_null().to_numpy(zero_copy_only=False)}
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers = values.cast(pa.float64(), safe=False)
    x = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    null = numbers.is_null().to_numpy(zero_copy_only=False)
    reasons = {"label_null": null, "label_not_finite": ~np.isfinite(x)}
    if task == "binary":
        reasons["label_not_0_or_1"] = np.isfinite(x) & (x != 0) & (x != 1)
    return numbers, reasons
