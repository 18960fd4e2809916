"""Small made-up datasets, models and evaluations for the tests of the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.bundle import BundleFile, Evaluation, GoldenRows, ModelBundle, Signature
from arclight.features import Derived, FeatureColumn, FeatureLayout
from arclight.ledger import RowLedger, Stage
from arclight.lineage import Lineage
from arclight.manifest import DataFile, DatasetManifest, SplitProof
from arclight.plan import Feature, FeaturePlan
from arclight.schema import Column, SourceContract

if TYPE_CHECKING:
    from arclight.report import EvalReport

LAYOUT = FeatureLayout(
    inputs=(Column(name="a", type="int64"), Column(name="c", type="string")),
    derive=(Derived(name="d", expression="a + 1"),),
    features=(
        FeatureColumn(name="a", type="number"),
        FeatureColumn(name="c", type="category"),
        FeatureColumn(name="d", type="number"),
    ),
)
PLAN = FeaturePlan(
    layout=LAYOUT,
    features=(
        Feature(name="a", type="number", mean=1.0, std=0.5, median=1.0),
        Feature(name="c", type="category", levels=("x", "y")),
        Feature(name="d", type="number", mean=2.0, std=0.5, median=2.0),
    ),
)
LINEAGE = Lineage(made_at="2026-01-01T00:00:00+00:00", spec_digest="s", code_digest="c")


def make_file(part: str = "train", path: str = "train/part-0.parquet") -> DataFile:
    return DataFile.model_validate(
        {
            "part": part,
            "path": path,
            "rows": 10,
            "size_bytes": 100,
            "sha256": part * 3,
            "row_groups": (6, 4),
        }
    )


def make_manifest(name: str = "flights", key: str = "k1") -> DatasetManifest:
    return DatasetManifest(
        name=name,
        number=0,
        key=key,
        folder=f"datasets/{name}/data/0123",
        task="binary",
        label="late",
        key_columns=("id",),
        time_column=None,
        columns=(Column(name="id", type="int64"), Column(name="late", type="float64")),
        files=(make_file("train"), make_file("test", "test/part-0.parquet")),
        rows={"train": 10, "test": 10},
        codec="zstd",
        plan=PLAN,
        summaries={},
        class_rows={"train": {"0": 5, "1": 5}},
        ledger=RowLedger(sources={"t": 20}, stages=(Stage(name="read", rows_in=20, rows_out=20),)),
        proof=SplitProof(keys=20, repeated_keys=0),
        sources=(SourceContract(source="t", columns=(Column(name="id", type="bigint"),)),),
        lineage=LINEAGE,
    )


def make_bundle(name: str = "flights", key: str = "k1") -> ModelBundle:
    return ModelBundle(
        name=name,
        number=0,
        key=key,
        folder=f"models/{name}/data/0123",
        task="binary",
        trainer="xgboost",
        model_file="model.ubj",
        files=(
            BundleFile(path="model.ubj", size_bytes=3, sha256=key),
            BundleFile(path="report.html", size_bytes=3, sha256="r"),
        ),
        plan=PLAN,
        signature=Signature(inputs=LAYOUT.inputs, outputs=(Column(name="score", type="float64"),)),
        threshold=0.5,
        rounds=3,
        metric="auc",
        train_metrics={"train": 0.9, "valid": 0.8},
        golden=GoldenRows(
            rows=({"a": 1, "c": "x"}, {"a": None, "c": None}), scores=((0.5,), (0.1,))
        ),
        params={"max_depth": 3, "learning_rate": 0.1},
        dataset="flights@1",
        dataset_digest="d",
        lineage=LINEAGE,
    )


def make_evaluation(report: EvalReport, key: str = "e1") -> Evaluation:
    return Evaluation(
        model="flights@1",
        model_digest="m",
        dataset="flights@1",
        dataset_digest="d",
        opening=1,
        report=report,
        key=key,
        made_at="2026-01-01T00:00:00+00:00",
        is_test_new=True,
    )
