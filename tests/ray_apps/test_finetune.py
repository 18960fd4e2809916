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

from arclight.bundle import Transfer
from arclight.catalog import Catalog
from arclight.errors import IntegrityError, MissingError, RefusedError, SpecError
from arclight.features import Derived
from arclight.metrics import measure
from arclight.progress import silent
from arclight.spec import Init
from arclight.store import Store
from ray_apps.finetune import find_init
from ray_apps.predictor import load_predictor
from ray_apps.retrain import retrain_model
from ray_apps.shards import read_shard
from ray_apps.trainers import InitModel, load_trainer
from ray_apps.trainers.judge import own_metric
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.gang.test_together import outcomes
from tests.ray_apps.make_dataset import make_dataset, make_spec
from tests.ray_apps.test_checkpoints import killed
from tests.ray_apps.trainers.test_trainers import fit, load, make_job, make_shard

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
    assert tuned.plan == bundle.plan
    assert tuned.transfer.model == "demo@1"
    assert tuned.transfer.model_digest == bundle.model_digest
    assert tuned.lineage.inputs["init"] == bundle.model_digest
    label, scores = valid_scores(made, bundle)
    assert tuned.transfer.before == pytest.approx(measure(task, spec.metric, label, scores))
    assert tuned.transfer.tuned == pytest.approx(tuned.train_metrics["valid"])
    assert not tuned.transfer.is_unseen  # nothing is known of these splits
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
    assert found.valid == pytest.approx(own_metric(valid.label, scores, job), abs=1e-6)


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
    with pytest.raises(IntegrityError, match="model"):
        find_init(made.catalog, make_spec(init="demo@1"))


def test_the_same_model_by_another_name_is_the_same_training(started, tmp_path):
    made, bundle = started("lightgbm")
    made.catalog.move_alias(bundle, "champion", reason="test", seen=None)
    first = train(made, make_spec(trainer="lightgbm", init="demo@1", rounds=2), tmp_path)
    again = train(made, make_spec(trainer="lightgbm", init="demo@champion", rounds=2), tmp_path)
    assert first == again
    assert again.settings.init == Init(model="demo@1")


def test_what_a_record_says():
    told = Transfer(
        metric="log_loss", model="a@1", model_digest="", rounds=3, is_unseen=True,
        before=0.5, tuned=0.4, scratch=0.3, scratch_rounds=4, gain=(0.05, 0.2),
    )  # fmt: skip
    assert told.is_negative  # of a loss less is better
    assert str(told) == (
        "0.4000 after starting from a@1 (0.5000 as it was), 0.3000 from scratch; "
        "negative transfer: difference +0.0500 to +0.2000 (95%)"
    )
    assert not told.model_copy(update={"gain": (-0.1, 0.2)}).is_negative
    assert not told.model_copy(update={"metric": "auc"}).is_negative
