"""Arclight's feature fit over Parquet: by Spark's workers, or by plain processes."""

from __future__ import annotations

import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.features import FeatureColumn, FeatureLayout
from arclight.schema import Column
from benchmarks.data import FIT_CATEGORIES, FIT_NUMBERS
from benchmarks.fit_job import MAX_LEVELS, MIN_COUNT, PROBABILITIES, fit_facts
from cluster.profiles import Profile
from cluster.spark_session import spark_session
from spark.fit import FileFit, fit_files, plan_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from arclight.summary import ColumnSummary
    from spark.fit import Fitted

LAYOUT = FeatureLayout(
    inputs=(
        *(Column(name=name, type="float32") for name in FIT_NUMBERS),
        *(Column(name=name, type="string") for name in FIT_CATEGORIES),
    ),
    features=(
        *(FeatureColumn(name=name, type="number") for name in FIT_NUMBERS),
        *(FeatureColumn(name=name, type="category") for name in FIT_CATEGORIES),
    ),
)


class FitSide:
    """Fits a plan over the files of a folder and reads 99 percentiles of every number."""

    def __init__(
        self, data: str, fit: Callable[[FileFit], Fitted], wake: Callable[[], object]
    ) -> None:
        self._data, self._fit, self._wake = data, fit, wake

    def ready(self, number: int) -> None:  # noqa: ARG002 -- every round is the same
        """Have the workers up: Spark ends Python workers after a minute without work."""
        self._wake()

    def run(self, number: int) -> Fitted:  # noqa: ARG002 -- every round is the same
        """Look at the footers, summarise, merge, fit."""
        files = sorted(Path(self._data).glob("*.parquet"))
        job = FileFit(layout=LAYOUT, label="y", pieces=plan_pieces(files))
        fitted = self._fit(job)
        for summary in fitted.summaries:
            summary.sketch.quantiles(PROBABILITIES)
        return fitted

    def facts(self, result: Fitted) -> dict[str, Any]:
        """Return the plan's own numbers."""
        numbers = [f for f in result.plan.features if f.type == "number"]
        categories = [s for s in result.summaries if s.type == "category"]
        return fit_facts(
            self._data,
            medians={f.name: f.median for f in numbers},
            means={f.name: f.mean for f in numbers},
            stds={f.name: f.std for f in numbers},
            levels={s.name: len(s.levels) for s in categories},
        )


def _summarise(job: FileFit, place: int) -> tuple[ColumnSummary, ...]:
    return job.summarise(place)


def _wake(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Import what a task imports."""
    importlib.import_module("spark.fit")
    yield from batches


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[FitSide]:
    """Start the workers that `lane` names: Spark's, or a pool of processes."""
    limits = {"max_levels": MAX_LEVELS, "min_count": MIN_COUNT}
    scratch = Path(params["scratch"])
    with ExitStack() as stack:
        if params["lane"] == "spark":
            profile = Profile(name="race", cores=params["cores"], memory_gib=params["memory_gib"])
            engine = spark_session(profile, log_folder=scratch, local_folder=scratch / "spark")
            session = stack.enter_context(engine)
            places = session.range(0, params["cores"], 1, params["cores"])
            yield FitSide(
                params["data"],
                lambda job: fit_files(session, job, **limits),
                lambda: places.mapInArrow(_wake, places.schema).collect(),
            )
        else:
            context = multiprocessing.get_context("forkserver")
            pool = stack.enter_context(ProcessPoolExecutor(params["cores"], mp_context=context))

            def fit(job: FileFit) -> Fitted:
                places = range(len(job.pieces))
                parts = list(pool.map(_summarise, [job] * len(job.pieces), places))
                return job.plan(parts, **limits)

            yield FitSide(params["data"], fit, lambda: None)
