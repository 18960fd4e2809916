"""Several workers train what one trains: same rows, one metric for all, the same model everywhere.

The workers are threads here: both libraries keep their network by the thread. Processes, and
what happens when one is killed, are in `test_ray_gang.py`.
"""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from functools import partial

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from arclight.errors import ArclightError, DataError, EngineError, IntegrityError, RefusedError
from arclight.metrics import measure_scores
from arclight.progress import silent
from cluster.sizing import Crew
from ray_apps.fit import run_fit
from ray_apps.fit_files import REQUEST, read_outcome
from ray_apps.gang import Alone
from ray_apps.gang.proofs import prove_rows, prove_same_versions
from ray_apps.gang.totals import from_first, highest, to_first, total
from ray_apps.gang.wire import LostError
from ray_apps.shards import Shard, dense, read_shard
from ray_apps.train import fit_request
from ray_apps.trainers import load_trainer
from ray_apps.trainers.labels import check_labels, row_weights
from ray_apps.trainers.lgbm_bins import common_bins
from ray_apps.trainers.lgbm_network import Network
from ray_apps.trainers.xgb_bins import Parts
from tests.ray_apps.gang.test_mesh import gang_of
from tests.ray_apps.make_dataset import SMALL_NET, make_dataset, make_spec
from tests.ray_apps.trainers.test_trainers import go_on, make_job, make_shard

TREES = ("xgboost", "lightgbm")
LIBRARIES = (*TREES, "torch")
# a test's workers are threads, which draw dropout from one generator in any order
DRAWN_BY_NOBODY = {"xgboost": {}, "lightgbm": {}, "torch": {"dropout": 0.0}}


def outcomes(made, spec, folder, world, origin=None):
    """Train with a gang and return the outcome; the folder keeps every worker's model."""
    folder.mkdir()
    request = fit_request(made.catalog, made.manifest, spec, Crew(spec.train.workers, 1), origin)
    (folder / REQUEST).write_text(request.to_json())
    if world == 1:
        run_fit(folder, silent)
    else:
        gang_of(world, partial(run_fit, folder, silent), deadline_s=60)
    return read_outcome(folder)


JUDGED = [
    ("binary", "auc"),
    ("binary", "log_loss"),
    ("binary", "average_precision"),
    ("multiclass", "log_loss"),
    ("multiclass", "accuracy"),
    ("regression", "rmse"),
    ("regression", "mae"),
]


@pytest.mark.parametrize(
    ("name", "task", "metric"),
    [(name, *judged) for name in TREES for judged in JUDGED]
    + [
        ("torch", "binary", "auc"),
        ("torch", "multiclass", "log_loss"),
        ("torch", "regression", "rmse"),
    ],
)
def test_two_workers_come_to_the_metric_of_one(shared, tmp_path, name, task, metric):
    made = shared(task)
    section = {"rounds": 20, "early_stopping": None, "params": DRAWN_BY_NOBODY[name]}
    spec = make_spec(task, trainer=name, metric=metric, **section)
    one, two = (outcomes(made, spec, tmp_path / str(n), n) for n in (1, 2))
    for split, value in one.train_metrics.items():
        assert two.train_metrics[split] == pytest.approx(value, rel=0.04, abs=0.01), split
    suffix = load_trainer(name).suffix
    # the first tree's root is made of the rows of all workers
    trees = [(tmp_path / str(n) / f"model{load_trainer(name).suffix}") for n in (1, 2)]
    if name in TREES:
        assert root_of(trees[1]) == pytest.approx(root_of(trees[0]), rel=1e-3)
    models = [(tmp_path / "2" / f"model{rank}{suffix}").read_bytes() for rank in ("", 1)]
    assert models[0] == models[1]


def root_of(path):
    """Return how much the root of the first tree holds: rows, or XGBoost's sum of hessians."""
    if path.suffix == ".txt":
        return int(path.read_text().split("internal_count=", 1)[1].split(maxsplit=1)[0])
    return float(
        xgb.Booster(model_file=path)
        .get_dump(with_stats=True)[0]
        .split("cover=", 1)[1]
        .split("\n")[0]
    )


@pytest.mark.parametrize("name", LIBRARIES)
def test_odd_rows_on_three_workers(tmp_path, name):
    made = make_dataset(tmp_path / "store", rows=(2001, 101, 50), row_groups=7)
    spec = make_spec(trainer=name, rounds=10, params=DRAWN_BY_NOBODY[name])
    one, three = (outcomes(made, spec, tmp_path / str(n), n) for n in (1, 3))
    assert three.train_metrics["valid"] == pytest.approx(one.train_metrics["valid"], abs=0.02)
    assert three.rounds > 1


@pytest.mark.parametrize(
    ("name", "task", "metric"),
    [(name, *judged) for name in TREES for judged in JUDGED] + [("torch", "binary", "auc")],
)
def test_the_metric_of_each_round_is_that_of_all_rows_and_the_same_on_every_worker(
    name, task, metric, tmp_path
):
    """RT3: a library's own AUC is a worker's, or the mean of the workers'."""
    params = SMALL_NET if name == "torch" else {}
    job = make_job(task, metric=metric, rounds=6, early_stopping=None, params=params)
    train, valid = make_shard(900, task=task), make_shard(400, seed=1, task=task)
    # the workers' valid rows are unlike and not as many: a mean of their own numbers is another
    order = np.argsort(pa.concat_tables(valid.tables)["f0"].fill_null(0).to_numpy())

    def work(mesh):
        trainer, mine = load_trainer(name), np.split(order, [280])[mesh.rank]
        part = Shard((pa.concat_tables(valid.tables).take(mine),), (valid.label[mine],))
        own = Shard(train.tables[mesh.rank :: 2], train.labels[mesh.rank :: 2])
        seen = []

        def watch(history, _model):
            seen.append(history[-1])
            return True

        fitted = trainer.fit(trainer.prepare(own, part, job, mesh), job, mesh, watch)
        return seen, fitted.model

    (first, model), (second, other) = gang_of(2, work)
    assert (first, model) == (second, other)
    path = tmp_path / f"model{load_trainer(name).suffix}"
    path.write_bytes(model)
    scores = (
        load_trainer(name).load(path, threads=1).predict(dense(pa.concat_tables(valid.tables)))
    )
    assert first[-1] == pytest.approx(
        measure_scores(job.task, job.metric, valid.label, scores), abs=1e-6
    )


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_worker_that_leaves_ends_the_others_with_its_name(name):
    job = make_job(rounds=500, early_stopping=None)
    train, valid = make_shard(900), make_shard(300, seed=1)

    def work(mesh):
        trainer = load_trainer(name)

        def leave(history, model):
            if mesh.rank == 1 and len(history) == 3:
                mesh.close()
                raise RuntimeError
            return go_on(history, model)

        with pytest.raises((LostError, RuntimeError)) as caught:
            trainer.fit(trainer.prepare(train, valid, job, mesh), job, mesh, leave)
        return caught.value

    first, _ = gang_of(2, work, deadline_s=10)
    assert isinstance(first, LostError)
    assert "training worker 2" in str(first)


@pytest.mark.parametrize("calls", [1, 4])
def test_a_worker_that_cannot_read_its_rows_is_named_while_xgboost_bins(calls, monkeypatch):
    """The library says of it that a connection is closed, on each of the others."""
    job, give, seen = make_job(), Parts._next, []
    broken = threading.local()

    def damaged(self, input_data):
        if getattr(broken, "is_mine", False):
            seen.append(1)
            if len(seen) == calls:
                raise IntegrityError("a file is damaged")
        return give(self, input_data)

    monkeypatch.setattr(Parts, "_next", damaged)

    def work(mesh):
        broken.is_mine = mesh.rank == 1
        rows, valid = make_shard(900, seed=mesh.rank), make_shard(300, seed=9)
        with pytest.raises(ArclightError) as caught:
            load_trainer("xgboost").prepare(rows, valid, job, mesh)
        mesh.close()
        return caught.value

    first, second = gang_of(2, work, deadline_s=10)
    assert isinstance(second, IntegrityError)
    assert isinstance(first, LostError)
    assert "training worker 2" in str(first)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_bins_that_workers_made_of_some_features_each_are_those_of_one(world):
    """Each has the same rows here, so that their sample is each row as often as there are."""
    shard = make_shard(600)
    rows = [pa.concat_tables(shard.tables)] * world
    many = Shard((pa.concat_tables(rows),), (np.tile(shard.label, world),))
    params = {"max_bin": 63, "min_data_in_bin": 1, "enable_bundle": False}
    common = {"categorical_feature": [3], "params": params}
    alone = lgb.Dataset(many.tables[0], **common).construct()
    for mine in gang_of(world, lambda mesh: common_bins(shard, common, mesh)):
        assert [mine.feature_num_bin(i) for i in range(4)] == [
            alone.feature_num_bin(i) for i in range(4)
        ]
        edges = [bins_of(shard, by, common) for by in (mine, alone)]
        assert edges[0] == edges[1]


def test_rare_values_are_bundled_alike_by_all_workers(tmp_path):
    rng = np.random.default_rng(4)
    rare = np.where(rng.random((3000, 12)) < 0.03, rng.integers(1, 9, (3000, 12)), 0)
    rare[:, 5] += 7  # rare, but not mostly zero
    label = (rare[:, :6].sum(1) + rng.normal(0, 1, 3000) > 8).astype(np.float64)
    whole = pa.table([*rare.T.astype(np.float32)], names=[f"f{i}" for i in range(12)])
    job = make_job(
        categorical=(), rounds=6, early_stopping=None, params={"enable_bundle": True}, workers=2
    )

    def work(mesh):
        mine = np.arange(3000) % 2 == mesh.rank
        part = Shard((whole.filter(pa.array(mine)),), (label[mine],))
        trainer = load_trainer("lightgbm")
        return trainer.fit(trainer.prepare(part, part, job, mesh), job, mesh, go_on)

    first, second = gang_of(2, work)
    assert first.model == second.model
    whole_shard, alone = Shard((whole,), (label,)), replace(job, workers=1)
    trainer = load_trainer("lightgbm")
    data = trainer.prepare(whole_shard, whole_shard, alone, Alone())
    wanted = trainer.fit(data, alone, Alone(), go_on)
    assert first.valid == pytest.approx(wanted.valid, abs=0.01)
    assert root_text(first.model) == root_text(wanted.model)


def root_text(model):
    """Return where the first tree's root splits."""
    lines = model.decode().split("Tree=0", 1)[1].splitlines()
    return [li.split()[0] for li in lines if li.startswith(("split_feature=", "threshold="))]


def bins_of(shard, bins, common):
    """Return a stump's model text for every feature alone: its thresholds are edges of bins."""
    rows = lgb.Dataset(
        pa.concat_tables(shard.tables),
        label=shard.label,
        reference=bins,
        free_raw_data=True,
        **common,
    )
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True}
    return lgb.train({**params, **common["params"]}, rows, 20).model_to_string()


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_quantized_gradients_of_some_features_are_those_of_one_worker_and_of_exact_ones(task):
    """Counted by rows, the library adds them up wrongly: a log loss of 7, or a failed check."""
    params = {"feature_fraction": 0.5, "use_quantized_grad": True}
    metric = "log_loss" if task == "binary" else "rmse"
    job = make_job(task, metric=metric, params=params, early_stopping=None)
    train, valid = make_shard(4000, task=task), make_shard(1000, seed=1, task=task)
    trainer = load_trainer("lightgbm")

    def work(mesh, job=job):
        own, judged = (
            Shard(s.tables[mesh.rank :: mesh.world], s.labels[mesh.rank :: mesh.world])
            for s in (train, valid)
        )
        job = replace(job, workers=mesh.world)
        return trainer.fit(trainer.prepare(own, judged, job, mesh), job, mesh, go_on).valid

    exact = work(Alone(), replace(job, params={"feature_fraction": 0.5}))
    assert work(Alone()) == pytest.approx(exact, rel=0.05)
    assert gang_of(2, work) == pytest.approx([exact] * 2, rel=0.05)


COUNTS = {"lightgbm": ("poisson", "tweedie", "gamma"), "xgboost": ("count:poisson", "reg:tweedie")}


@pytest.mark.parametrize(
    ("name", "objective", "labels", "told"),
    [(name, one, ((0, 1), (-1, 1)), r"0 or more .*, but 60 of 240 rows")
     for name, some in COUNTS.items() for one in some]
    + [("lightgbm", one, ((0, 1), (0, 0)), "worker 2 of 2 has zeros alone; use fewer")
       for one in COUNTS["lightgbm"]]
    + [("xgboost", one, ((0, 1), (0, 0)), None) for one in COUNTS["xgboost"]]
    + [("lightgbm", "tweedie", ((0, 0), (0, 0)), "some label must be above 0 .* all of 240"),
       ("xgboost", "reg:tweedie", ((0, 0), (0, 0)), "some label must be above 0 .* all of 240"),
       ("xgboost", "reg:gamma", ((1, 2), (0, 1)), "above 0 .*, but 60 of 240 rows")],
)  # fmt: skip
def test_labels_that_an_objective_cannot_learn_from_are_told_by_every_worker(
    name, objective, labels, told
):
    job = make_job("regression", params={"objective": objective}, rounds=2, workers=2)
    trainer, shard = load_trainer(name), make_shard(240, task="regression")

    def work(mesh):
        mine = tuple(np.resize(np.array(labels[mesh.rank], float), 60) for _ in shard.labels)
        own = replace(shard, labels=tuple(np.sort(part)[::-1] for part in mine))
        own = Shard(own.tables[:2], own.labels[:2])
        try:
            return len(trainer.fit(trainer.prepare(own, shard, job, mesh), job, mesh, go_on).model)
        except DataError as error:
            return error.message

    found = gang_of(2, work)
    assert found[0] == found[1]
    assert (told is None) == isinstance(found[0], int)
    assert told is None or re.search(told, found[0]), found


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_first_trees_without_a_split_are_the_same_on_workers_of_unlike_many_rows(task):
    params = {"min_sum_hessian_in_leaf": 140.0}  # a rarer class has less than twice that
    job = make_job(task, params=params, rounds=4, early_stopping=None, workers=2)
    train, valid = make_shard(801, task=task), make_shard(200, seed=1, task=task)
    trainer = load_trainer("lightgbm")

    def work(mesh):
        own = Shard(train.tables[mesh.rank :: 2], train.labels[mesh.rank :: 2])
        return trainer.fit(trainer.prepare(own, valid, job, mesh), job, mesh, go_on)

    first, second = gang_of(2, work)
    assert first.model == second.model
    counts = re.findall(r"num_leaves=1\n(?:.*\n)*?leaf_count=([1-9]\d*)", first.model.decode())
    assert set(counts) == {"801"}


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"neg_bagging_fraction": 0.1}, (1, 0.1)),
        ({"pos_bagging_fraction": 0.5, "neg_bagging_fraction": 0.2}, (0.5, 0.2)),
        ({"pos_bagging_fraction": 0.5}, (0.5, 1)),
        ({"bagging_fraction": 0.5, "neg_bagging_fraction": 1.0}, (0.5, 0.5)),
    ],
)
def test_a_bag_by_class_has_as_much_of_class_0_on_a_worker_without_class_1(params, wanted):
    """There the library takes all rows: ten times as many of class 0 as on the other one."""
    params = {"bagging_freq": 1, **params}
    job = make_job(params=params, rounds=4, early_stopping=None, workers=2)
    train, valid = make_shard(2400), make_shard(300, seed=1)
    whole = pa.concat_tables(train.tables)
    # the first worker has rows of both classes, the second one has nothing but class 0
    second = np.flatnonzero(train.label == 0)[:800]
    parts = np.setdiff1d(np.arange(2400), second), second
    trainer = load_trainer("lightgbm")

    def work(mesh):
        mine = parts[mesh.rank]
        own = Shard((whole.take(mine),), (train.label[mine],))
        return trainer.fit(trainer.prepare(own, valid, job, mesh), job, mesh, go_on).model.decode()

    first, other = gang_of(2, work)
    assert first == other
    positive = np.count_nonzero(train.label)
    rows = wanted[0] * positive + wanted[1] * (2400 - positive)
    trees = re.findall(r"internal_count=(\d+)", first)
    assert [int(count) for count in trees] == pytest.approx([rows] * 4, rel=0.15)
    assert f"[bagging_fraction: {params.get('bagging_fraction', 1)}]" in first


def test_what_the_specs_page_says_of_lightgbm_with_several_workers_is_still_so():
    """A leaf's rows are estimated, and a feature that one worker gives up is asked for again."""
    rng = np.random.default_rng(0)
    some, other = rng.integers(0, 2, (2, 2000)).astype(np.float32)
    label = 3.0 * (2 * other - 1) * some + other + 0.1 * rng.standard_normal(2000)
    rows = pa.table({"f0": some, "f1": other})
    job = make_job("regression", categorical=(), rounds=3, early_stopping=None, workers=2)
    trainer = load_trainer("lightgbm")

    def trained(params, mesh):
        mine = np.arange(2000) % mesh.world == mesh.rank
        own = Shard((rows.filter(pa.array(mine)),), (label[mine],))
        asked = replace(job, params=params, workers=mesh.world)
        return trainer.fit(trainer.prepare(own, own, asked, mesh), asked, mesh, go_on).model

    def leaves(model):
        return [int(n) for n in re.search(rb"leaf_count=(.*)", model)[1].split()]

    stubborn = {"min_gain_to_split": 20.0}
    assert len(leaves(trained(stubborn, Alone()))) == 2
    assert len(leaves(gang_of(2, partial(trained, stubborn))[0])) == 4
    fair = {"objective": "fair"}
    one, two = trained(fair, Alone()), gang_of(2, partial(trained, fair))[0]
    assert len(leaves(one)) == len(leaves(two)) == 4
    assert sorted(leaves(one)) != pytest.approx(sorted(leaves(two)), rel=0.1)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("world", [2, 3])
def test_a_category_that_is_always_null_ends_no_worker(name, world):
    train, valid = make_shard(1200, parts=6), make_shard(300, seed=1, parts=3)
    names = ["f0", "f1", "f2", "f3", "f4", "f5"]

    def shard(whole, rank):
        tables = [
            pa.table([t["f0"], nulls, t["f1"], t["f2"], t["f3"], nulls], names=names)
            for t in whole.tables[rank::world]
            for nulls in [pa.nulls(t.num_rows, pa.int32())]
        ]
        return Shard(tuple(tables), whole.labels[rank::world])

    job = make_job(categorical=(1, 4, 5), rounds=8, early_stopping=None, workers=world)
    plain = replace(job, categorical=(3,), workers=1)
    trainer = load_trainer(name)

    def work(mesh):
        data = trainer.prepare(shard(train, mesh.rank), shard(valid, mesh.rank), job, mesh)
        return trainer.fit(data, job, mesh, go_on)

    found = gang_of(world, work)
    assert len({one.model for one in found}) == 1
    wanted = trainer.fit(trainer.prepare(train, valid, plain, Alone()), plain, Alone(), go_on)
    assert found[0].valid == pytest.approx(wanted.valid, abs=0.01)


def test_blocks_of_another_size_are_not_given_to_lightgbm():
    told = threading.Event()

    def work(mesh):
        net = Network(mesh)
        found = net._exchange([b"histogram"[mesh.rank :]] * 2, [9, 9])
        if mesh.rank:
            told.wait(1)  # what is missing of nine bytes does not come
            return found
        assert found is None
        assert net._exchange([b"histogram"] * 2, [9, 9]) is None  # nothing is said any more
        with pytest.raises(EngineError, match="training worker 2 is at another step"):
            net.check()
        told.set()
        return None

    assert gang_of(2, work) == [None, [b"histogram", b"istogram"]]


def test_rows_that_nobody_read_and_rows_read_twice_stop_the_training(shared, tmp_path):
    made = shared("binary")
    request = fit_request(made.catalog, made.manifest, make_spec(workers=2), Crew(2, 1))
    (tmp_path / REQUEST).write_text(request.to_json())

    def work(mesh):
        # the second worker reads what the first one reads; their sum is right all the same
        reader = SecondFirst(mesh) if mesh.rank else mesh
        with pytest.raises(IntegrityError, match=r"2 workers must read each row of .* once"):
            run_fit(tmp_path, silent, reader)

    gang_of(2, work)


def test_rows_read_twice_beside_rows_left_out_are_found(shared):
    made = shared("binary")
    home = made.catalog.folder(made.manifest)
    train, valid = (read_shard(home, made.manifest, part) for part in ("train", "valid"))
    prove_rows(Alone(), made.manifest, (train, valid))
    first, *others = train.pieces
    half = first.rows // 2
    pieces = (replace(first, rows=half), replace(first, start=half - 1), *others)
    labels = (train.labels[0][:half], train.labels[0][half:], *train.labels[1:])
    double = Shard((), labels, pieces)
    with pytest.raises(IntegrityError, match="once, but did not in row group 0 of"):
        prove_rows(Alone(), made.manifest, (double, valid))


class SecondFirst:
    """A worker that believes to be the first."""

    rank, world, host = 0, 2, "127.0.0.1"

    def __init__(self, mesh):
        self.agree, self.exchange = mesh.agree, mesh.exchange


def test_another_version_on_one_worker_is_refused_with_both_named():
    versions = [{"Python": "3.11.9", "xgboost": "3.2.0"}, {"Python": "3.11.9", "xgboost": "3.1.0"}]

    def work(mesh):
        with pytest.raises(RefusedError) as caught:
            prove_same_versions(mesh, versions[mesh.rank])
        return str(caught.value)

    told = gang_of(2, work)
    assert told[0] == told[1]
    assert "worker 2 must run xgboost 3.2.0 as worker 1 does, but has 3.1.0;" in told[0]


def test_a_worker_that_has_other_versions_than_the_command_trains_nothing(shared, tmp_path):
    made = shared("binary")
    request = fit_request(made.catalog, made.manifest, make_spec(trainer="lightgbm"), Crew(1, 1))
    assert request.versions["lightgbm"] == lgb.__version__
    other = {**request.versions, "lightgbm": "4.0.0"}
    (tmp_path / REQUEST).write_text(request.model_copy(update={"versions": other}).to_json())
    with pytest.raises(RefusedError, match=r"must run lightgbm 4\.0\.0 as the command does, but"):
        run_fit(tmp_path, silent)


def test_weights_and_classes_are_those_of_all_workers():
    labels = [np.array([0.0, 0, 0]), np.array([1.0])]
    job = make_job(imbalance="weight")

    def work(mesh):
        mine = labels[mesh.rank]
        check_labels(mine, mine, job, mesh)  # each worker alone has a single class
        return row_weights(mine, job, mesh).tolist()

    assert gang_of(2, work) == [pytest.approx([4 / 6] * 3), pytest.approx([2.0])]


def test_one_class_on_all_workers_is_refused():
    def work(mesh):
        with pytest.raises(DataError, match="all 4 are of class 1"):
            check_labels(np.ones(2), np.ones(2), make_job(), mesh)

    gang_of(2, work)


def test_numbers_of_all_workers_are_put_together():
    def work(mesh):
        mine = np.array([mesh.rank, 10 - mesh.rank])
        rows = np.full((mesh.rank + 1, 2), float(mesh.rank))
        return (
            total(mesh, mine).tolist(),
            highest(mesh, mine).tolist(),
            to_first(mesh, rows)[:, 0].tolist(),
            from_first(mesh, rows, lambda all_: all_.sum()),
        )

    found = gang_of(3, work)
    assert [one[:2] for one in found] == [([3, 27], [2, 10])] * 3
    assert [one[2] for one in found] == [[0.0, 1, 1, 2, 2, 2], [], []]
    assert [one[3] for one in found] == [16.0] * 3
