"""Evidence: once per model and data, recorded before a row is read, equal to the formulas."""

from __future__ import annotations

import numpy as np
import pytest

from arclight.errors import IntegrityError, RefusedError, SpecError
from arclight.metrics import measure
from arclight.progress import silent
from ray_apps.evaluate import evaluate_model
from ray_apps.predictor import load_predictor
from tests.ray_apps.make_dataset import CLASSES, make_dataset, one_batch


def evaluate(made, bundle, segments=(), manifest=None):
    return evaluate_model(
        made.catalog,
        bundle,
        manifest or made.manifest,
        segments=segments,
        run="run-1",
        tick=silent,
    )


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_report_is_that_of_the_test_rows(own, task, name):
    made, bundle = own(task, name)
    found = evaluate(made, bundle)
    raw = made.raw["test"]
    scores = load_predictor(made.catalog, bundle, threads=1).predict(one_batch(raw)).scores
    label = raw["label"].to_pylist()
    label = [CLASSES.index(x) for x in label] if task == "multiclass" else label
    wanted = measure(task, bundle.metric, np.array(label), scores)
    report = found.report
    assert report.figure(bundle.metric).value == pytest.approx(wanted, abs=1e-9)
    assert (report.rows, report.split, report.model) == (600, "test", bundle.ref)
    assert report.threshold == bundle.threshold
    assert found.model_digest == bundle.model_digest


def test_the_same_evaluation_opens_the_split_once(own):
    made, bundle = own("binary", "lightgbm")
    first = evaluate(made, bundle, ("color",))
    assert evaluate(made, bundle, ("color",)) == first
    openings = list(made.catalog.openings(made.manifest))
    assert [(o.number, o.model, o.run) for o in openings] == [(1, bundle.ref, "run-1")]
    evaluate(made, bundle)  # other segments are another look
    assert len(list(made.catalog.openings(made.manifest))) == 2


def test_segments_come_from_carried_columns_and_categories(own):
    made, bundle = own("binary", "lightgbm")
    report = evaluate(made, bundle, ("shop", "color")).report
    rows = {(s.column, s.level): s.rows for s in report.segments}
    shops = made.raw["test"]["shop"].to_pylist()
    assert {level for column, level in rows if column == "shop"} == set("12345")
    assert rows["shop", "3"] == shops.count(3)
    assert rows["color", "null"] == made.raw["test"]["color"].null_count


@pytest.mark.parametrize("segment", ["nope", "hour", "label"])
def test_other_segments_are_refused_and_open_nothing(own, segment):
    made, bundle = own("binary", "lightgbm")
    with pytest.raises(SpecError, match=f"evaluate.segments: '{segment}' must be a key, time"):
        evaluate(made, bundle, (segment,))
    assert list(made.catalog.openings(made.manifest)) == []


def test_a_model_that_is_not_what_was_published_opens_nothing(own):
    made, bundle = own("binary", "lightgbm")
    path = made.catalog.folder(bundle) / bundle.model_file
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(IntegrityError, match="as published"):
        evaluate(made, bundle)
    assert list(made.catalog.openings(made.manifest)) == []


def test_a_dataset_of_other_features_is_refused(own, shared):
    made, bundle = own("binary", "lightgbm")
    other = shared("multiclass").manifest
    with pytest.raises(RefusedError, match="must be those of model"):
        evaluate(made, bundle, manifest=other)


@pytest.mark.parametrize(("task", "other"), [("regression", "binary"), ("binary", "regression")])
def test_a_label_of_another_task_is_refused_and_opens_nothing(own, task, other):
    made, bundle = own(task, "lightgbm")
    manifest = make_dataset(made.catalog.store.root, task=other, rows=(60, 20, 20)).manifest
    with pytest.raises(RefusedError, match=f"model '{bundle.ref}', {task}, but is of {other};"):
        evaluate(made, bundle, manifest=manifest)
    assert list(made.catalog.openings(manifest)) == []


def test_another_label_of_the_same_task_is_refused_and_opens_nothing(own):
    """Its figures would be published as the model's."""
    made, bundle = own("binary", "lightgbm")
    columns = tuple(
        c.model_copy(update={"name": "other"}) if c.name == "label" else c
        for c in made.manifest.columns
    )
    other = made.manifest.model_copy(update={"label": "other", "columns": columns, "name": "also"})
    with pytest.raises(RefusedError, match="predicts, 'label', but is 'other'; if the two are"):
        evaluate(made, bundle, manifest=other)
    assert list(made.catalog.openings(other)) == []


def test_it_says_whether_the_test_rows_are_shown_to_be_new_to_the_model(own):
    made, bundle = own("binary", "lightgbm")
    first = evaluate(made, bundle)
    assert (first.is_test_new, first.test_rows_seen, first.doubt) == (True, 0, "")
    other = make_dataset(made.catalog.store.root, rows=(60, 20, 20), seed=3).manifest
    found = evaluate(made, bundle, manifest=other)
    assert (found.is_test_new, found.test_rows_seen) == (False, 20)
    assert found.doubt == (
        f"20 of the 20 test rows of {other.ref} are among those that {bundle.ref} learned from or "
        "was chosen by"
    )
