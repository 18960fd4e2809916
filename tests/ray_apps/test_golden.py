"""Golden rows make the way of requests, so that they are rows which a request can hold."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from arclight.features import Derived
from arclight.progress import silent
from arclight.schema import TIMESTAMP
from ray_apps.golden import golden_rows
from ray_apps.predictor import load_predictor
from ray_apps.rows import from_json_rows, to_json_rows, with_json
from ray_apps.verify import verify_model
from tests.ray_apps.conftest import train_here
from tests.ray_apps.make_dataset import ODD, make_dataset, make_spec

LATE, EARLY = 253_402_300_800_000_000, -62_135_596_800_000_001  # a microsecond past either end
SMALL = (400, 100, 50)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([LATE - 1, LATE, None, EARLY, EARLY + 1], TIMESTAMP),
        pa.array([2_932_896, 2_932_897, None, -719_163, -719_162], pa.date32()),
        pa.array([1e308, np.inf, None, -np.inf, np.nan]),
        pa.array(np.array([1, np.inf, np.nan, -np.inf, 0], np.float32)),
        pa.array([b"a", b"\xff", None, b"\xc3", b"\xc3\xa4"]).view(pa.string()),
    ],
    ids=str,
)
def test_rows_without_a_json_form_are_left_out(values):
    rows = pa.record_batch({"n": pa.array(range(5)), "v": values})
    kept = with_json(rows)
    assert kept["n"].to_pylist() == [0, 2, 4]
    assert [row["n"] for row in to_json_rows(kept)] == [0, 2, 4]
    coded = rows.set_column(1, "v", values.dictionary_encode())
    assert with_json(coded)["n"].to_pylist() == [0, 2, 4]


def test_a_time_that_python_has_not_ends_no_training_and_no_verification(tmp_path):
    late = pa.array([LATE], TIMESTAMP)
    made = make_dataset(tmp_path / "store", rows=SMALL, odd={"at": late})
    bundle = train_here(made, make_spec(trainer="lightgbm", rounds=3), tmp_path)
    assert len(bundle.golden.rows) == 64
    predictor = load_predictor(made.catalog, bundle, threads=1)

    def answer(rows):
        raw = from_json_rows(rows, bundle.signature.inputs)
        return predictor.predict(raw).scores.tolist()

    report = verify_model(made.catalog, bundle, endpoint=answer, tick=silent)
    assert report.ok
    assert {check.rows for check in report.checks} == {199}


def test_an_infinite_value_behind_a_derived_feature_is_no_golden_row(tmp_path):
    """The feature is finite, so that the row was trained on; JSON has no infinity."""
    made = make_dataset(tmp_path / "store", rows=SMALL, odd={ODD: pa.array([np.inf, 1.5])})
    layout = made.manifest.plan.layout
    capped = Derived(name=ODD, expression=f"least(`{ODD}`, 100D)")
    layout = layout.model_copy(update={"derive": (*layout.derive, capped)})
    plan = made.manifest.plan.model_copy(update={"layout": layout})
    manifest = made.manifest.model_copy(update={"plan": plan})
    model = SimpleNamespace(predict=lambda matrix: matrix[:, 3])
    found = golden_rows(made.catalog.folder(made.manifest), manifest, model)
    assert len(found.rows) == len(found.scores) == 64
    assert found.rows[0][ODD] == 1.5
