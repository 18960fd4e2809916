"""Many rows of many features, and how much memory a process of its own takes to use them.

`python -m tests.ray_apps.wide_rows FOLDER WHAT TRAINER AT_ONCE` prints one line of JSON: bytes
that the process held more than before, at most (`peak`) and in the end (`after`), and what one
row group takes while it is decoded (`group`).
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arclight.catalog import Catalog
from arclight.manifest import DataFile
from arclight.store import flush_tree, open_store, sha256_file
from arclight.tune_section import Tune
from ray_apps import shards
from ray_apps.gang import Alone
from ray_apps.memory import begin_peak, held_bytes, peak_bytes
from ray_apps.shards import Reader, read_shard
from ray_apps.trainers import TrainJob, load_trainer
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.make_dataset import Made, make_dataset, make_spec
from tests.ray_apps.test_tune import searched

THREADS = 2
GROUPS = 120
VALUES = 400
"""Of a feature: more than there are bins."""


def make_wide(root: Path, *, rows: int, features: int) -> Made:
    """Publish a dataset of numbers, `rows` of train and a twentieth of valid."""
    small = make_dataset(root, rows=(200, 100, 50))
    catalog, old = small.catalog, small.manifest
    folder = catalog.store.stage("datasets", "wide")
    number = next(f for f in old.plan.features if f.type == "number")
    names = [f"n{i}" for i in range(features)]
    plan = old.plan.model_copy(
        update={"features": tuple(number.model_copy(update={"name": n}) for n in names)}
    )
    counts = {"train": rows, "valid": rows // 20, "test": 0, "sample": 0, "quarantine": 0}
    files = tuple(_write(folder, part, counts[part], names) for part in ("train", "valid"))
    flush_tree(folder)
    update = {
        "name": "wide",
        "key": "wide",
        "folder": folder.relative_to(catalog.store.root).as_posix(),
        "plan": plan,
        "files": files,
        "rows": counts,
    }
    manifest = catalog.publish_dataset(old.model_copy(update=update))
    return Made(catalog=catalog, manifest=manifest, raw={})


def binning(made: Made, trainer: str, at_once: int) -> dict[str, int]:
    """Read and bin train and valid, which are too many to be held as they are."""
    pa.set_cpu_count(THREADS)
    shards.HELD_BYTES = 0
    home, reader = made.catalog.folder(made.manifest), Reader(threads=THREADS)
    job = TrainJob(
        task="binary", categorical=(), metric="auc", rounds=1, threads=THREADS, early_stopping=None
    )
    train, valid = (
        read_shard(home, made.manifest, part, reader=reader) for part in ("train", "valid")
    )
    library, base = load_trainer(trainer), _held()
    train.tables[0]  # a row group is decoded, and forgotten
    group = peak_bytes() - base
    base = _held()
    data = library.prepare(train, valid, job, Alone())
    peak = peak_bytes() - base
    after = _held() - base
    del data
    return {"peak": peak, "after": after, "group": group}


def searching(made: Made, trainer: str, at_once: int) -> dict[str, int]:
    """Make a few trials, so many at the same time."""
    load_trainer(trainer)
    tune = {"trials": 4, "at_once": at_once, "scheduler": "none", "sampler": "random"}
    tune["space"] = {"learning_rate": {"float": [0.1, 0.3]}}
    spec = make_spec(trainer=trainer, rounds=5, early_stopping=None)
    spec = spec.model_copy(
        update={"name": "wide", "tune": Tune.model_validate_json(json.dumps(tune))}
    )
    folder, base = made.catalog.store.root / f"run-{trainer}-{at_once}", _held()
    folder.mkdir()
    profile = ONE_CORE.model_copy(update={"cores": at_once})
    _, trials = searched(made, spec, folder, profile=profile)
    assert all(trial.state == "complete" for trial in trials.ended.values()), trials.ended
    return {"peak": peak_bytes() - base, "after": _held() - base, "group": 0}


def _held() -> int:
    """Give back what is free, begin a new peak, and return what is held."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    begin_peak()
    return held_bytes()


def _write(folder: Path, part: str, rows: int, names: list[str]) -> DataFile:
    rng = np.random.default_rng(len(part))
    (folder / part).mkdir()
    path = folder / part / "part-00000.parquet"
    schema = pa.schema([(n, pa.float32()) for n in names] + [("label", pa.float64())])
    sizes = [len(one) for one in np.array_split(np.empty(rows), GROUPS)]
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for size in sizes:
            columns = [rng.integers(0, VALUES, size).astype(np.float32) for _ in names]
            label = (columns[0] + columns[1] + rng.normal(0, 90, size) > VALUES).astype(np.float64)
            writer.write_table(pa.table([*columns, label], schema=schema), row_group_size=size)
    return DataFile(
        part=part,
        path=f"{part}/{path.name}",
        rows=rows,
        size_bytes=path.stat().st_size,
        sha256=sha256_file(path),
        row_groups=tuple(sizes),
    )


if __name__ == "__main__":
    root, what, trainer, at_once = sys.argv[1:]
    catalog = Catalog(open_store(Path(root)))
    made = Made(catalog=catalog, manifest=catalog.dataset("wide@1"), raw={})
    run = {"binning": binning, "searching": searching}[what]
    sys.stdout.write(json.dumps(run(made, trainer, int(at_once))))
