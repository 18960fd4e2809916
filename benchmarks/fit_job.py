"""What the `fit` race asks for: median, mean and deviation of 30 numbers, levels of 10 categories.

Every side hands over the same facts; a median is judged by its rank in the data, since two right
sketches may name different values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.data import FIT_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LEVELS, MIN_COUNT = 1000, 20
PROBABILITIES = tuple(i / 100 for i in range(1, 100))


def fit_facts(
    data: str,
    *,
    medians: Mapping[str, float],
    means: Mapping[str, float],
    stds: Mapping[str, float],
    levels: Mapping[str, int],
) -> dict[str, Any]:
    """Return what the gate compares.

    Args:
        data: the folder the plan was fitted on.
        medians: of each number, found by the contender.
        means: of each number.
        stds: of each number, over all rows (not n - 1).
        levels: distinct levels of each category.
    """
    ranks = {}
    for name in FIT_NUMBERS:
        values = pq.read_table(data, columns=[name]).column(name).drop_null().to_numpy()
        ranks[name] = [
            float(np.mean(values < medians[name])),
            float(np.mean(values <= medians[name])),
        ]
    return {"ranks": ranks, "means": dict(means), "stds": dict(stds), "levels": dict(levels)}
