"""How XGBoost gets its rows as bins: part by part, into memory or onto a disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xgboost as xgb

from cluster.machine import usable_memory_bytes
from ray_apps.gang.totals import highest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ray_apps.gang import Gang
    from ray_apps.shards import Shard
    from ray_apps.trainers import TrainJob
    from ray_apps.trainers.xgb_edges import Edges
    from ray_apps.trainers.xgb_trees import InitTrees

CSR_BYTES = 8
"""Of a value in rows that are not binned: the number and its column."""
JUDGED_BYTES, JUDGED_SHARE = 256 << 20, 64
"""Rows that judge up to this size, and this part of the memory there is, are not binned; a search
has as many of them as it has ways to bin, times its stages."""
Binned: TypeAlias = xgb.QuantileDMatrix | xgb.ExtMemQuantileDMatrix


def bin_rows(
    shard: Shard,
    job: TrainJob,
    edges: Edges,
    weights: npt.NDArray[np.float32] | None = None,
    init: InitTrees | None = None,
) -> Binned:
    """Return rows as bins.

    With a folder in the job the bins are files in it, of which a few parts are read at a time;
    they are gone with the matrix.

    Args:
        shard: the rows.
        job: what is trained on them.
        edges: of the bins.
        weights: of each row.
        init: the trees whose raw scores the rows start at.

    Raises:
        XGBoostError: the library failed, or has lost another worker (see `xgb_network.network`).
    """
    options: dict[str, Any] = {"enable_categorical": True, "nthread": job.threads}
    options |= {"max_bin": edges.most_bins}
    try:
        options["ref"] = edges.matrix(job.threads)
        if job.bins_folder is None:
            parts = Parts(shard, edges, weights, init)
            return xgb.QuantileDMatrix(parts, **options)
        job.bins_folder.mkdir(parents=True, exist_ok=True)
        cache = Path(tempfile.mkdtemp(dir=job.bins_folder))  # one matrix, one name for its files
        parts = Parts(shard, edges, weights, init, cache)
        return xgb.ExtMemQuantileDMatrix(parts, **options)
    except _InterruptedError:
        assert parts.interrupt is not None
        raise parts.interrupt from None


def judged_rows(
    valid: Shard, job: TrainJob, edges: Edges, gang: Gang, init: InitTrees | None = None
) -> xgb.DMatrix:
    """Return the rows that judge each round: as they are, or as bins where they are many.

    On cores the library is quicker to predict rows that are not binned, but they take up to eight
    times the memory. What goes further than train's edges has bins of its own (`Edges.up_to`):
    the metric is that of the scores that the model will give.

    Raises:
        XGBoostError: the library failed, or has lost another worker (see `xgb_network.network`).
    """
    size = valid.rows * len(edges.names) * CSR_BYTES
    is_large = size > min(JUDGED_BYTES, usable_memory_bytes() // JUDGED_SHARE)
    # all workers do the same: the library's calls to the others are not those of the other kind
    is_binned = highest(gang, np.array([is_large or job.bins_folder is not None]))[0]
    if not is_binned:
        return _unbinned(valid.held(), job, edges, init)
    valid = valid if job.bins_folder else valid.held()
    return bin_rows(valid, job, edges.up_to(_tops(valid, edges, gang)), init=init)


def _tops(valid: Shard, edges: Edges, gang: Gang) -> npt.NDArray[np.float64]:
    """Return the greatest value of each column as the library is shown it; see `Edges.up_to`."""
    tops = np.full(len(edges.names), -np.inf)
    for table in valid.tables:
        shown = edges.twins.table(table) if edges.twins else table
        found = [pc.max(column).as_py() for column in shown.columns]
        tops = np.fmax(tops, np.array(found, dtype=np.float64))
    return highest(gang, tops)


def _unbinned(valid: Shard, job: TrainJob, edges: Edges, init: InitTrees | None) -> xgb.DMatrix:
    """Return rows as they are."""
    table = pa.concat_tables(t for t in valid.tables if t.num_rows)
    return xgb.DMatrix(
        edges.twins.table(table) if edges.twins else table,
        label=valid.label,
        base_margin=None if init is None else init.margins(table),
        feature_types=edges.types,
        enable_categorical=True,
        nthread=job.threads,
    )


class Parts(xgb.DataIter):
    """Gives one encoded row group at a time; the library asks for all of them several times.

    Attributes:
        interrupt: what ended it, if it was no Exception.
    """

    def __init__(
        self,
        shard: Shard,
        edges: Edges,
        weights: npt.NDArray[np.float32] | None = None,
        init: InitTrees | None = None,
        cache: Path | None = None,
    ) -> None:
        self._shard, self._weights, self._init = shard, weights, init
        self._margins: dict[int, npt.NDArray[np.float32]] = {}
        self._types, self._twins = edges.types, edges.twins
        self._tables = iter(shard.tables)
        self._place = self._row = 0
        self.interrupt: BaseException | None = None
        prefix = None if cache is None else str(cache / "part")
        super().__init__(cache_prefix=prefix, release_data=True)

    def reset(self) -> None:
        """Begin anew."""
        self._tables = iter(self._shard.tables)
        self._place = self._row = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        """Give the next part; False: there is no other."""
        try:
            return self._next(input_data)
        except Exception:
            raise
        except BaseException as interrupt:
            # the library lets only an Exception end what it is doing; after Ctrl-C it would go on
            # with the last part once more
            self.interrupt = interrupt
            raise _InterruptedError from interrupt

    def _next(self, input_data: Callable[..., None]) -> bool:
        table = next(self._tables, None)
        if table is None:
            return False
        label = self._shard.labels[self._place]
        rows = slice(self._row, self._row + len(label))
        weight = {} if self._weights is None else {"weight": self._weights[rows]}
        margin = {} if self._init is None else {"base_margin": self._margin(table)}
        data = self._twins.table(table) if self._twins else table
        input_data(data=data, label=label, feature_types=self._types, **weight, **margin)
        self._place, self._row = self._place + 1, rows.stop
        return True

    def _margin(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """Return the raw scores of a part, computed once for all the times it is asked for."""
        assert self._init is not None
        if self._place not in self._margins:
            self._margins[self._place] = self._init.margins(table)
        return self._margins[self._place]


# --------------------------------------------------------------------------------- inside


class _InterruptedError(Exception):
    """Stands for an interrupt while the library calls back."""
