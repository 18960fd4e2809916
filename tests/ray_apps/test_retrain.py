"""A record tells how its model was made: trained again from it, the bytes are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from arclight.bundle import Resumed
from arclight.errors import IntegrityError, RefusedError, SpecError
from arclight.lineage import processor_name
from arclight.progress import silent
from ray_apps.retrain import RetrainReport, _changed, retrain_model
from ray_apps.train import train_model
from ray_apps.trainers import xgb_bins
from ray_apps.trainers.xgb import XgbTrainer
from tests.ray_apps.conftest import ONE_CORE, train_here
from tests.ray_apps.make_dataset import make_dataset, make_spec


def again(made, bundle, folder):
    return retrain_model(made.catalog, bundle, folder=folder, tick=silent)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "torch"])
def test_a_record_gives_the_same_bytes_again_and_publishes_nothing(trained, tmp_path, name):
    made, bundle = trained("binary", name)
    before = sorted(made.catalog.store.root.rglob("*"))
    report = again(made, bundle, tmp_path)
    assert (report.ok, report.same_bytes, report.changed) == (True, True, ())
    assert report.found == bundle.train_metrics
    assert sorted(made.catalog.store.root.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_folds_are_trained_again_too_and_count(tmp_path):
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    run = tmp_path / "run"
    run.mkdir()
    bundle = train_here(made, make_spec(trainer="lightgbm", folds=3, rounds=5), run)
    before = sorted(made.catalog.store.root.rglob("*"))
    report = again(made, bundle, run)
    assert (report.ok, report.same_bytes, report.changed) == (True, True, ())
    assert {"fold 1", "fold 2", "fold 3"} < report.found.keys()
    assert sorted(made.catalog.store.root.rglob("*")) == before
    folds = tuple(f.model_copy(update={"value": 0.1}) for f in bundle.cross_validation.folds)
    told = bundle.cross_validation.model_copy(update={"folds": folds})
    other = bundle.model_copy(update={"cross_validation": told})
    report = again(made, other, run)
    assert (report.ok, report.same_bytes) == (False, True)


def test_parameters_of_every_section_are_kept(tmp_path):
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    section = {
        "params": {"max_depth": 3, "subsample": 0.7, "learning_rate": 0.2},
        "imbalance": "weight",
        "metric": "log_loss",
        "early_stopping": 3,
        "seed": 11,
    }
    bundle = train_model(
        made.catalog,
        made.manifest,
        make_spec(**section),
        profile=ONE_CORE.model_copy(update={"cores": 2}),
        run_folder=tmp_path,
        tick=silent,
    )
    assert bundle.settings.threads == 2
    assert again(made, bundle, tmp_path).same_bytes


@pytest.mark.parametrize("wrong", [{"seed": 8}, {"rounds": 5}, {"params": {"max_depth": 2}}])
def test_a_record_that_tells_something_else_is_seen(trained, tmp_path, wrong):
    made, bundle = trained("binary", "xgboost")
    settings = bundle.settings.model_copy(update=wrong)
    params = {"params": {"subsample": 0.5}} if "seed" in wrong else {}
    settings = settings.model_copy(update=params)
    report = again(made, bundle.model_copy(update={"settings": settings}), tmp_path)
    assert not report.same_bytes
    assert not report.ok


def test_where_bytes_need_not_be_the_same_the_metric_must_be(trained, tmp_path):
    made, bundle = trained("binary", "lightgbm")
    went_on = (Resumed(rounds=3, workers=1, exact=False),)
    libraries = {**bundle.lineage.libraries, "lightgbm": "4.0.0"}
    older = bundle.lineage.model_copy(update={"libraries": libraries, "code_digest": "x"})
    other = bundle.model_copy(update={"resumed": went_on, "lineage": older})
    report = again(made, other, tmp_path)
    assert report.ok
    assert len(report.changed) == 3
    assert any("lightgbm 4.0.0, now" in reason for reason in report.changed)
    off = {"train": bundle.train_metrics["train"], "valid": bundle.train_metrics["valid"] - 0.002}
    assert not again(made, other.model_copy(update={"train_metrics": off}), tmp_path).ok


@pytest.mark.parametrize(
    ("metric", "value", "now", "ok"),
    [
        ("rmse", 51234.5, 51234.6, True),
        ("rmse", 1e-4, 9e-4, False),
        ("r2", 0.9, 0.9005, True),
        ("auc", 0.9, 0.902, False),
    ],
)
def test_near_is_by_size_for_errors_in_the_label_s_unit(metric, value, now, ok):
    report = RetrainReport(
        model="demo@1",
        metric=metric,
        same_bytes=False,
        changed=("other",),
        recorded={"valid": value},
        found={"valid": now},
    )
    assert report.ok == ok


def test_a_record_that_asks_for_what_no_spec_may_is_refused(trained, tmp_path):
    made, bundle = trained("binary", "lightgbm")
    params = {"forcedsplits_filename": "/nowhere.json"}
    settings = bundle.settings.model_copy(update={"params": params})
    with pytest.raises(SpecError, match="must not be set"):
        again(made, bundle.model_copy(update={"settings": settings}), tmp_path)


def test_a_record_of_an_older_release_and_another_dataset_are_said(trained, tmp_path):
    made, bundle = trained("binary", "lightgbm")
    old = bundle.settings.model_copy(update={"params": None})
    for settings in (None, old):
        with pytest.raises(RefusedError, match="an older release made it"):
            again(made, bundle.model_copy(update={"settings": settings}), tmp_path)
    with pytest.raises(
        IntegrityError, match=rf"must be the one that '{bundle.ref}' was trained on"
    ):
        again(made, bundle.model_copy(update={"dataset_digest": "0"}), tmp_path)


def test_a_record_whose_digest_is_of_the_quarantine_too_is_trained_again(own, tmp_path):
    """So older releases wrote it; the data are the same."""
    made, bundle = own("binary", "lightgbm")
    record = made.catalog.store.path("datasets", "demo", "versions", "1.json")
    (sample,) = made.manifest.files_of("sample")
    bad = sample.model_copy(update={"part": "quarantine"})
    manifest = made.manifest.model_copy(update={"files": (*made.manifest.files, bad)})
    record.write_text(manifest.to_json())
    old = bundle.model_copy(update={"dataset_digest": manifest._digest(list(manifest.files))})
    assert old.dataset_digest != bundle.dataset_digest == manifest.content_digest
    report = again(made, old, tmp_path)
    assert (report.ok, report.same_bytes, report.changed) == (True, True, ())


def test_a_model_of_bins_on_disk_is_the_same_and_leaves_none(tmp_path, monkeypatch):
    real, there = xgb_bins.xgb.ExtMemQuantileDMatrix, []

    def on_disk(parts, **options):
        there.append(Path(parts.cache_prefix))
        return real(parts, **options)

    monkeypatch.setattr(xgb_bins.xgb, "ExtMemQuantileDMatrix", on_disk)
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    run = tmp_path / "run"
    run.mkdir()
    spec = make_spec(bins="disk", rounds=5, params={"subsample": 0.7}, folds=2)
    bundle = train_here(made, spec, run)
    assert bundle.settings.bins == "disk"
    assert len(there) == 2 * 3  # train and valid, of the model and of two folds
    assert all(path.is_relative_to(run) for path in there)
    assert not [path for path in run.rglob("*") if path.is_file()]
    report = again(made, bundle, run)
    assert (report.ok, report.same_bytes, report.changed) == (True, True, ())
    settings = bundle.settings.model_copy(update={"bins": None})
    assert again(made, bundle.model_copy(update={"settings": settings}), run).same_bytes


def test_what_a_gpu_trained_is_not_trained_again_on_cores(trained, tmp_path, monkeypatch):
    made, bundle = trained("binary", "xgboost")
    settings = bundle.settings.model_copy(update={"device": "cuda"})
    other = bundle.model_copy(update={"settings": settings})
    assert "a GPU adds up in an order of its own" in _changed(other, processor_name())
    assert not _changed(bundle, processor_name())
    assert "processor" in _changed(bundle, "another one")[0]
    with pytest.raises(RefusedError, match=r"was trained on a GPU .* built for cores"):
        again(made, other, tmp_path)
    monkeypatch.setattr(XgbTrainer, "why_no_gpu", lambda _self: None)
    with pytest.raises(RefusedError, match=r"was trained on a GPU .* none is seen here"):
        again(made, other, tmp_path)
