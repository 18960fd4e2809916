"""Whether trials on shared LightGBM bins are faster by columns or by rows: tried out once.

By columns a booster counts the bins as they are. By rows it first makes a copy of them, which
takes about as long as a round, and then goes through all features of a row at once, also those
that a tree leaves out. Which is faster hangs on the bins: rows that follow each other in the same
bin of a column wait for each other. The trees are the same to the bit, so a clock may choose.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 50_000
"""That are tried out, from all over train."""
REPEATS = 3
ROUNDS = 8
"""Of a trial that is stopped early, about; so many have to make good for the copy."""
COLUMNS, BY_ROWS, SHARE = "force_col_wise", "force_row_wise", "feature_fraction"


def share_from_which_rows_win(binned: lgb.Dataset, params: dict[str, Any]) -> float:
    """Return the share of features in a tree from which trials are faster by rows; or infinity.

    Args:
        binned: train.
        params: of a trial; only what bins are made by, and its threads, are heeded.
    """
    if params.get("linear_tree"):
        return math.inf  # it needs the values as well
    rows = int(binned.num_data())
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, ROWS)).astype(np.int64))
    some = binned.subset(chosen.tolist()).construct()
    plain = {"objective": "regression", "verbosity": -1, "num_threads": params["num_threads"]}
    _, columns_s = _seconds(some, {**plain, COLUMNS: True})
    copy_s, rows_s = _seconds(some, {**plain, BY_ROWS: True})
    return (rows_s + copy_s / ROUNDS) / max(columns_s, 1e-9)


def faster_layout(params: dict[str, Any], rows_from: float) -> dict[str, Any]:
    """Return the parameters of a trial with the layout that is faster for it.

    Args:
        params: as `params_of` has them.
        rows_from: the share of features from which it is by rows.
    """
    if COLUMNS not in params or float(params.get(SHARE, 1.0)) < rows_from:
        return params
    if params.get("use_quantized_grad"):
        return params  # wrong by rows where trees leave features out
    return {name: value for name, value in params.items() if name != COLUMNS} | {BY_ROWS: True}


def _seconds(data: lgb.Dataset, params: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds that a booster takes to be made, and those of a round."""
    made = [_timed(lambda: lgb.Booster(params, data)) for _ in range(REPEATS)]
    booster = made[-1][1]
    rounds = [_timed(booster.update) for _ in range(REPEATS)]
    return min(s for s, _ in made), min(s for s, _ in rounds)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    made = work()
    return time.perf_counter() - begun, made
