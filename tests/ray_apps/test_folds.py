"""Cross-validation beside a training: each fold's figure, and that it costs the model nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from arclight.errors import DataError
from arclight.folds import fold_rule
from arclight.progress import silent
from arclight.spec import Etl, TimeSplit
from cluster.sizing import Crew
from ray_apps.fit import OUTCOME, REQUEST, FitOutcome, job_of, run_fit
from ray_apps.folds import deal
from ray_apps.gang import Alone
from ray_apps.shards import ALONE, Shard, dense, read_shard
from ray_apps.train import fit_request
from ray_apps.trainers import load_trainer
from ray_apps.trainers.judge import own_metric
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
    made = make_dataset(tmp_path / "store")
    spec = make_spec(trainer=name, folds=3, rounds=20)
    spec = spec if etl is None else spec.model_copy(update={"etl": etl})
    bundle = train(made, spec, tmp_path)
    found = bundle.cross_validation
    assert found.by == ("key" if etl is None else "time")
    home, manifest = made.catalog.folder(made.manifest), made.manifest
    rule = fold_rule(spec, manifest.key_columns)
    shard = read_shard(home, manifest, "train")
    whole, label = shard.matrix(), shard.label
    dealt = deal(home, manifest, rule, ALONE, Alone())
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
        assert figure.value == pytest.approx(own_metric(label[judge], scores, job), abs=2e-5)
    assert found.mean == pytest.approx(bundle.train_metrics["valid"], abs=0.05)


def test_the_model_is_the_one_without_folds(tmp_path, shared, trained):
    _, plain = trained("binary", "lightgbm")
    made = make_dataset(tmp_path / "store")
    bundle = train(made, make_spec(trainer="lightgbm", folds=2), tmp_path)
    assert bundle.model_digest == plain.model_digest
    assert plain.cross_validation is None
    assert "cross_validation" not in plain.to_json()


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_two_workers_judge_the_folds_of_one(name, tmp_path):
    made = make_dataset(tmp_path / "store")
    spec = make_spec(trainer=name, folds=3, rounds=20, early_stopping=None)
    spec = spec.model_copy(update={"etl": BY_TIME})
    found = []
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        request = fit_request(made.catalog, made.manifest, spec, Crew(world, 1))
        (folder / REQUEST).write_text(request.to_json())
        if world == 1:
            run_fit(folder, silent)
        else:
            gang_of(world, partial(run_fit, folder, silent), deadline_s=60)
        outcome = FitOutcome.from_json((folder / OUTCOME).read_bytes(), source="outcome")
        found.append(outcome.cross_validation)
    for one, two in zip(*(cross.folds for cross in found), strict=True):
        assert (one.learned, one.judged) == (two.learned, two.judged)
        assert two.value == pytest.approx(one.value, abs=0.02)


def test_T9_a_killed_cross_validation_goes_on_with_the_fold_it_was_in(tmp_path):
    made = make_dataset(tmp_path / "store")
    spec = make_spec(trainer="lightgbm", folds=3, checkpoint_every="1h")
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
    with pytest.raises(DataError, match=r"fold \d+ of 20 must have rows to be judged on"):
        train(made, spec, tmp_path, tick=lambda *said: notes.append(said[2]))
    assert set(notes) == {"reading"}


def _in_memory(shard: Shard) -> Shard:
    tables = tuple(shard.tables)
    assert sum(len(dense(table)) for table in tables) == shard.rows
    return Shard(tables, shard.labels)
