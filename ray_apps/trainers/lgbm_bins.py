"""How rows become LightGBM's bins: by one sample for all workers, many rows part by part."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
from lightgbm.basic import (
    _LIB,
    ZERO_THRESHOLD,
    _InnerPredictor,
    _param_dict_to_str,
    _safe_call,
)

from arclight.errors import DataError
from ray_apps.gang import Alone
from ray_apps.shards import dense
from ray_apps.trainers.lgbm_network import network

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from arclight.plan import Matrix
    from ray_apps.gang import Gang
    from ray_apps.shards import Shard

# Anything else makes LightGBM end the process from C++, where nothing can catch it.
SAFE_TYPES = frozenset({pa.float32(), pa.float64(), pa.int8(), pa.int16(), pa.int32(), pa.int64()})
SAMPLE_ROWS = 200_000
"""Rows the library makes its bins from, when `bin_construct_sample_cnt` says nothing else."""


def check_types(shard: Shard) -> None:
    """Refuse what LightGBM cannot take.

    Raises:
        DataError: a column of another type, or no rows.
    """
    if not shard.rows:
        raise DataError("a shard must have rows for LightGBM, got none; use fewer workers.")
    for field in shard.tables[0].schema:
        if field.type not in SAFE_TYPES:
            raise DataError(
                f"feature column '{field.name}' must be one of "
                f"{', '.join(sorted(map(str, SAFE_TYPES)))} for LightGBM, got {field.type}."
            )


def common_bins(shard: Shard, common: dict[str, Any], gang: Gang) -> lgb.Dataset:
    """Return a data set of no rows of its own, whose bins are those of rows of every worker.

    Every worker has the same sample: the rows that the library itself would choose of one
    worker's. Of several each bins some of the features and tells the others, as is the library's
    way, which goes by a worker's own rows alone: they are not like those of the others when data
    are in order.
    """
    wanted = int(common["params"].get("bin_construct_sample_cnt", SAMPLE_ROWS))
    places = _sample(shard.rows, -(-wanted // gang.world), common["params"])
    names, codes = shard.tables[0].column_names, list(common["categorical_feature"])
    sample = np.empty((len(places), len(names)), np.float32)
    row = 0
    for table in shard.tables:
        first, last = np.searchsorted(places, (row, row + len(table)))
        dense(table.take(places[first:last] - row), sample[first:last])
        row += len(table)
    if gang.world > 1:
        found = gang.exchange([sample.data] * gang.world)
        sample = np.concatenate([np.frombuffer(part, np.float32) for part in found])
        sample = sample.reshape(-1, len(names))
        del found
        # a category that is always null splits nothing, and to tell others of its bins the library
        # reads memory that is not there
        codes = [place for place in codes if not np.isnan(sample[:, place]).all()]
    # bundles are made of values that binning leaves in another order, so all of them by everybody
    is_shared = not common["params"].get("enable_bundle", True)
    with network(gang if is_shared else Alone()):
        return _bins_of(sample, names, codes, common)


def bin_rows(
    shard: Shard,
    bins: lgb.Dataset,
    known: _InnerPredictor | None,
    common: dict[str, Any],
    weight: npt.NDArray[np.float32] | None = None,
    offset: float = 0.0,
) -> lgb.Dataset:
    """Return rows binned by the bins of another data set, pushed part by part where they are many.

    With margins of what is known already, less an offset; a booster made of these rows goes on
    from there.
    """
    if shard.is_held or common["params"].get("linear_tree"):
        # column by column is faster; and linear leaves need the numbers themselves
        rows: Any = pa.concat_tables(shard.tables)
    else:
        tables = iter(shard.tables)
        rows = [_Part(tables, len(part)) for part in shard.labels]
    made = lgb.Dataset(
        rows,
        label=shard.label,
        weight=weight,
        reference=bins,
        **common,
    )
    if known is not None:
        margins = [known.predict(dense(table), raw_score=True) for table in shard.tables]
        made.init_score = np.concatenate(margins) - offset
    made.construct()
    made._predictor = known  # only now: it cannot predict on parts
    return made


# --------------------------------------------------------------------------------- inside


class _Part(lgb.Sequence):
    """One of the parts that come one after another; the library asks for each once, as a whole."""

    def __init__(self, tables: Iterator[pa.Table], rows: int) -> None:
        self._tables, self.batch_size = tables, rows

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, _: Any) -> Matrix:
        return dense(next(self._tables))


def _sample(rows: int, wanted: int, params: dict[str, Any]) -> npt.NDArray[np.int32]:
    """Return the rows that the library would choose of so many, in order.

    `Dataset._create_sample_indices` leaves `seed` out, so that it finds others.
    """
    places = np.empty(min(rows, wanted), dtype=np.int32)
    text = _param_dict_to_str({**params, "bin_construct_sample_cnt": wanted})
    found = ctypes.c_int32()
    _safe_call(
        _LIB.LGBM_SampleIndices(
            ctypes.c_int32(rows),
            ctypes.c_char_p(text.encode()),
            places.ctypes.data_as(ctypes.c_void_p),
            ctypes.byref(found),
        )
    )
    return places[: found.value]


def _bins_of(
    sample: Matrix, names: list[str], codes: list[int], common: dict[str, Any]
) -> lgb.Dataset:
    """Return a data set with the bins of a sample, whose rows are not pushed into it.

    Args:
        sample: the rows.
        names: of the features.
        codes: the features that get bins of categories.
        common: what every data set is made with.
    """
    rows = len(sample)
    every = np.arange(rows, dtype=np.int32)
    columns = [_told(column, every) for column in sample.T]
    made = lgb.Dataset(None, **common)
    made.params = dict(common["params"])
    if common["categorical_feature"]:
        made.params["categorical_column"] = common["categorical_feature"]
    told = {**made.params, "categorical_column": codes or None}
    handle, count = ctypes.c_void_p(), len(columns)
    _safe_call(
        _LIB.LGBM_DatasetCreateFromSampledColumn(
            (ctypes.c_void_p * count)(*(values.ctypes.data for values, _ in columns)),
            (ctypes.c_void_p * count)(*(places.ctypes.data for _, places in columns)),
            ctypes.c_int32(count),
            (ctypes.c_int32 * count)(*(len(values) for values, _ in columns)),
            ctypes.c_int32(rows),
            ctypes.c_int32(rows),
            ctypes.c_int64(rows),
            ctypes.c_char_p(_param_dict_to_str(told).encode()),
            ctypes.byref(handle),
        )
    )
    made._handle = handle
    return made.set_feature_name(names)  # which those that refer to it take over


def _told(
    column: npt.NDArray[np.float32], every: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return a column's values but zeros, and their places: all the library asks for."""
    values = column.astype(np.float64)
    is_told = ~(np.abs(values) <= ZERO_THRESHOLD)
    return (values, every) if is_told.all() else (values[is_told], every[is_told])
