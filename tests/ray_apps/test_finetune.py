"""Trainings that start from a registered model: what fits, what comes out, what it was worth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from safetensors.numpy import load_file

import jobs.train as train_job
from arclight.bundle import Transfer
from arclight.catalog import Catalog
from arclight.errors import (
    DataError,
    EngineError,
    IntegrityError,
    MissingError,
    RefusedError,
    SpecError,
)
from arclight.features import Derived
from arclight.finetune import used_datasets
from arclight.metrics import measure, measure_scores
from arclight.progress import silent
from arclight.signing import TrustedKeys
from arclight.store import Store
from arclight.train_section import Init
from ray_apps.finetune import find_init
from ray_apps.gang import Alone
from ray_apps.predictor import load_predictor
from ray_apps.retrain import retrain_model
from ray_apps.shards import read_shard
from ray_apps.train import find_origin
from ray_apps.trainers import InitModel, load_trainer
from ray_apps.trainers.boosting import Snapshot
from ray_apps.trainers.imbalance import even_out
from tests.jobs.test_signing import arclight
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.gang.test_together import outcomes
from tests.ray_apps.make_dataset import SMALL_NET, make_dataset, make_spec
from tests.ray_apps.test_checkpoints import killed
from tests.ray_apps.test_signed_models import OURS
from tests.ray_apps.trainers.test_imbalance import fit_evened, job_of, uneven
from tests.ray_apps.trainers.test_trainers import fit, go_on, load, make_job, make_shard

TREES = ("xgboost", "lightgbm")
LIBRARIES = (*TREES, "torch")
TASKS = ("binary", "multiclass", "regression")
SMALL = (600, 200, 100)


@pytest.fixture(scope="module")
def origins(tmp_path_factory):
    """Return a store with a dataset and a model of a trainer and a task."""
    found = {}

    def get(name, task):
        if (name, task) not in found:
            root = tmp_path_factory.mktemp("origin") / "store"
            made = make_dataset(root, task=task, rows=SMALL)
            run = tmp_path_factory.mktemp("run")
            found[name, task] = root, train(made, make_spec(task, trainer=name, rounds=8), run)
        return found[name, task]

    return get


@pytest.fixture
def started(origins, tmp_path):
    """Return other rows in a copy of such a store, and its model."""

    def get(name, task="binary"):
        origin, bundle = origins(name, task)
        root = tmp_path / "copy"
        shutil.copytree(origin, root)
        return make_dataset(root, task=task, rows=SMALL, seed=1), bundle

    return get


def valid_scores(made, bundle):
    shard = read_shard(made.catalog.folder(made.manifest), made.manifest, "valid")
    path = made.catalog.folder(bundle) / bundle.model_file
    model = load_trainer(bundle.trainer).load(path, threads=1)
    return shard.label, model.predict(shard.matrix())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_training_goes_on_from_a_registered_model(started, tmp_path, name, task):
    made, bundle = started(name, task)
    spec = make_spec(task, trainer=name, init="demo@1", rounds=5, early_stopping=None)
    tuned = train(made, spec, tmp_path)
    assert tuned.ref == "demo@2"
    assert tuned.rounds == bundle.rounds + 5
    assert [f.levels for f in tuned.plan.features] == [f.levels for f in bundle.plan.features]
    assert tuned.plan.features[3].mean == made.manifest.plan.features[3].mean
    assert tuned.transfer.model == "demo@1"
    assert tuned.transfer.model_digest == bundle.model_digest
    assert tuned.lineage.inputs["init"] == bundle.model_digest
    label, scores = valid_scores(made, bundle)
    assert tuned.transfer.before == pytest.approx(measure(task, spec.metric, label, scores))
    assert tuned.transfer.tuned == pytest.approx(tuned.train_metrics["valid"])
    assert tuned.transfer.shown_new == "none"  # nothing is known of these splits
    # loads as any other, its golden rows included
    assert load_predictor(made.catalog, tuned, threads=1).bundle == tuned
    again = retrain_model(made.catalog, tuned, folder=tmp_path, tick=silent)
    assert (again.ok, again.same_bytes) == (True, True)


@pytest.mark.parametrize("metric", ["log_loss", "auc", "average_precision"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_metric_of_a_round_is_that_of_the_whole_model(name, metric, tmp_path):
    """Margins to start at come from features: the bins of other rows would give others."""
    first, other = make_shard(3000, seed=0), make_shard(2000, seed=5)
    path = tmp_path / f"first{load_trainer(name).suffix}"
    path.write_bytes(fit(name, make_job(rounds=8), first, make_shard(500, seed=1)).model)
    job = make_job(rounds=4, early_stopping=None, metric=metric, init=InitModel(path))
    valid = make_shard(700, seed=6)
    found = fit(name, job, other, valid)
    scores = load(name, found, tmp_path).predict(valid.matrix())
    assert found.valid == pytest.approx(
        measure_scores(job.task, job.metric, valid.label, scores), abs=1e-6
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", TREES)
def test_ten_rounds_upon_ten_are_twenty(name, task, tmp_path):
    classes = 3 if task == "multiclass" else 0
    make = {"task": task, "classes": classes, "metric": None}
    metric = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}[task]
    make |= {"metric": metric, "early_stopping": None}
    rows, valid = make_shard(3000, task=task), make_shard(500, seed=1, task=task)
    whole = fit(name, make_job(rounds=20, **make), rows, valid)
    path = tmp_path / f"half{load_trainer(name).suffix}"
    path.write_bytes(fit(name, make_job(rounds=10, **make), rows, valid).model)
    upon = fit(name, make_job(rounds=10, **make, init=InitModel(path)), rows, valid)
    assert (whole.rounds, upon.rounds) == (20, 20)
    both = [load(name, one, tmp_path).predict(valid.matrix()) for one in (whole, upon)]
    np.testing.assert_allclose(both[0], both[1], atol=2e-4, rtol=1e-4)


def test_xgboosts_joined_trees_are_a_model_of_its_own(tmp_path):
    rows, valid = make_shard(2000), make_shard(500, seed=1)
    path = tmp_path / "first.ubj"
    params = {"num_parallel_tree": 2, "subsample": 0.8}
    path.write_bytes(
        fit("xgboost", make_job(rounds=3, params=params, early_stopping=None), rows, valid).model
    )
    job = make_job(rounds=4, early_stopping=None, init=InitModel(path))
    found = fit("xgboost", job, rows, valid)
    booster = xgb.Booster(model_file=bytearray(found.model))
    assert booster.num_boosted_rounds() == 7
    assert len(booster.get_dump()) == 3 * 2 + 4
    first = xgb.Booster(model_file=path)
    part = booster[:3].inplace_predict(valid.matrix())
    np.testing.assert_array_equal(part, first.inplace_predict(valid.matrix()))
    body = json.loads(booster.save_raw("json"))
    trees = body["learner"]["gradient_booster"]["model"]["trees"]
    assert [tree["id"] for tree in trees] == list(range(10))


@pytest.mark.parametrize("name", LIBRARIES)
def test_killed_it_goes_on_to_the_same_bytes(started, tmp_path, name):
    made, _ = started(name)
    params = {
        "xgboost": {"subsample": 0.7},
        "lightgbm": {"bagging_fraction": 0.7, "bagging_freq": 1},
    }
    section = {"trainer": name, "params": params.get(name, {}), "checkpoint_every": "0s"}
    spec = make_spec(init="demo@1", rounds=12, early_stopping=None, **section)
    copy = replace(made, catalog=Catalog(Store(tmp_path / "twin")))
    shutil.copytree(made.catalog.store.root, copy.catalog.store.root)
    wanted = train(copy, spec, tmp_path)
    killed(made, spec, tmp_path, "7")
    again = train(made, spec, tmp_path)
    assert again.model_digest == wanted.model_digest
    assert [(one.rounds, one.exact) for one in again.resumed] == [(7, True)]


@pytest.mark.parametrize("name", LIBRARIES)
def test_two_workers_go_on_together(started, tmp_path, name):
    made, _ = started(name)
    origin = made.catalog.model("demo@1")
    section = {"init": {"model": "demo@1", "against_scratch": True}, "early_stopping": None}
    spec = make_spec(trainer=name, rounds=6, **section)
    one, two = (outcomes(made, spec, tmp_path / str(n), n, origin=origin) for n in (1, 2))
    assert two.transfer.before == pytest.approx(one.transfer.before)
    assert two.transfer.tuned == pytest.approx(one.transfer.tuned, abs=0.02)
    assert two.transfer.scratch == pytest.approx(one.transfer.scratch, abs=0.03)
    suffix = load_trainer(name).suffix
    models = [(tmp_path / "2" / f"model{rank}{suffix}").read_bytes() for rank in ("", 1)]
    assert models[0] == models[1]


def test_negative_transfer_is_said(tmp_path):
    """A model of turned labels is worse to start from than nothing."""
    rows = (1500, 800, 100)
    labels = {s: pa.array(1.0 - v) for s, v in true_labels(tmp_path / "plain", rows).items()}
    made = make_dataset(tmp_path / "store", rows=rows, label=labels)
    train(made, make_spec(rounds=60, early_stopping=None), tmp_path)
    made = make_dataset(tmp_path / "store", rows=rows, seed=1)
    section = {"init": {"model": "demo@1", "against_scratch": True}, "rounds": 10}
    found = train(made, make_spec(**section), tmp_path).transfer
    assert found.before < 0.3 < found.tuned < found.scratch
    assert found.is_negative
    assert "negative transfer: difference -" in str(found)
    assert found.scratch_rounds <= 10


def true_labels(root, rows):
    raw = make_dataset(root, rows=rows).raw
    return {split: table.column("label").to_numpy() for split, table in raw.items()}


@pytest.mark.parametrize("name", LIBRARIES)
def test_from_scratch_is_what_a_training_without_init_gives(started, tmp_path, name):
    made, _ = started(name)
    section = {"trainer": name, "rounds": 6, "early_stopping": None}
    init = {"model": "demo@1", "against_scratch": True}
    found = train(made, make_spec(init=init, **section), tmp_path).transfer
    alone = train(made, make_spec(**section), tmp_path)
    assert found.scratch == pytest.approx(alone.train_metrics["valid"])
    assert found.scratch_rounds == 6
    assert found.gain[0] < found.tuned - found.scratch < found.gain[1]


class TestNetworks:
    """What only networks have: layers that stay, a last layer of its own."""

    @pytest.mark.parametrize("net", ["mlp", "resnet", "ft_transformer"])
    def test_frozen_layers_stay_and_the_others_move(self, tmp_path, net):
        params = {"net": net, "depth": 2, "width": 16}
        made = make_dataset(tmp_path / "store", rows=SMALL)
        first = train(made, make_spec(trainer="torch", params=params, rounds=2), tmp_path)
        init = {"model": "demo@1", "freeze": 1}
        tuned = make_spec(trainer="torch", rounds=2, init=init, seed=8)
        tuned = tuned.model_copy(
            update={"train": tuned.train.model_copy(update={"params": {"batch_rows": 64}})}
        )
        second = train(made, tuned, tmp_path)
        one, two = (load_file(made.catalog.folder(b) / b.model_file) for b in (first, second))
        moved = {n for n in one if n.startswith("net.") and not np.array_equal(one[n], two[n])}
        stays = {n for n in one if n.startswith("net.")} - moved
        assert any("head" in n for n in moved)
        frozen = {
            "mlp": ("net.flat.", "net.body.0."),
            "resnet": ("net.flat.", "net.first.", "net.blocks.0."),
            "ft_transformer": (
                "net.scale", "net.shift", "net.null", "net.answer", "net.categories.",
                "net.blocks.layers.0.",
            ),
        }[net]  # fmt: skip
        assert stays == {n for n in one if n.startswith(frozen)}

    def test_a_new_head_for_another_task(self, tmp_path):
        made = make_dataset(tmp_path / "store", rows=SMALL)
        first = train(made, make_spec(trainer="torch", rounds=2), tmp_path)
        other = make_dataset(tmp_path / "store", rows=SMALL, task="multiclass")
        init = {"model": "demo@1", "head": "new", "head_learning_rate": 0.05}
        spec = make_spec("multiclass", trainer="torch", rounds=3, init=init)
        found = train(other, spec, tmp_path)
        assert found.transfer.before is None
        assert found.plan.classes == other.manifest.plan.classes
        assert found.rounds == first.rounds + 3
        assert load_predictor(other.catalog, found, threads=1).bundle == found
        assert retrain_model(other.catalog, found, folder=tmp_path, tick=silent).same_bytes

    def test_the_last_layer_has_a_rate_of_its_own(self, tmp_path):
        rows, valid = make_shard(600), make_shard(200, seed=1)
        path = tmp_path / "first.safetensors"
        path.write_bytes(fit("torch", make_job(rounds=2), rows, valid).model)

        def moved(**changes):
            job = make_job(rounds=1, early_stopping=None, seed=3, init=InitModel(path, **changes))
            (tmp_path / "second.safetensors").write_bytes(fit("torch", job, rows, valid).model)
            one, two = (load_file(tmp_path / f"{n}.safetensors") for n in ("first", "second"))
            return {n: float(np.abs(one[n] - two[n]).mean()) for n in one if "net." in n}

        plain, fast = moved(), moved(head_rate=0.1)
        head = "net.head.weight"
        assert fast[head] > 5 * plain[head]
        assert fast["net.body.0.weight"] < 3 * plain["net.body.0.weight"]


REFUSED = [
    ({"trainer": "lightgbm"}, SpecError, "must be a model of trainer lightgbm"),
    ({"init": "demo@7"}, MissingError, "no version 7"),
    ({"init": "other@1"}, MissingError, "'other' does not exist"),
    ({"init": "demo@champion"}, MissingError, "no alias 'champion'"),
    ({"params": {"base_score": 0.3}}, SpecError, "base_score must not be set"),
]


@pytest.mark.parametrize(("section", "error", "told"), REFUSED)
def test_what_does_not_fit_is_refused(started, tmp_path, section, error, told):
    made, _ = started("xgboost")
    with pytest.raises(error, match=told):
        train(made, make_spec(**{"init": "demo@1", **section}), tmp_path)
    assert [m.ref for m in made.catalog.models("demo")] == ["demo@1"]


def test_a_task_of_trees_must_be_the_same(started, tmp_path):
    made, _ = started("xgboost")
    with pytest.raises(SpecError, match="must be of task regression"):
        train(made, make_spec("regression", init="demo@1"), tmp_path)


@pytest.mark.parametrize(
    ("name", "objective", "told"),
    [
        ("xgboost", "reg:absoluteerror", "objective must be 'reg:squarederror'"),
        ("lightgbm", "regression_l1", "objective must be 'regression'"),
    ],
)
def test_an_objective_must_be_the_same(started, tmp_path, name, objective, told):
    made, _ = started(name, "regression")
    spec = make_spec("regression", trainer=name, init="demo@1", params={"objective": objective})
    with pytest.raises(SpecError, match=told):
        train(made, spec, tmp_path)


@pytest.mark.parametrize(
    ("params", "init", "told"),
    [
        ({"width": 64}, {}, "width must be 32, that of the network"),
        ({"net": "resnet"}, {}, "net must be mlp"),
        ({}, {"freeze": 2}, "freeze must be at most 1"),
    ],
)
def test_a_network_keeps_its_shape(started, tmp_path, params, init, told):
    made, _ = started("torch")
    spec = make_spec(trainer="torch", init={"model": "demo@1", **init}, params=params)
    with pytest.raises(SpecError, match=told):
        train(made, spec, tmp_path)


def with_layout(made, **changes):
    layout = made.manifest.plan.layout.model_copy(update=changes)
    plan = made.manifest.plan.model_copy(update={"layout": layout})
    return replace(made, manifest=made.manifest.model_copy(update={"plan": plan}))


def test_features_must_be_the_same_in_name_kind_order_and_meaning(started, tmp_path):
    made, _ = started("xgboost")
    layout = made.manifest.plan.layout
    first, second, *others = layout.features
    renamed = first.model_copy(update={"name": "shop_2"})
    cases = [
        ({"features": (renamed, second, *others)}, "'shop_2' is only in dataset 'demo@2'"),
        ({"features": (second, *others)}, "'shop' is only in 'demo@1'"),
        ({"features": (second, first, *others)}, "feature 1 is 'color' in dataset"),
        (
            {"derive": (layout.derive[0], Derived(name="double", expression="1"))},
            "'double' is 1 in",
        ),
        ({"inputs": layout.inputs[::-1]}, "input 1 is"),
    ]
    for changes, told in cases:
        with pytest.raises(RefusedError, match=told):
            train(with_layout(made, **changes), make_spec(init="demo@1"), tmp_path)


def test_classes_must_be_the_same_but_for_a_new_head(started, tmp_path):
    made, _ = started("lightgbm", "multiclass")
    plan = made.manifest.plan.model_copy(update={"classes": ("high", "low")})
    other = replace(made, manifest=made.manifest.model_copy(update={"plan": plan}))
    spec = make_spec("multiclass", trainer="lightgbm", init="demo@1")
    with pytest.raises(RefusedError, match=r"classes of .* \(high, low\) must be those"):
        train(other, spec, tmp_path)


def test_a_damaged_model_is_not_started_from(started, tmp_path):
    made, bundle = started("xgboost")
    path = made.catalog.folder(bundle) / bundle.model_file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"model\.ubj' must"):
        find_init(made.catalog, make_spec(init="demo@1"))


def test_the_same_model_by_another_name_is_the_same_training(started, tmp_path):
    made, bundle = started("lightgbm")
    made.catalog.move_alias(bundle, "champion", reason="test", seen=None)
    first = train(made, make_spec(trainer="lightgbm", init="demo@1", rounds=2), tmp_path)
    again = train(made, make_spec(trainer="lightgbm", init="demo@champion", rounds=2), tmp_path)
    assert first == again
    assert again.settings.init == Init(model="demo@1")


def test_once_the_alias_has_moved_to_what_it_made_the_same_command_is_done(started, tmp_path):
    made, bundle = started("lightgbm")
    first = made.catalog.move_alias(bundle, "champion", reason="test", seen=None)
    spec = make_spec(trainer="lightgbm", init="demo@champion", rounds=2)
    tuned = train(made, spec, tmp_path)
    made.catalog.move_alias(tuned, "champion", reason="better", seen=first)
    assert find_origin(made.catalog, made.manifest, spec) == bundle
    assert train(made, spec, tmp_path) == tuned
    # other rounds are another training, which starts from where the alias stands
    more = make_spec(trainer="lightgbm", init="demo@champion", rounds=3)
    assert train(made, more, tmp_path).transfer.model == tuned.ref


def test_what_was_used_is_asked_of_all_models_before(started, tmp_path):
    made, _ = started("lightgbm")
    second = train(made, make_spec(trainer="lightgbm", init="demo@1", rounds=2), tmp_path)
    third = make_dataset(made.catalog.store.root, rows=SMALL, seed=2)
    last = train(third, make_spec(trainer="lightgbm", init=second.ref, rounds=2), tmp_path)
    used = used_datasets(made.catalog, last)
    assert [m.ref for m in used] == ["demo@3", "demo@2", "demo@1"]
    (made.catalog.store.root / "models" / "demo" / "versions" / "1.json").unlink()
    assert [m and m.ref for m in used_datasets(made.catalog, last)] == ["demo@3", "demo@2", None]


@pytest.mark.parametrize("how", ["downsample", "upsample"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_evened_out_rows_do_not_move_what_a_model_knows(name, how, tmp_path):
    """One careful round leaves scores where they were, not at the odds of other shares."""
    # a round of a network is one over all rows
    job = job_of(rounds=6 if name == "torch" else 30, early_stopping=None)
    rows, valid = uneven(30_000), uneven(8000, seed=1)
    path = tmp_path / f"first{load_trainer(name).suffix}"
    path.write_bytes(fit(name, job, rows, valid).model)
    before = load_trainer(name).load(path, threads=1).predict(valid.matrix())
    changes = {"rounds": 1, "early_stopping": None, "params": {"learning_rate": 1e-4}}
    evened, job = even_out(rows, job_of(imbalance=how, init=InitModel(path), **changes), Alone())
    found = fit_evened(name, evened, valid, job)
    after = load(name, found, tmp_path).predict(valid.matrix())
    assert after.mean() == pytest.approx(before.mean(), rel=0.05)
    np.testing.assert_allclose(after, before, atol=0.03)
    assert found.valid == pytest.approx(
        measure_scores(job.task, job.metric, valid.label, after), abs=1e-5
    )


def test_what_cannot_go_on_exactly_from_a_model_says_so(tmp_path):
    """LightGBM's scores to go on from have the shift of evened-out rows in them."""
    rows, valid = uneven(9000), uneven(2000, seed=1)
    path = tmp_path / "first.txt"
    path.write_bytes(fit("lightgbm", job_of(rounds=9, early_stopping=None), rows, valid).model)
    changes = {"rounds": 30, "early_stopping": None, "init": InitModel(path)}
    trainer, kept = load_trainer("lightgbm"), []
    for how in ("none", "weight"):
        assert trainer.goes_on_exactly(job_of(imbalance=how, **changes))
    job = job_of(imbalance="upsample", **changes)
    assert not trainer.goes_on_exactly(job)
    evened, job = even_out(rows, job, Alone())

    def watch(history, model):
        kept.append(Snapshot(model(), tuple(history)))
        return True

    data = trainer.prepare(evened, valid, job, Alone())
    whole = trainer.fit(data, job, Alone(), watch)
    again = [
        trainer.fit(trainer.prepare(evened, valid, job, Alone(), start), job, Alone(), go_on)
        for start in kept[5:29:6]
    ]
    assert any(one != whole for one in again)
    assert [one.valid for one in again] == pytest.approx([whole.valid] * len(again))


@pytest.mark.parametrize("name", TREES)
def test_only_the_kept_rounds_are_added(name, tmp_path):
    rows, valid = make_shard(1500), make_shard(300, seed=1)
    path = tmp_path / f"first{load_trainer(name).suffix}"
    path.write_bytes(fit(name, make_job(rounds=30, early_stopping=5), rows, valid).model)
    first = load_trainer(name).load(path, threads=1).rounds
    seen = []

    def watch(history, _model):
        seen.append(history[-1])
        return True

    job = make_job(rounds=40, early_stopping=4, init=InitModel(path))
    found = fit(name, job, rows, valid, watch)
    kept = found.rounds - first
    assert kept < len(seen)
    assert kept == int(np.argmax(seen)) + 1
    assert load(name, found, tmp_path).rounds == found.rounds


def test_lightgbm_that_finds_nothing_to_add_says_so(tmp_path):
    """It drops a round without a split, so that the file would be the old model's."""
    rows, valid = make_shard(800), make_shard(300, seed=1)
    path = tmp_path / "first.txt"
    path.write_bytes(fit("lightgbm", make_job(rounds=3), rows, valid).model)
    job = make_job(rounds=3, init=InitModel(path), params={"min_gain_to_split": 1e9})
    with pytest.raises(DataError, match="must find a split to add"):
        fit("lightgbm", job, rows, valid)


def test_a_comparison_that_fails_costs_its_figure_and_not_the_model(
    started, tmp_path, monkeypatch
):
    made, _ = started("lightgbm")

    def fails(*_):
        raise EngineError("no more of it.")

    monkeypatch.setattr("ray_apps.finetune._from_scratch", fails)
    init = {"model": "demo@1", "against_scratch": True}
    found = train(made, make_spec(trainer="lightgbm", init=init, rounds=2), tmp_path)
    assert (found.transfer.scratch, found.transfer.scratch_reason) == (None, "no more of it.")
    assert "from scratch there is no figure: no more of it." in str(found.transfer)


def test_from_scratch_a_network_has_the_dropout_of_the_other(started, tmp_path):
    path = tmp_path / "first.safetensors"
    rows, valid = make_shard(400), make_shard(200, seed=1)
    path.write_bytes(fit("torch", make_job(rounds=1, params={"dropout": 0.4}), rows, valid).model)
    job = make_job(init=InitModel(path), params={"learning_rate": 0.1})
    scratch = load_trainer("torch").from_scratch(job)
    assert scratch.init is None
    assert (scratch.params["dropout"], scratch.params["width"]) == (0.4, SMALL_NET["width"])
    assert scratch.params["learning_rate"] == 0.1


def test_weights_of_classes_are_not_forgotten(tmp_path):
    made = make_dataset(tmp_path / "store", rows=SMALL)
    train(made, make_spec(imbalance="weight", rounds=5), tmp_path)
    second = train(made, make_spec(init="demo@1", rounds=2), tmp_path)
    third = train(made, make_spec(init="demo@2", rounds=2), tmp_path)
    assert second.weighting == "imbalance: weight of demo@1, which it started from"
    assert third.weighting.startswith("imbalance: weight of demo@1")


def test_a_model_that_nobody_trusted_signed_is_not_started_from(started, tmp_path):
    made, _ = started("lightgbm")
    signer, trust = OURS, TrustedKeys((OURS.public,), "trusted.txt")
    spec = make_spec(trainer="lightgbm", init="demo@1")
    with pytest.raises(RefusedError, match="demo@1"):
        find_init(replace(made.catalog, trust=trust), spec)
    with pytest.raises(RefusedError, match="must be signed by a trusted key"):
        find_init(replace(made.catalog, signer=signer), spec)
    made.catalog.sign_model(made.catalog.model("demo@1"), signer)
    assert find_init(replace(made.catalog, trust=trust, signer=signer), spec).ref == "demo@1"


def test_what_a_record_says():
    told = Transfer(
        metric="log_loss", model="a@1", model_digest="", rounds=3,
        is_valid_new=False, is_test_new=True,
        before=0.5, tuned=0.4, scratch=0.3, scratch_rounds=4, gain=(0.05, 0.2),
    )  # fmt: skip
    assert told.is_negative  # of a loss less is better
    assert told.shown_new == "test"
    assert str(told) == (
        "0.4000 after starting from a@1 (0.5000 as it was), 0.3000 from scratch (4 rounds); "
        "negative transfer: difference +0.0500 to +0.2000 (95%)"
    )
    assert not told.model_copy(update={"gain": (-0.1, 0.2)}).is_negative
    assert not told.model_copy(update={"metric": "auc"}).is_negative


REFUSED_BY_COMMAND = [
    ("init: {model: demo@1, freeze: 2}", "freeze is for a network"),
    ("init: demo@9", "model 'demo' has no version 9"),
    ("init: demo@1, trainer: lightgbm", "must be a model of trainer lightgbm"),
    ("init: demo@1, params: {base_score: 0.2}", "base_score must not be set"),
]


@pytest.mark.parametrize(("train_section", "told"), REFUSED_BY_COMMAND)
def test_what_does_not_fit_is_refused_before_ray_starts(
    started, tmp_path, monkeypatch, capsys, train_section, told
):
    made, _ = started("xgboost")
    monkeypatch.setattr(train_job, "ray_session", lambda *_, **__: pytest.fail("it started"))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "{name: demo, task: binary, sources: {t: {path: t}}, "
        f"etl: {{key: [id], label: label}}, train: {{{train_section}}}}}"
    )
    store = str(made.catalog.store.root)
    assert arclight("train", str(spec), "--store", store) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert told in said
    assert "Traceback" not in said
