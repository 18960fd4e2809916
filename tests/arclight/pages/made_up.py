"""Made-up flights for the pages' tests: real builders over random rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from arclight.bundle import BundleFile, Evaluation, GoldenRows, ModelBundle, Signature
from arclight.features import FeatureColumn, FeatureLayout
from arclight.ledger import RowLedger, Stage
from arclight.lineage import Lineage
from arclight.manifest import DataFile, DatasetManifest, SplitProof
from arclight.plan import fit_plan
from arclight.report import evaluate_predictions
from arclight.schema import Column, SourceContract
from arclight.summary import make_builder

HOSTILE = "<script>alert('x')</script> $\\frac{1}$ \x1b[31m\u202e"
SPLIT_ROWS = {"train": 12_000, "valid": 4_000, "test": 5_000}
CARRIERS = np.array(["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "漢字", HOSTILE])


def _numbers(rng: np.random.Generator, rows: int, late: np.ndarray, wide: int) -> dict:
    hour = rng.integers(5, 24, rows).astype(float)
    distance = np.where(
        rng.random(rows) < 0.6, rng.normal(900, 180, rows), rng.normal(2450, 90, rows)
    )
    found = {
        "sched_dep_hour": hour + late,
        "distance_miles": np.round(distance),
        "dep_delay": np.round(rng.exponential(9, rows) * (1 + 5 * late) - 6),
        "temp": rng.normal(56, 17, rows),
        "visib": np.where(rng.random(rows) < 0.8, 10.0, rng.uniform(0, 10, rows)),
        "precip": np.where(rng.random(rows) < 0.94, 0.0, rng.exponential(0.05, rows)),
        "pressure": np.where(rng.random(rows) < 0.6, np.nan, rng.normal(1017, 7, rows)),
        "always_one": np.ones(rows),
        "never_known": np.full(rows, np.nan),
        "leaked": late * 100.0,
        HOSTILE + " column": rng.normal(size=rows),
    }
    for place in range(wide):
        found[f"sensor_{place:03d}"] = rng.gamma(1 + place % 7, 2.0, rows) + late * (place % 5) / 5
    return found


def _categories(rng: np.random.Generator, rows: int, split: str) -> dict:
    month = {"train": (1, 9), "valid": (9, 11), "test": (11, 13)}[split]
    odds = np.array([58, 54, 51, 48, 32, 26, 20, 18, 12, 3, 2.0])
    return {
        "carrier": rng.choice(CARRIERS, rows, p=odds / odds.sum()),
        "origin": rng.choice(["EWR", "JFK", "LGA"], rows, p=[0.36, 0.33, 0.31]),
        "month": rng.integers(*month, rows).astype(str),
        "tailnum": np.char.add("N", rng.integers(10_000, 19_000, rows).astype(str)),
    }


def _label(task: str, rng: np.random.Generator, rows: int) -> np.ndarray:
    if task == "regression":
        return rng.normal(12, 30, rows)
    odds = [0.77, 0.23] if task == "binary" else [0.5, 0.3, 0.2]
    return rng.choice(len(odds), rows, p=odds).astype(float)


def flights_manifest(*, task: str = "binary", wide: int = 14, rows: dict | None = None):
    """Return a manifest of three splits of made-up flights."""
    rng = np.random.default_rng(7)
    rows = rows or SPLIT_ROWS
    summaries, class_rows = {}, {}
    for split, n in rows.items():
        label = _label(task, rng, n)
        late = label > np.quantile(label, 0.7) if task == "regression" else label > 0
        columns = {**_numbers(rng, n, late, wide), **_categories(rng, n, split)}
        features = [_summary(name, values, label) for name, values in columns.items()]
        summaries[split] = (*features, _label_summary(task, label))
        if task != "regression":
            names, counts = np.unique(label.astype(int), return_counts=True)
            class_rows[split] = dict(zip(map(str, names), counts.tolist(), strict=True))
    return _manifest(task, rows, summaries, class_rows)


def _summary(name: str, values: np.ndarray, label: np.ndarray):
    is_number = values.dtype.kind == "f"
    builder = make_builder(name, "number" if is_number else "category")
    if is_number:
        nan = np.isnan(values)
        builder.add(pa.array(values.astype(np.float32), mask=nan), label, nans=int(nan.sum()) // 2)
    else:
        builder.add(pa.array(values.tolist()), label)
    return builder.freeze()


def _label_summary(task: str, label: np.ndarray):
    if task == "multiclass":
        return _summary("late", label.astype(int).astype(str), label)
    return _summary("late", label, label)


def _manifest(task: str, rows: dict, summaries: dict, class_rows: dict) -> DatasetManifest:
    features = tuple(FeatureColumn(name=s.name, type=s.type) for s in summaries["train"][:-1])
    inputs = tuple(
        Column(name=f.name, type="float64" if f.type == "number" else "string") for f in features
    )
    layout = FeatureLayout(inputs=inputs, features=features)
    plan = fit_plan(
        layout, {s.name: s for s in summaries["train"]}, max_levels=100, min_count=20,
        classes=("0", "1", "2") if task == "multiclass" else (),
    )  # fmt: skip
    total = sum(rows.values())
    return DatasetManifest(
        name="flights-late", number=3, key="a" * 64, folder="datasets/flights-late/data/x",
        task=task, label="late", key_columns=("flight_id",), time_column="sched_dep",
        columns=inputs, codec="zstd", plan=plan, class_rows=class_rows,
        files=tuple(
            DataFile(part=s, path=f"{s}/part-0.parquet", rows=n, size_bytes=n * 91,
                     sha256="b" * 64, row_groups=(n,))
            for s, n in rows.items()
        ),
        rows={**rows, "quarantine": 1_260, "sample": 1000},
        summaries={s: tuple(x.trim() for x in found) for s, found in summaries.items()},
        ledger=_ledger(total),
        proof=SplitProof(
            keys=total, repeated_keys=410,
            bounds={"train": ("2013-01-01T10:15:00Z", "2013-08-31T23:59:00Z"),
                    "valid": ("2013-09-01T10:00:00Z", "2013-10-31T23:59:00Z"),
                    "test": ("2013-11-01T09:00:00Z", "2013-12-31T23:59:00Z")},
        ),
        sources=(SourceContract(source="flights", columns=inputs),),
        lineage=Lineage(
            made_at="2026-11-21T04:10:35.123456+00:00", spec_digest="c" * 64, code_digest="d" * 64,
            inputs={"flights": "e" * 64}, libraries={"pyspark": "4.1.0"}, python="3.11.2",
        ),
        warnings=("join 'weather' found no partner for 0.4 % of the rows",),
    )  # fmt: skip


def _ledger(total: int) -> RowLedger:
    ledger = RowLedger(
        sources={"flights": total + 1_760},
        stages=(
            Stage(name="read", rows_in=total + 1_760, rows_out=total + 1_760),
            Stage(name="join", rows_in=total + 1_760, rows_out=total + 1_760),
            Stage(name="check", rows_in=total + 1_760, rows_out=total + 910,
                  quarantined={"check:known_arrival": 800, "label:null": 50}),
            Stage(name="keys", rows_in=total + 910, rows_out=total + 500,
                  quarantined={"key:repeated": 410}),
            Stage(name="split", rows_in=total + 500, rows_out=total,
                  dropped={"after the last bound": 500}),
        ),
    )  # fmt: skip
    ledger.prove()
    return ledger


def _importance(features: int) -> tuple[float, ...]:
    """Return shares that fall from feature to feature; the last is never used."""
    parts = np.arange(features - 1, -1, -1, dtype=np.float64)
    return tuple((parts / parts.sum()).tolist())


def model_bundle(manifest: DatasetManifest) -> ModelBundle:
    """Return a model of the manifest's task; its digests are made up."""
    outputs = tuple(Column(name=n, type="float64") for n in manifest.plan.classes or ("score",))
    return ModelBundle(
        name="flights-model", number=2, key="1" * 64, folder="models/flights-model/data/x",
        task=manifest.task, trainer="xgboost", model_file="model.ubj",
        files=(BundleFile(path="model.ubj", size_bytes=120_345, sha256="2" * 64),),
        plan=manifest.plan,
        signature=Signature(inputs=manifest.plan.layout.inputs, outputs=outputs),
        threshold=0.3125 if manifest.task == "binary" else None, rounds=318,
        metric={"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}[manifest.task],
        train_metrics={"train": 0.81234, "valid": 0.74321},
        importance=_importance(len(manifest.plan.features)),
        golden=GoldenRows(rows=(), scores=()),
        params={"learning_rate": 0.1, "max_depth": 8, "tree_method": "hist", "seed": 7},
        dataset=manifest.ref, dataset_digest=manifest.content_digest, lineage=manifest.lineage,
    )  # fmt: skip


def evaluation_of(bundle: ModelBundle, *, rows: int = 5_000, resamples: int = 50) -> Evaluation:
    """Return an evaluation by the real metrics over random predictions that know something."""
    rng = np.random.default_rng(3)
    label = _label(bundle.task, rng, rows)
    carrier = rng.choice(CARRIERS, rows)
    report = evaluate_predictions(
        bundle.task, label, _predictions(bundle.task, rng, label), seed=5, dataset=bundle.dataset,
        classes=bundle.plan.classes, threshold=bundle.threshold, resamples=resamples,
        segments={"carrier": pa.array(carrier.tolist()), HOSTILE: pa.array(["all"] * rows)},
        model=bundle.ref, opening="1",
    )  # fmt: skip
    return Evaluation(
        model=bundle.ref, model_digest=bundle.model_digest, dataset=bundle.dataset,
        dataset_digest=bundle.dataset_digest, opening=1, report=report, key="3" * 64,
        made_at="2026-11-21T05:00:00+00:00",
    )  # fmt: skip


def _predictions(task: str, rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    if task == "regression":
        return label * 0.6 + rng.normal(3, 12, len(label))
    if task == "binary":
        return 1 / (1 + np.exp(-(rng.normal(-1.6, 1.1, len(label)) + 1.4 * label)))
    scores = rng.gamma(1.0, 1.0, (len(label), 3))
    scores[np.arange(len(label)), label.astype(int)] += 1.2
    return scores / scores.sum(axis=1, keepdims=True)
