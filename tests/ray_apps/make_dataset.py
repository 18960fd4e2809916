"""A small published dataset: raw table -> builder -> summaries -> plan -> Parquet -> manifest."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from arclight.catalog import Catalog, now
from arclight.features import Derived, FeatureBuilder, FeatureColumn, FeatureLayout
from arclight.ledger import RowLedger, Stage
from arclight.lineage import Lineage
from arclight.manifest import DataFile, DatasetManifest, SplitProof
from arclight.plan import class_codes, fit_plan
from arclight.schema import NAMES, TIMESTAMP, Column
from arclight.spec import Etl, Source, Spec
from arclight.store import flush_tree, open_store, sha256_file
from arclight.summary import make_builder
from arclight.train_section import Train

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("high", "low", "mid")
ODD = "2B"
SPACED = "a b"
EMOJI = "🙂 x"
SMALL_NET = {"width": 32, "depth": 1, "batch_rows": 128, "learning_rate": 0.01}


@dataclass(frozen=True)
class Made:
    """A store with one dataset, and the raw rows it was made of."""

    catalog: Catalog
    manifest: DatasetManifest
    raw: dict[str, pa.Table]


def raw_table(rows: int, *, seed: int, task: str = "binary", first_id: int = 0) -> pa.Table:
    """Rows with a learnable label, nulls, NaN, a rare level and odd column names."""
    rng = np.random.default_rng(seed)
    color = rng.choice(["red", "green", "blue", "grey"], rows, p=[0.4, 0.3, 0.295, 0.005])
    x, y = rng.standard_normal(rows), rng.standard_normal(rows)
    count = rng.integers(0, 40, rows)
    shop = rng.integers(1, 6, rows)
    effect = np.where(color == "red", 1.5, np.where(color == "green", -1.0, 0.2))
    z = x + 0.5 * y * (color == "blue") + effect + 0.05 * count - 1.0
    z = z + 0.3 * rng.standard_normal(rows)
    y[rng.random(rows) < 0.05] = np.nan
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return pa.table(
        {
            "id": pa.array(np.arange(first_id, first_id + rows), pa.int64()),
            "at": pa.array([start + dt.timedelta(hours=i) for i in range(rows)], TIMESTAMP),
            "shop": pa.array(shop, pa.int32()),
            "color": pa.array(color, pa.string(), mask=rng.random(rows) < 0.05),
            "is_new": pa.array(rng.random(rows) < 0.5, mask=rng.random(rows) < 0.02),
            ODD: pa.array(x, pa.float64(), mask=rng.random(rows) < 0.1),
            SPACED: pa.array(y, pa.float64()),
            EMOJI: pa.array(count, pa.int64()),
            "label": _label(z, task),
        }
    )


def _label(z: np.ndarray, task: str) -> pa.Array:
    if task == "binary":
        return pa.array((z > 0).astype(np.float64))
    if task == "regression":
        return pa.array(10 * z)
    return pa.array(np.where(z > 0.7, "high", np.where(z < -0.7, "low", "mid")))


def layout() -> FeatureLayout:
    """Features: numbers, categories, a whole-number category that is also carried, a derived."""
    schema = raw_table(1, seed=0).schema
    used = ("at", "shop", "color", "is_new", ODD, SPACED, EMOJI)
    return FeatureLayout(
        inputs=tuple(Column(name=n, type=NAMES[schema.field(n).type]) for n in used),
        derive=(
            Derived(name="hour", expression="hour(at)"),
            Derived(name="double", expression=f"`{EMOJI}` * 2"),
        ),
        features=(
            FeatureColumn(name="shop", type="category"),
            FeatureColumn(name="color", type="category"),
            FeatureColumn(name="is_new", type="category"),
            FeatureColumn(name=ODD, type="number"),
            FeatureColumn(name=SPACED, type="number"),
            FeatureColumn(name=EMOJI, type="number"),
            FeatureColumn(name="hour", type="number"),
            FeatureColumn(name="double", type="number"),
        ),
    )


def make_spec(task: str = "binary", **train: object) -> Spec:
    """A spec whose train section trains fast, in this process."""
    section = {"rounds": 30, "early_stopping": 10, "seed": 7, "workers": 0, **train}
    if section.get("trainer") == "torch":
        section["params"] = {**SMALL_NET, **section.get("params", {})}
    return Spec(
        name="demo",
        task=task,
        sources={"t": Source(path="t")},
        etl=Etl(key=("id",), label="label"),
        train=Train(**section),
    )


def make_dataset(
    root: Path,
    *,
    task: str = "binary",
    rows: tuple[int, int, int] = (2400, 600, 600),
    row_groups: int = 5,
    label: dict[str, pa.Array] | None = None,
    files: int = 2,
    by_time: bool = False,
    seed: int = 0,
    odd: dict[str, pa.Array] | None = None,
) -> Made:
    """Write and publish a dataset; the same arguments give the same bytes.

    Args:
        root: the store's folder.
        task: what the label is.
        rows: of train, valid and test.
        row_groups: about how many a split file has.
        label: split -> labels to store instead of the true ones.
        files: of the train split.
        by_time: whether the record says so of its split.
        seed: of the rows.
        odd: column -> values that the first rows of the sample have instead.
    """
    catalog = Catalog(open_store(root))
    folder = catalog.store.stage("datasets", "demo")
    raw, first = {}, 0
    for place, (split, count) in enumerate(zip(("train", "valid", "test"), rows, strict=True)):
        raw[split] = raw_table(count, seed=100 * seed + place + 1, task=task, first_id=first)
        first += count
    stored = {split: _stored(table, (label or {}).get(split)) for split, table in raw.items()}
    names = _sample_columns()
    parts = pa.concat_tables([raw["train"], raw["valid"]])
    sample = parts.take(pa.array(np.linspace(0, len(parts) - 1, 200).astype(int))).select(names)
    for name, values in (odd or {}).items():
        place = sample.schema.get_field_index(name)
        rest = sample.column(name).combine_chunks().slice(len(values))
        sample = sample.set_column(place, name, pa.concat_arrays([values, rest]))
    found = [
        _write(folder, split, table, row_groups, files if split == "train" else 1)
        for split, table in stored.items()
    ]
    found.append(_write(folder, "sample", sample, 1, 1))
    flush_tree(folder)
    files_made = tuple(file for group in found for file in group)
    classes = CLASSES if task == "multiclass" else ()
    summaries = {split: _summaries(table, classes) for split, table in stored.items()}
    total = sum(rows)
    manifest = DatasetManifest(
        name="demo",
        number=0,
        key=f"{task}-{rows}-{row_groups}-{files}-{label is not None}-{by_time}-{seed}",
        folder=folder.relative_to(catalog.store.root).as_posix(),
        task=task,
        label="label",
        key_columns=("id",),
        time_column="at",
        columns=tuple(Column(name=f.name, type=NAMES[f.type]) for f in stored["train"].schema),
        files=files_made,
        rows={
            **dict(zip(("train", "valid", "test"), rows, strict=True)),
            "sample": len(sample),
            "quarantine": 0,
        },
        codec="snappy",
        plan=fit_plan(
            layout(),
            {s.name: s for s in summaries["train"]},
            max_levels=100,
            min_count=20,
            classes=classes,
        ),
        summaries={split: tuple(s.trim() for s in them) for split, them in summaries.items()},
        class_rows={},
        ledger=RowLedger(stages=(Stage(name="split", rows_in=total, rows_out=total),)),
        proof=SplitProof(
            keys=total, repeated_keys=0, bounds={"train": ("2024", "2025")} if by_time else {}
        ),
        sources=(),
        lineage=Lineage(made_at=now(), spec_digest="", code_digest=""),
    )
    return Made(catalog=catalog, manifest=catalog.publish_dataset(manifest), raw=raw)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """The table as one batch, also when it has no rows."""
    found = table.combine_chunks().to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=table.schema)


def _sample_columns() -> list[str]:
    return [*(column.name for column in layout().inputs), "id"]


def _stored(raw: pa.Table, label: pa.Array | None) -> pa.Table:
    built = FeatureBuilder(layout()).build(one_batch(raw))
    carried = ["id", "at", "shop"]
    columns = {name: raw.column(name) for name in carried}
    columns["label"] = raw.column("label") if label is None else label
    columns |= {n: a for n, a in built.columns.items() if n not in carried}
    return pa.table(columns)


def _summaries(stored: pa.Table, classes: tuple[str, ...]) -> list:
    values = stored.column("label").combine_chunks()
    label = class_codes(values, classes) if classes else values.to_numpy(zero_copy_only=False)
    label = np.nan_to_num(label, posinf=0)
    found = []
    for feature in layout().features:
        builder = make_builder(feature.name, feature.type)
        column = stored.column(feature.name).combine_chunks()
        builder.add(column if feature.type == "number" else column.cast(pa.string()), label)
        found.append(builder.freeze())
    return found


def _write(folder: Path, part: str, table: pa.Table, groups: int, files: int) -> list[DataFile]:
    made = []
    (folder / part).mkdir()
    size = -(-len(table) // files) or 1
    for number in range(files):
        rows = table.slice(number * size, size)
        path = folder / part / f"part-{number:05d}.parquet"
        pq.write_table(
            rows,
            path,
            row_group_size=max(1, -(-len(rows) // groups)),
            write_page_checksum=True,
        )
        meta = pq.read_metadata(path)
        made.append(
            DataFile(
                part=part,
                path=f"{part}/{path.name}",
                rows=len(rows),
                size_bytes=path.stat().st_size,
                sha256=sha256_file(path),
                row_groups=tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups)),
            )
        )
    return made
