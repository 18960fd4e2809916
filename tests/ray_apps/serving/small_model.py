"""A small model that needs no training library, and an application around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost as xgb

from arclight.bundle import BundleFile, GoldenRows, ModelBundle, Signature
from arclight.features import FeatureBuilder, FeatureColumn, FeatureLayout
from arclight.lineage import Lineage
from arclight.plan import Encoder, Feature, FeaturePlan
from arclight.schema import ARROW_TYPES, Column
from arclight.store import sha256_file
from ray_apps.rows import from_json_rows
from ray_apps.serving.access import Access, Limits
from ray_apps.serving.app import App
from ray_apps.serving.endpoint import Endpoint
from ray_apps.trainers import load_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arclight.catalog import Catalog

COLUMNS = tuple(
    Column(name=f"a_{kind}", type=kind)
    for kind in ("bool", "int8", "int64", "float32", "float64", "string", "date", "timestamp")
)
ROW: dict[str, object] = {
    "a_bool": True,
    "a_int8": -128,
    "a_int64": 2**63 - 1,
    "a_float32": 1.5,
    "a_float64": 0.25,
    "a_string": "JFK: é",
    "a_date": "2013-11-01",
    "a_timestamp": "2013-11-01T06:00:00+01:00",
}


def publish_small_model(catalog: Catalog, name: str = "delay") -> ModelBundle:
    """Train a real model of two features, `a_float64` and `a_string`, and publish it."""
    layout = FeatureLayout(
        inputs=COLUMNS,
        features=(
            FeatureColumn(name="a_float64", type="number"),
            FeatureColumn(name="a_string", type="category"),
        ),
    )
    plan = FeaturePlan(
        layout=layout,
        features=(
            Feature(name="a_float64", type="number", std=1.0),
            Feature(name="a_string", type="category", levels=("EWR", "JFK")),
        ),
    )
    dice = np.random.default_rng(7)
    matrix = np.stack([dice.normal(size=500), dice.integers(0, 3, 500)], axis=1).astype("f4")
    label = (matrix[:, 0] + (matrix[:, 1] == 1) > 0).astype("f4")
    data = xgb.DMatrix(matrix, label, feature_types=["q", "c"], enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 5)
    folder = catalog.store.stage("models", name)
    path = folder / "model.ubj"
    booster.save_model(path)
    rows = [
        {**ROW, "a_string": level, "a_float64": x} for level in ("JFK", "LGA") for x in (0.5, None)
    ]
    encoded = Encoder(plan).matrix(
        FeatureBuilder(layout).build(from_json_rows(rows, COLUMNS)).columns
    )
    scores = load_trainer("xgboost").load(path, threads=1).predict(encoded)
    file = BundleFile(path="model.ubj", size_bytes=path.stat().st_size, sha256=sha256_file(path))
    draft = make_bundle().model_copy(
        update={
            "name": name,
            "folder": str(folder.relative_to(catalog.store.root)),
            "files": (file,),
            "plan": plan,
            "rounds": 5,
            "golden": GoldenRows(rows=tuple(rows), scores=tuple((float(s),) for s in scores)),
        }
    )
    return catalog.publish_model(draft)


def make_bundle(task: str = "binary", columns: tuple[Column, ...] = COLUMNS) -> ModelBundle:
    """A bundle as a record only; nothing is trained."""
    layout = FeatureLayout(
        inputs=columns, features=(FeatureColumn(name="a_float64", type="number"),)
    )
    classes = ("late", "never", "on-time") if task == "multiclass" else ()
    plan = FeaturePlan(
        layout=layout,
        features=(Feature(name="a_float64", type="number", mean=0.5, std=0.5),),
        classes=classes,
    )
    return ModelBundle(
        name="delay",
        number=3,
        key="k",
        folder="models/delay/data/x",
        task=task,
        trainer="xgboost",
        model_file="model.ubj",
        files=(),
        plan=plan,
        signature=Signature(inputs=columns, outputs=(Column(name="score", type="float64"),)),
        threshold=0.5 if task == "binary" else None,
        rounds=1,
        metric="auc",
        train_metrics={},
        golden=GoldenRows(rows=(dict(ROW),), scores=((0.25,),)),
        params={},
        dataset="flights@1",
        dataset_digest="d",
        lineage=Lineage(made_at="2026-01-01T00:00:00Z", spec_digest="s", code_digest="c"),
    )


@dataclass
class Found:
    """What the fake predictor answers."""

    scores: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float32]
    rejected: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


class FakeScorer:
    """The score is the column `a_float64`, 0 where it is null; `reject` and `spoil` are rows."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle
        self.input_schema = pa.schema([(c.name, ARROW_TYPES[c.type]) for c in COLUMNS])
        self.reject: dict[str, list[int]] = {}
        self.spoil: list[int] = []
        self.wait: Callable[[], None] | None = None

    def predict(self, raw: pa.RecordBatch) -> Found:
        if self.wait is not None:
            self.wait()
        matrix = raw.column("a_float64").cast("float32", safe=False).to_numpy(zero_copy_only=False)
        scores = raw.column("a_float64").fill_null(0.0).to_numpy(zero_copy_only=False).copy()
        scores[self.spoil] = np.nan
        if self.bundle.task == "multiclass":
            scores = np.stack([scores, 1 - scores, np.zeros_like(scores)], axis=1)
        masks = {
            reason: np.isin(np.arange(raw.num_rows), rows) for reason, rows in self.reject.items()
        }
        return Found(scores, matrix.reshape(-1, 1), masks)


def make_app(
    scorer: FakeScorer, *, access: Access | None = None, limits: Limits | None = None
) -> App:
    """An application that serves one model."""
    limits = limits or Limits()
    endpoint = Endpoint(scorer, max_rows=limits.rows)
    return App({"delay": endpoint}, access=access or Access(), limits=limits)


def client(app: App, **headers: str) -> httpx.AsyncClient:
    """A client that calls the application without a socket."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
        base_url="http://127.0.0.1:8000",
        headers=headers,
    )
