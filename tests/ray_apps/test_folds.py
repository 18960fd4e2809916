"""Cross-validation beside a training: each fold's figure, and that it costs the model nothing."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from arclight.errors import DataError, SpecError
from arclight.folds import fold_rule
from arclight.metrics import measure_scores
from arclight.progress import silent
from arclight.spec import Etl, TimeSplit
from cluster.sizing import Crew
from ray_apps.fit import run_fit
from ray_apps.fit_files import REQUEST, job_of, read_outcome
from ray_apps.folds import deal
from ray_apps.gang import Alone
from ray_apps.shards import Shard, dense, read_shard
from ray_apps.train import fit_request, model_key
from ray_apps.trainers import load_trainer
from ray_apps.trainers.lgbm import LgbmTrainer
from ray_apps.trainers.torch_scores import gains
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.gang.test_mesh import gang_of
from tests.ray_apps.make_dataset import make_dataset, make_spec

LIBRARIES = ("xgboost", "lightgbm", "torch")
BY_TIME = Etl(
    key=("id",),
    time="at",
    label="label",
    split=TimeSplit(by="time", valid_from="2030-01-01", test_from="2030-02-01", gap="1d"),
)


@pytest.mark.parametrize("etl", [None, BY_TIME], ids=["by key", "by time"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_fold_is_judged_on_rows_it_has_not_seen(name, etl, tmp_path):
    made = make_dataset(tmp_path / "store", by_time=etl is not None)
    spec = make_spec(trainer=name, folds=3, rounds=20)
    spec = spec if etl is None else spec.model_copy(update={"etl": etl})
    bundle = train(made, spec, tmp_path)
    found = bundle.cross_validation
    assert found.rule.by == ("key" if etl is None else "time")
    home, manifest = made.catalog.folder(made.manifest), made.manifest
    rule = fold_rule(spec, manifest)
    assert found.rule == rule
    shard = read_shard(home, manifest, "train")
    whole, label = shard.matrix(), shard.label
    dealt = deal(shard, rule, Alone())
    request = fit_request(made.catalog, manifest, spec, Crew(1, 1))
    job = replace(job_of(request, manifest), early_stopping=None)
    trainer = load_trainer(name)
    for number, figure in enumerate(found.folds):
        folds = dealt.fold(number)
        judge = np.concatenate([fold.judge for fold in folds])
        learn = np.concatenate([fold.learn for fold in folds])
        assert (figure.learned, figure.judged) == (learn.sum(), judge.sum())
        held = _in_memory(shard.where([fold.learn for fold in folds]))
        assert np.array_equal(held.matrix(), whole[learn], equal_nan=True)
        data = trainer.prepare(held, _in_memory(shard), job, Alone())
        fitted = trainer.fit(data, job, Alone(), lambda h, _: len(h) < bundle.rounds)
        path = tmp_path / f"{number}{trainer.suffix}"
        path.write_bytes(fitted.model)
        scores = trainer.load(path, threads=1).predict(whole[judge])
        assert figure.value == pytest.approx(
            measure_scores(job.task, job.metric, label[judge], scores), abs=2e-5
        )
    assert np.mean(found.values) == pytest.approx(bundle.train_metrics["valid"], abs=0.05)


def test_the_model_is_the_one_without_folds(tmp_path, shared, trained):
    _, plain = trained("binary", "lightgbm")
    made = make_dataset(tmp_path / "store")
    bundle = train(made, make_spec(trainer="lightgbm", folds=2), tmp_path)
    assert bundle.model_digest == plain.model_digest
    assert plain.cross_validation is None
    assert "cross_validation" not in plain.to_json()


def test_folds_have_the_rounds_in_which_the_model_split_nothing(tmp_path):
    """They are none of LightGBM's file, and a fold has such rounds of its own."""
    made, seen = make_dataset(tmp_path / "store"), []
    params = {"feature_fraction": 0.1, "min_gain_to_split": 5.0}
    spec = make_spec(trainer="lightgbm", folds=2, rounds=20, early_stopping=None, params=params)
    bundle = train(made, spec, tmp_path, tick=lambda *said: seen.append(said))
    assert 0 < bundle.rounds < 20
    folds = [(done, total) for done, total, note in seen if note.startswith("fold")]
    assert folds == [(done, 40) for done in range(1, 41)]


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_two_workers_judge_the_folds_of_one(name, tmp_path):
    made = make_dataset(tmp_path / "store", by_time=True)
    spec = make_spec(trainer=name, folds=3, rounds=20, early_stopping=None)
    spec = spec.model_copy(update={"etl": BY_TIME})
    found = [_folds_of(made, spec, tmp_path / str(world), world) for world in (1, 2)]
    for one, two in zip(*(cross.folds for cross in found), strict=True):
        assert (one.learned, one.judged) == (two.learned, two.judged)
        assert two.value == pytest.approx(one.value, abs=0.02)


def _folds_of(made, spec, folder, world):
    folder.mkdir()
    request = fit_request(made.catalog, made.manifest, spec, Crew(world, 1))
    (folder / REQUEST).write_text(request.to_json())
    if world == 1:
        run_fit(folder, silent)
    else:
        gang_of(world, partial(run_fit, folder, silent), deadline_s=60)
    outcome = read_outcome(folder)
    return outcome.cross_validation


BAGS = {"bagging_fraction": 0.7, "bagging_freq": 7}


@pytest.mark.parametrize("params", [{}, BAGS], ids=["plain", "in the middle of a bag"])
def test_T9_a_killed_cross_validation_goes_on_with_the_fold_it_was_in(tmp_path, params):
    made = make_dataset(tmp_path / "store")
    spec = make_spec(trainer="lightgbm", folds=3, checkpoint_every="1h", params=params)
    wanted = train(make_dataset(tmp_path / "other"), spec, tmp_path).cross_validation
    notes = []

    def kill(_done, _total, note):
        if note.startswith("fold 2") and not notes:
            notes.append(note)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, spec, tmp_path, tick=kill)
    assert list(made.catalog.models("demo")) == []
    bundle = train(made, spec, tmp_path, tick=lambda *said: notes.append(said[2]))
    assert bundle.cross_validation == wanted
    assert [r.rounds for r in bundle.resumed] == [len(_rounds_of(bundle, spec))]
    assert not [note for note in notes[1:] if note.startswith(("fold 1", "valid"))]
    assert [note for note in notes[1:] if note.startswith("fold 3")]


def _rounds_of(bundle, spec):
    """All rounds that were trained: those kept, and those that early stopping waited."""
    return range(min(spec.train.rounds, bundle.rounds + spec.train.early_stopping))


def test_more_folds_than_a_class_has_rows_are_refused_by_name(tmp_path):
    labels = np.zeros(400)
    labels[:1] = 1.0
    made = make_dataset(tmp_path / "store", rows=(400, 100, 100), label={"train": labels})
    with pytest.raises(DataError, match=r"fold \d+ of 20 \(train.folds\): the train split must"):
        train(made, make_spec(trainer="lightgbm", folds=20, metric="log_loss"), tmp_path)
    assert list(made.catalog.models("demo")) == []


def test_a_fold_without_rows_is_refused_by_name(tmp_path):
    made = make_dataset(tmp_path / "store", rows=(12, 100, 100))
    spec = make_spec(trainer="lightgbm", folds=20, metric="log_loss")
    notes = []
    told = r"fold \d+ of 20 .*must be rows to be judged on, but by their key none fall to it; use "
    with pytest.raises(DataError, match=f"{told}fewer folds, or another train.seed"):
        train(made, spec, tmp_path, tick=lambda *said: notes.append(said[2]))
    assert set(notes) == {"reading"}


@pytest.mark.parametrize("world", [1, 2])
def test_a_fold_that_cannot_be_judged_costs_its_figure_and_not_the_model(tmp_path, world):
    """R2 of rows whose labels are all the same is undefined."""
    labels = np.where(np.arange(2400) < 600, np.linspace(0, 1, 2400), 0.5)
    made = make_dataset(
        tmp_path / "store", task="regression", label={"train": labels}, by_time=True
    )
    spec = make_spec("regression", trainer="lightgbm", folds=3, metric="r2")
    found = _folds_of(made, spec.model_copy(update={"etl": BY_TIME}), tmp_path / "fit", world)
    assert found.folds[-1].value is None
    assert "metric 'r2' must be defined" in found.folds[-1].reason
    assert "of 3 folds by time" in str(found)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_fold_of_one_class_costs_its_figure_and_not_the_model(tmp_path, world, name):
    """A class that comes late: the first block that is judged has none of it."""
    labels = (np.arange(2400) % 3 == 0) & ((np.arange(2400) < 500) | (np.arange(2400) > 1300))
    made = make_dataset(tmp_path / "store", label={"train": labels.astype(float)}, by_time=True)
    spec = make_spec(trainer=name, folds=3, metric="auc")
    found = _folds_of(made, spec.model_copy(update={"etl": BY_TIME}), tmp_path / "fit", world)
    assert found.folds[0].value is None
    assert "metric 'auc' must be defined" in found.folds[0].reason
    assert found.folds[-1].value > 0.3


def test_only_one_folds_binned_rows_are_in_memory(tmp_path, monkeypatch):
    made, alive, seen = make_dataset(tmp_path / "store"), weakref.WeakSet(), []
    prepare = LgbmTrainer.prepare

    def watched(self, *args, **kwargs):
        seen.append(len(alive))
        data = prepare(self, *args, **kwargs)
        alive.add(data.train)
        return data

    monkeypatch.setattr(LgbmTrainer, "prepare", watched)
    train(made, make_spec(trainer="lightgbm", folds=3, rounds=5), tmp_path)
    assert seen == [0, 0, 0, 0]


def test_of_a_fold_nothing_is_measured_but_its_figure(tmp_path, monkeypatch):
    made, measured = make_dataset(tmp_path / "store"), []

    def counted(*args):
        measured.append(1)
        return gains(*args)

    monkeypatch.setattr("ray_apps.trainers.torch_tables.gains", counted)
    bundle = train(made, make_spec(trainer="torch", folds=2, rounds=2), tmp_path)
    assert len(bundle.cross_validation.folds) == 2
    assert len(measured) == 1
    assert sum(bundle.importance) == pytest.approx(1)


def test_a_dataset_that_was_split_otherwise_is_refused(tmp_path):
    made = make_dataset(tmp_path / "store")
    spec = make_spec(trainer="lightgbm", folds=3).model_copy(update={"etl": BY_TIME})
    with pytest.raises(SpecError, match=r"split by key \(id\), .* etl.split says by time \(at\)"):
        train(made, spec, tmp_path)


def test_another_gap_is_another_model(tmp_path):
    made = make_dataset(tmp_path / "store", by_time=True)
    gaps = [
        BY_TIME.model_copy(update={"split": BY_TIME.split.model_copy(update={"gap": gap})})
        for gap in ("1d", "9d")
    ]
    spec = make_spec(trainer="lightgbm", folds=3)
    keys = {model_key(made.manifest, spec.model_copy(update={"etl": etl})) for etl in gaps}
    assert len(keys) == 2


def _in_memory(shard: Shard) -> Shard:
    tables = tuple(shard.tables)
    assert sum(len(dense(table)) for table in tables) == shard.rows
    return Shard(tables, shard.labels)
