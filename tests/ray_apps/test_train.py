"""One training: the bundle it publishes, the same answer to the same command, what is refused."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from arclight.errors import ArclightError, DataError, DivergedError, RefusedError, SpecError
from arclight.metrics import measure
from arclight.thresholds import best_f1_threshold
from arclight.train_section import Costs
from ray_apps.predictor import check_bundle_files, load_predictor
from ray_apps.shards import labels_of, open_split, stored_features
from ray_apps.train import model_key
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.make_dataset import EMOJI, ODD, SPACED, make_dataset, make_spec

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("xgboost", "lightgbm", "torch")


def valid_rows(made):
    columns = tuple(dict.fromkeys((*made.manifest.plan.names, "label")))
    folder = made.catalog.folder(made.manifest)
    return list(open_split(folder, made.manifest, "valid", columns=columns))


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_bundle_says_what_the_model_is(trained, task, name):
    made, bundle = trained(task, name)
    assert (bundle.ref.split("@")[0], bundle.task, bundle.trainer) == ("demo", task, name)
    assert bundle.plan == made.manifest.plan
    assert (bundle.dataset, bundle.dataset_digest) == (
        made.manifest.ref,
        made.manifest.content_digest,
    )
    names = [file.path for file in bundle.files]
    assert sorted(names) == sorted([bundle.model_file, "plan.json"])
    assert [c.name for c in bundle.signature.inputs] == [
        "at", "shop", "color", "is_new", ODD, SPACED, EMOJI,
    ]  # fmt: skip
    outputs = [c.name for c in bundle.signature.outputs]
    if task == "multiclass":
        assert outputs == ["score_high", "score_low", "score_mid", "label"]
    else:
        assert outputs == (["score", "label"] if task == "binary" else ["score"])
    assert 0 < bundle.rounds <= 30
    assert set(bundle.train_metrics) == {"train", "valid"}
    assert bundle.settings is not None
    assert bundle.settings.imbalance == "none"
    assert bundle.settings.rounds >= bundle.rounds
    assert len(bundle.importance) == len(bundle.plan.features)
    assert sum(bundle.importance) == pytest.approx(1)
    assert bundle.lineage.libraries["pyarrow"]
    assert len(bundle.golden.rows) == len(bundle.golden.scores) == 64
    assert not (made.catalog.folder(bundle).stat().st_mode & 0o077)


@pytest.mark.parametrize("name", LIBRARIES)
def test_figures_and_threshold_are_those_of_the_valid_split(trained, name):
    made, bundle = trained("binary", name)
    predictor = load_predictor(made.catalog, bundle, threads=1)
    batches = valid_rows(made)
    label = np.concatenate([labels_of(b, made.manifest) for b in batches])
    scores = np.concatenate(
        [predictor.predict_features(stored_features(b, bundle.plan)) for b in batches]
    )
    assert bundle.threshold == best_f1_threshold(label, scores)
    assert bundle.train_metrics["valid"] == measure("binary", "auc", label, scores)
    assert bundle.train_metrics["valid"] > 0.9


@pytest.mark.parametrize(
    ("trouble", "told"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.EIO, "EIO"), ArclightError)],
)
def test_what_comes_when_the_record_is_there_takes_no_file_of_the_model(
    tmp_path, monkeypatch, trouble, told
):
    made, spec = make_dataset(tmp_path / "store", rows=(400, 100, 100)), make_spec()
    real = os.link

    def link(source, target):
        real(source, target)
        raise trouble

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(told):
        train(made, spec, tmp_path)
    monkeypatch.undo()
    known = made.catalog.model("demo@1")
    check_bundle_files(made.catalog.folder(known), known)
    assert train(made, spec, tmp_path) == known


def test_the_same_command_gives_the_published_model(own, tmp_path):
    made, bundle = own("binary", "lightgbm")
    before = list(made.catalog.models("demo"))
    again = train(made, make_spec(trainer="lightgbm"), tmp_path)
    assert again == bundle
    assert list(made.catalog.models("demo")) == before
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("name", LIBRARIES)
def test_another_store_gives_the_same_model_digest(trained, tmp_path, name):
    _, bundle = trained("binary", name)
    made = make_dataset(tmp_path / "store")
    assert train(made, make_spec(trainer=name), tmp_path).model_digest == bundle.model_digest


def test_the_key_is_data_train_section_and_code_and_not_the_place(shared):
    made = shared("binary")
    key = model_key(made.manifest, make_spec())
    assert key == model_key(made.manifest, make_spec(workers=1))
    for changed in ({"seed": 8}, {"trainer": "lightgbm"}, {"params": {"max_depth": 3}}):
        assert model_key(made.manifest, make_spec(**changed)) != key
    other = shared("regression").manifest
    assert model_key(other, make_spec("regression")) != key


def test_progress_tells_the_rounds(shared, tmp_path):
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    seen = []
    bundle = train(
        made,
        make_spec(trainer="lightgbm", rounds=5, early_stopping=None),
        tmp_path,
        tick=lambda done, total, note: seen.append((done, total, note)),
    )
    assert seen[0] == (0, 5, "reading")
    assert [d for d, _, note in seen if note.startswith("valid auc")] == [1, 2, 3, 4, 5]
    assert bundle.rounds == 5


def test_T4_a_training_that_diverges_after_good_rounds_says_so(tmp_path):
    """It has the best of them; without early stopping it has none."""
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100))
    wild = {"trainer": "torch", "params": {"clip": 1e30}, "rounds": 9}
    wild["params_after"] = {3: {"learning_rate": 1e30}}
    said = []
    bundle = train(made, make_spec(**wild), tmp_path / "run", tell=said.append)
    assert 1 <= bundle.rounds <= 3
    told = r"training diverged in round [45]: the model is that of the best round before; lower"
    assert any(re.match(told, one) for one in said), said
    assert bundle.diverged in {4, 5}
    with pytest.raises(DivergedError, match="the training diverged"):
        train(made, make_spec(**wild, early_stopping=None), tmp_path / "run")
    assert list(made.catalog.models("demo")) == [bundle]


def test_T4_gains_past_the_largest_number_are_no_defect_of_ours(tmp_path):
    """The metric is still a number then, and there is no early stopping that would see it grow."""
    made = make_dataset(tmp_path / "store", task="regression", rows=(400, 100, 100))
    wild = {"trainer": "lightgbm", "params": {"learning_rate": 1e15}, "rounds": 5}
    spec = make_spec(task="regression", **wild, early_stopping=None)
    with pytest.raises(DivergedError, match="lower the learning rate, or divide a label"):
        train(made, spec, tmp_path / "run")
    assert list(made.catalog.models("demo")) == []


@pytest.mark.parametrize(
    ("train_section", "kind", "message"),
    [
        ({"workers": 9999}, RefusedError, "train.workers must be at most .*, got 9,999"),
        ({"params": {"max_depht": 3}}, SpecError, "max_depht"),
        ({"trainer": "torch", "params": {"max_depth": 3}}, SpecError, "has no 'max_depth'"),
    ],
)
def test_what_can_be_known_is_refused_before_anything_starts(
    shared, tmp_path, train_section, kind, message
):
    with pytest.raises(kind, match=message):
        train(shared("binary"), make_spec(seed=99, **train_section), tmp_path)
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_an_order_of_categories_is_refused_before_anything_starts(shared, tmp_path, name):
    """LightGBM ends its process over it, XGBoost trains a worse model."""
    made = shared("binary")
    plan = made.manifest.plan
    ways = [str(int(place in plan.categorical)) for place in range(len(plan.features))]
    params = {"monotone_constraints": f"({','.join(ways)})"}
    with pytest.raises(SpecError, match="must be 0 for a category"):
        train(made, make_spec(trainer=name, seed=99, params=params), tmp_path)
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize(("bins", "need"), [("memory", "29.8"), ("auto", "14.9")])
def test_more_rows_than_memory_are_refused_before_anything_is_read(shared, tmp_path, bins, need):
    """On a disk there is room for the bins, not for labels and gradients."""
    made = shared("binary")
    rows = {**made.manifest.rows, "train": 10**9}
    summaries = {
        "train": tuple(
            s.model_copy(update={"nulls": 0, "zeros": 0}) for s in made.manifest.summaries["train"]
        )
    }
    many = made.manifest.model_copy(update={"rows": rows, "summaries": summaries})
    with pytest.raises(RefusedError, match=rf"needs {need} GiB at least, and has 4\.0 GiB"):
        train(replace(made, manifest=many), make_spec(seed=98, bins=bins), tmp_path)
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("bad", [np.nan, 2.0, np.inf])
@pytest.mark.parametrize("name", LIBRARIES)
def test_E6_bad_labels_publish_nothing(tmp_path, name, bad):
    labels = np.resize([0.0, 1.0], 400)
    labels[17] = bad
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100), label={"train": _array(labels)})
    with pytest.raises(DataError, match="0 or 1, but 1 of 400 rows of the train split"):
        train(made, make_spec(trainer=name), tmp_path)
    assert list(made.catalog.models("demo")) == []
    assert list((tmp_path / "fit").iterdir()) == []


def _array(values):
    import pyarrow as pa

    return pa.array(values, from_pandas=False)


@pytest.mark.parametrize("size", [(0, 100), (400, 0)])
def test_PQ2_an_empty_split_is_refused(tmp_path, size):
    made = make_dataset(tmp_path / "store", rows=(*size, 50))
    with pytest.raises(DataError, match="must get at least one row of the"):
        train(made, make_spec(trainer="lightgbm"), tmp_path)


def test_the_threshold_follows_the_costs(shared, tmp_path):
    made = make_dataset(tmp_path / "store", rows=(800, 300, 50))
    found = {}
    for costs in (
        None,
        Costs(false_positive=1, false_negative=9),
        Costs(false_positive=9, false_negative=1),
    ):
        bundle = train(made, make_spec(trainer="lightgbm", rounds=10, costs=costs), tmp_path)
        found[costs and costs.false_positive] = bundle
    assert found[1].threshold < found[9].threshold
    assert len({bundle.threshold for bundle in found.values()}) == 3
    assert found[9].settings.costs == {"false_positive": 9, "false_negative": 1}
    assert len({bundle.files[0].sha256 for bundle in found.values()}) == 1
