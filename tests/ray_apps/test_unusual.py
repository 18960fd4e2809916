"""S4: what training did not see is counted, feature by feature."""

from __future__ import annotations

import numpy as np
import pytest

from arclight.features import FLOAT32_MAX, FeatureLayout
from arclight.plan import Feature, FeaturePlan
from ray_apps.unusual import FAR_STD, TOLD, Watch, add_up, told

NAN = float("nan")
PLAN = FeaturePlan(
    layout=FeatureLayout(inputs=(), features=()),
    features=(
        Feature(name="x", type="number", mean=100.0, std=2.0),
        Feature(name="c", type="category", levels=("a", "b")),
        Feature(name="same", type="number", mean=0.1, std=0.0),
        Feature(name="wide", type="number", mean=0.0, std=1e38),
    ),
)
USUAL = (100.0, 0.0, 0.1, 0.0)


def row(**values: float) -> tuple[float, ...]:
    return tuple(values.get(f.name, u) for f, u in zip(PLAN.features, USUAL, strict=True))


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([row()], {}),
        ([row(x=100 + FAR_STD * 2), row(x=100 - FAR_STD * 2), row(c=1.0)], {}),
        ([row(x=100.1 + FAR_STD * 2)], {"x": {"far": 1}}),
        ([row(x=99.9 - FAR_STD * 2), row(), row(x=FLOAT32_MAX)], {"x": {"far": 2}}),
        ([row(c=2.0), row(c=2.0), row()], {"c": {"unseen": 2}}),
        ([row(x=NAN), row(c=NAN), row(x=0.0)], {"x": {"missing": 1, "far": 1},
                                               "c": {"missing": 1}}),
        ([row(x=2.0)], {"x": {"far": 1}}),
        ([row(same=0.11)], {"same": {"far": 1}}),
        ([row(wide=FLOAT32_MAX), row(wide=-FLOAT32_MAX)], {}),
    ],
)  # fmt: skip
def test_counts(rows, found):
    assert Watch(PLAN).count(np.array(rows, dtype=np.float32)) == found


@pytest.mark.parametrize("drift", [1 - 1e-12, 1, 1 + 1e-12])
def test_a_column_that_was_constant_knows_its_value(drift):
    """A mean of equal values is summed, so it may be off in its last digits."""
    value = np.float32(0.1)
    same = Feature(name="same", type="number", mean=float(value) * drift, std=0.0)
    plan = FeaturePlan(layout=PLAN.layout, features=(same,))
    assert Watch(plan).count(np.array([[value]])) == {}
    assert Watch(plan).count(np.array([[np.nextafter(value, np.float32(1))]])) != {}


def test_counts_of_parts_add_up_and_are_told_with_the_most_frequent_first():
    whole = {}
    add_up(whole, {"x": {"far": 1, "missing": 7}})
    add_up(whole, {"x": {"far": 1200}, "c": {"unseen": 3}})
    assert whole == {"x": {"far": 1201, "missing": 7}, "c": {"unseen": 3}}
    assert told(whole) == "x far in 1,201 rows; c unseen in 3 rows"
    assert told({"x": {"missing": 7}}) == ""
    many = {f"x{i}": {"far": i + 1} for i in range(TOLD + 2)}
    assert told(many).endswith("; x2 far in 3 rows and 2 more")


def test_the_training_rows_of_a_model_are_usual(trained):
    made, bundle = trained("binary", "xgboost")
    from ray_apps.predictor import load_predictor

    raw = made.raw["train"].combine_chunks().to_batches()[0]
    matrix = load_predictor(made.catalog, bundle, threads=1).predict(raw).matrix
    found = Watch(bundle.plan).count(matrix)
    assert not any("far" in counts for counts in found.values())
    # "grey" is too rare to be kept, and the builder of the rows puts nulls in some columns
    assert {name for name, counts in found.items() if "unseen" in counts} == {"color"}
    column = made.raw["train"].column("color")
    assert found["color"]["missing"] == column.null_count
    assert found["color"]["unseen"] == column.to_pylist().count("grey")
