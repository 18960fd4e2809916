"""Loading what was published and nothing else, and scoring by names, never by places."""

from __future__ import annotations

import pickle
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from arclight.catalog import Catalog
from arclight.errors import DataError, IntegrityError
from arclight.store import Store, sha256_file
from ray_apps import predictor as module
from ray_apps.first_load import load_in_child
from ray_apps.predictor import (
    TOLERANCE,
    Predictor,
    check_bundle_files,
    load_predictor,
    tolerance_of,
)
from tests.ray_apps.make_dataset import EMOJI, ODD, SPACED

LIBRARIES = ("xgboost", "lightgbm", "torch")


def raw_batch(made, split="test") -> pa.RecordBatch:
    return made.raw[split].combine_chunks().to_batches()[0]


def load(made, bundle) -> Predictor:
    return load_predictor(made.catalog, bundle, threads=1)


@pytest.fixture
def never_loaded():
    """Make every file a first load again."""
    module._LOADED_ONCE.clear()


def test_the_same_bytes_are_first_loaded_in_a_child_once(
    trained, tmp_path, monkeypatch, never_loaded
):
    children = []
    real = module.load_in_child
    monkeypatch.setattr(module, "load_in_child", lambda *a: children.append(a) or real(*a))
    made, bundle = trained("binary", "xgboost")
    load(made, bundle)
    shutil.copytree(made.catalog.store.root, tmp_path / "copy")
    load(replace(made, catalog=Catalog(Store(tmp_path / "copy"))), bundle)
    assert len(children) == 1
    load(*trained("binary", "lightgbm"))
    assert len(children) == 2


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_are_scored(trained, task, name):
    made, bundle = trained(task, name)
    found = load(made, bundle).predict(raw_batch(made))
    assert found.scores.shape == ((600, 3) if task == "multiclass" else (600,))
    assert found.scores.dtype == np.float64
    assert np.isfinite(found.scores).all()
    if task == "multiclass":
        assert np.allclose(found.scores.sum(axis=1), 1, atol=1e-5)
    assert not found.is_rejected.any()


@pytest.mark.parametrize("name", LIBRARIES)
def test_T6_XG1_LG2_columns_are_taken_by_name_in_any_order(trained, name):
    made, bundle = trained("binary", name)
    predictor = load(made, bundle)
    raw = raw_batch(made)
    shuffled = raw.select(list(reversed(raw.schema.names)))
    assert np.array_equal(predictor.predict(raw).scores, predictor.predict(shuffled).scores)


@pytest.mark.parametrize("name", LIBRARIES)
def test_T6_XG1_LG2_stored_features_are_taken_by_name_too(trained, name):
    made, bundle = trained("binary", name)
    predictor = load(made, bundle)
    built = predictor._builder.build(raw_batch(made)).columns
    turned = dict(reversed(built.items()))
    assert np.array_equal(predictor.predict_features(built), predictor.predict_features(turned))


@pytest.mark.parametrize("missing", ["color", ODD])
def test_T6_XG2_a_missing_column_is_refused(trained, missing):
    made, bundle = trained("binary", "xgboost")
    raw = raw_batch(made)
    with pytest.raises(KeyError, match=missing):
        load(made, bundle).predict(raw.drop_columns([missing]))


@pytest.mark.parametrize("name", LIBRARIES)
def test_unseen_levels_share_the_code_of_rare_ones(trained, name):
    made, bundle = trained("binary", name)
    predictor = load(made, bundle)
    raw = raw_batch(made).slice(0, 50)
    place = raw.schema.get_field_index("color")

    def scored(color: str) -> np.ndarray:
        colors = pa.array([color] * 50)
        return predictor.predict(raw.set_column(place, "color", colors)).scores

    assert "grey" not in bundle.plan.features[1].levels  # too rare in train to be kept
    assert np.array_equal(scored("grey"), scored("never seen 🙂"))
    assert not np.array_equal(scored("red"), scored("never seen 🙂"))


@pytest.mark.parametrize("name", LIBRARIES)
def test_an_infinite_number_is_rejected_with_its_reason(trained, name):
    made, bundle = trained("binary", name)
    raw = raw_batch(made).slice(0, 3)
    place = raw.schema.get_field_index(SPACED)
    values = pa.array([1.0, float("inf"), None])
    found = load(made, bundle).predict(raw.set_column(place, SPACED, values))
    assert list(found.rejected) == [f"infinite:{SPACED}"]
    assert found.is_rejected.tolist() == [False, True, False]
    assert np.isnan(found.scores).tolist() == [False, True, False]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_no_rows_give_no_scores(trained, task):
    made, bundle = trained(task, "xgboost")
    found = load(made, bundle).predict(raw_batch(made).slice(0, 0))
    assert found.scores.shape == ((0, 3) if task == "multiclass" else (0,))


class _NoNumbers:
    features, rounds = 8, 1

    def predict(self, matrix):
        return np.full(len(matrix), np.nan)


def test_S9_a_model_that_gives_no_number_is_an_error(trained):
    made, bundle = trained("binary", "xgboost")
    predictor = Predictor(bundle, _NoNumbers())
    with pytest.raises(DataError, match=r"but 600 of 600 are not; the model diverged"):
        predictor.predict(raw_batch(made))


# ------------------------------------------------------------------------------- loading


def model_path(made, bundle) -> Path:
    return made.catalog.folder(bundle) / bundle.model_file


def rerecord(made, bundle, **changes):
    """Return the record as somebody would edit it to match a file that was changed."""
    path = model_path(made, bundle)
    files = tuple(
        f.model_copy(update={"size_bytes": path.stat().st_size, "sha256": sha256_file(path)})
        if f.path == bundle.model_file
        else f
        for f in bundle.files
    )
    return bundle.model_copy(update={"files": files, **changes})


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("damage", [flip, lambda path: cut(path, 0.9), Path.unlink])
def test_a_damaged_file_is_refused_by_its_hash(own, name, damage):
    made, bundle = own("binary", name)
    damage(model_path(made, bundle))
    with pytest.raises(IntegrityError, match=r"as published|not there"):
        load(made, bundle)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("name", LIBRARIES)
def test_R3_LG3_XG13_a_cut_file_with_an_edited_record_dies_in_a_child(own, name, share):
    made, bundle = own("binary", name)
    cut(model_path(made, bundle), share)
    with pytest.raises(IntegrityError, match=r"process of its own|must have|golden rows"):
        load(made, rerecord(made, bundle))


def test_R3_LG3_some_cut_kills_the_child_and_the_parent_says_how(own):
    """At least one cut of the three ends the process by a signal; without a child, this one."""
    made, bundle = own("binary", "lightgbm")
    whole = model_path(made, bundle).read_bytes()
    messages = []
    for share in (0.35, 0.6, 0.9):
        model_path(made, bundle).write_bytes(whole)
        cut(model_path(made, bundle), share)
        with pytest.raises(IntegrityError) as caught:
            load(made, rerecord(made, bundle))
        messages.append(caught.value.message)
    assert any("was ended by SIG" in message for message in messages), messages


@pytest.mark.parametrize("name", LIBRARIES)
def test_another_model_with_an_edited_record_fails_the_golden_rows(own, trained, name):
    made, bundle = own("binary", name)
    _, other = trained("regression", name)
    foreign = trained("regression", name)[0].catalog.folder(other) / other.model_file
    model_path(made, bundle).write_bytes(foreign.read_bytes())
    with pytest.raises(IntegrityError, match="golden rows"):
        load(made, rerecord(made, bundle, rounds=other.rounds))


@pytest.mark.parametrize("name", LIBRARIES)
def test_rounds_and_features_must_be_those_recorded(own, name):
    made, bundle = own("binary", name)
    with pytest.raises(IntegrityError, match=r"8 features and 99 rounds as recorded, got 8 and"):
        load(made, bundle.model_copy(update={"rounds": 99}))


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", LIBRARIES)
def test_X3_a_pickle_under_a_models_name_is_not_opened(own, name, tmp_path):
    made, bundle = own("binary", name)
    canary = tmp_path / "canary"
    model_path(made, bundle).write_bytes(pickle.dumps(_Canary(canary)))
    with pytest.raises(IntegrityError, match="must begin like a"):
        load(made, rerecord(made, bundle))
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".pt", ".pt2", ".bin", ""])
def test_X3_other_formats_are_refused_by_name(own, suffix):
    made, bundle = own("binary", "lightgbm")
    path = made.catalog.folder(bundle) / f"extra{suffix}"
    path.write_bytes(b"PK\x03\x04" + struct.pack("<I", 7))
    extra = bundle.files[0].model_copy(
        update={"path": path.name, "size_bytes": 8, "sha256": sha256_file(path)}
    )
    edited = bundle.model_copy(update={"files": (*bundle.files, extra)})
    with pytest.raises(IntegrityError, match="pickle, joblib, torch"):
        check_bundle_files(made.catalog.folder(bundle), edited)


@pytest.mark.parametrize("is_folder", [False, True])
def test_X2_a_link_out_of_the_bundle_is_not_followed(own, tmp_path, monkeypatch, is_folder):
    """Even one to a whole model of the right bytes: what lies there can change after the check."""
    made, bundle = own("binary", "lightgbm")
    path, outside = model_path(made, bundle), tmp_path / "outside"
    if is_folder:
        outside.mkdir()
        path.rename(outside / path.name)
        (path.parent / "sub").symlink_to(outside)
        moved = bundle.files[0].model_copy(update={"path": f"sub/{path.name}"})
        edited = {"files": (moved, *bundle.files[1:]), "model_file": moved.path}
    else:
        path.rename(outside)
        path.symlink_to(outside)
        edited = {}
    monkeypatch.setattr(module, "check_file", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(IntegrityError, match="a link that leads out of it"):
        load(made, bundle.model_copy(update=edited))


def test_a_model_file_must_be_listed_and_of_its_library(own):
    made, bundle = own("binary", "lightgbm")
    folder = made.catalog.folder(bundle)
    with pytest.raises(IntegrityError, match="must list its model file"):
        check_bundle_files(folder, bundle.model_copy(update={"model_file": "other.txt"}))
    with pytest.raises(IntegrityError, match=r"must end in \.ubj for xgboost"):
        check_bundle_files(folder, bundle.model_copy(update={"trainer": "xgboost"}))


def test_the_first_load_is_done_once_a_process(trained, monkeypatch, never_loaded):
    made, bundle = trained("binary", "lightgbm")
    calls = []

    def counted(*args):
        calls.append(args)
        return load_in_child(*args)

    monkeypatch.setattr(module, "load_in_child", counted)
    for _ in range(3):
        load(made, bundle)
    assert len(calls) == 1


def test_odd_names_are_features_like_others(trained):
    made, bundle = trained("binary", "xgboost")
    predictor = load(made, bundle)
    raw = raw_batch(made)
    base = predictor.predict(raw).scores
    for name in (ODD, EMOJI):
        place = raw.schema.get_field_index(name)
        kind = raw.schema.field(name).type
        changed = raw.set_column(place, name, pa.nulls(raw.num_rows, kind))
        assert not np.array_equal(predictor.predict(changed).scores, base)


def test_scores_of_a_small_regression_are_told_apart(trained):
    _, bundle = trained("regression", "lightgbm")
    scores = np.array([1e-7, 3e-7])
    assert tolerance_of(bundle, scores) < 1e-12
    assert tolerance_of(bundle, scores * 1e12) == TOLERANCE  # of a large one no less than others
