"""The golden rows of a model: raw rows, and the scores that whoever loads it must give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from arclight.bundle import GoldenRows
from arclight.features import FeatureBuilder
from arclight.plan import Encoder
from ray_apps.rows import conform, from_json_rows, to_json_rows, with_json
from ray_apps.shards import open_split

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.manifest import DatasetManifest
    from ray_apps.trainers import Model

GOLDEN_ROWS = 64


def golden_rows(home: Path, manifest: DatasetManifest, model: Model) -> GoldenRows:
    """Return up to 64 raw rows of the dataset's sample and the scores the model gives them.

    The rows make the way that requests make: to JSON and back, then the builder and the encoder.
    Rows that no request can hold are not among them.
    """
    layout = manifest.plan.layout
    batches = list(open_split(home, manifest, "sample"))
    if not batches:
        return GoldenRows(rows=(), scores=())
    sample = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()[0]
    raw = conform(with_json(sample), layout.input_schema, where=f"sample of {manifest.ref}")
    rejected = FeatureBuilder(layout).build(raw).rejected
    bad = np.zeros(raw.num_rows, dtype=np.bool_)
    for mask in rejected.values():
        bad |= mask
    good = np.flatnonzero(~bad)
    places = good[np.linspace(0, len(good) - 1, min(GOLDEN_ROWS, len(good))).astype(np.int64)]
    rows = to_json_rows(raw.take(pa.array(places)))
    built = FeatureBuilder(layout).build(from_json_rows(rows, layout.inputs))
    scores = model.predict(Encoder(manifest.plan).matrix(built.columns))
    lines = scores.reshape(len(rows), -1).tolist()
    return GoldenRows(rows=tuple(rows), scores=tuple(tuple(line) for line in lines))
