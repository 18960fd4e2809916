"""What the `ingest` race asks for: files, parameters, the same test rows for every model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

LABEL = "y"
WARM_ROUNDS = 2
PARAMS: dict[str, dict[str, Any]] = {
    "xgboost": {"max_depth": 6, "learning_rate": 0.1, "max_bin": 256},
    "lightgbm": {"num_leaves": 63, "max_depth": 6, "learning_rate": 0.1, "max_bin": 255},
    "torch": {"net": "mlp", "width": 64, "depth": 2, "embedding": 8, "batch_rows": 1024},
}


def spec_body(
    data: Path, categories: tuple[str, ...], trainer: str, rounds: int
) -> dict[str, Any]:
    """Return the job as an Arclight spec."""
    return {
        "name": "race",
        "task": "binary",
        "sources": {"training": {"path": str(data / "training")}},
        "etl": {
            "key": ["id"],
            "label": LABEL,
            "split": {"by": "hash", "train": 0.8, "valid": 0.1, "test": 0.1},
        },
        "features": {"categorical": list(categories)},
        "train": {
            "trainer": trainer,
            "rounds": rounds,
            "early_stopping": None,
            "metric": "auc",
            "params": PARAMS[trainer],
        },
    }


@dataclass(frozen=True)
class Job:
    """What a peer is given: the files of the published splits and what is in them.

    Attributes:
        files: split -> its Parquet files.
        numbers: float32 columns.
        levels: category column -> every level there is, sorted.
        threads: of the library and of pyarrow.
        rounds: of boosting.
        seed: of the library.
        label: the column that is to be told, 0 or 1.
    """

    files: dict[str, list[str]]
    numbers: list[str]
    levels: dict[str, list[str]]
    threads: int
    rounds: int
    seed: int = 0
    label: str = LABEL

    @property
    def features(self) -> list[str]:
        """The columns a model sees."""
        return [*self.numbers, *self.levels]

    def of_round(self, number: int) -> Job:
        """Return the job of a round: its own seed, and few rounds for the warm-up."""
        rounds = self.rounds if number else WARM_ROUNDS
        return replace(self, rounds=rounds, seed=number)


def read_split(job: Job, split: str) -> tuple[pa.Table, npt.NDArray[np.float64]]:
    """Read a split by pyarrow: features, categories as dictionaries, and the label."""
    pa.set_cpu_count(job.threads)
    table = pq.ParquetDataset(job.files[split], read_dictionary=list(job.levels)).read(
        columns=[*job.features, job.label]
    )
    table = table.unify_dictionaries().combine_chunks()
    return table.select(job.features), table.column(job.label).to_numpy()


def with_codes(job: Job, table: pa.Table) -> pa.Table:
    """Return the table with int32 codes in place of categories; a level train has not is null."""
    columns = [table.column(name) for name in job.numbers]
    for name, levels in job.levels.items():
        column = table.column(name).combine_chunks()
        codes = pc.index_in(column.dictionary, pa.array(levels, column.dictionary.type))
        columns.append(codes.take(column.indices))
    return pa.table(columns, names=job.features)


def test_facts(job: Job, score: Callable[[pa.Table], Any]) -> dict[str, Any]:
    """Return the AUC on the test rows of a model that scores a table from `read_split`."""
    table, label = read_split(job, "test")
    return {"auc": float(roc_auc_score(label, score(table))), "rows": len(label)}
