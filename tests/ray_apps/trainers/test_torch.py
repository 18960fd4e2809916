"""What is the networks' own: ranks, codes, parameters, files, and rows that stay apart."""

from __future__ import annotations

import itertools
import json
import struct
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from arclight.errors import EngineError, IntegrityError, RefusedError, SpecError
from ray_apps.gang import Alone
from ray_apps.lean import lean_imports
from ray_apps.shards import Shard, dense
from ray_apps.trainers import InitModel, Values, load_trainer
from ray_apps.trainers.boosting import Snapshot
from ray_apps.trainers.torch_adam import BETAS, EPSILON, AdamW
from ray_apps.trainers.torch_file import unpack
from ray_apps.trainers.torch_growing import STEP_FLOATS, _last_rate
from ray_apps.trainers.torch_inputs import Inputs, fit_inputs
from ray_apps.trainers.torch_nets import _Dropout, build, set_dropout
from ray_apps.trainers.torch_params import NETS, params_at, params_of
from ray_apps.trainers.torch_scores import SCORED_FLOATS, rows_at_once
from tests.ray_apps.make_dataset import SMALL_NET
from tests.ray_apps.trainers.test_trainers import fit, load, make_job, make_shard


def test_a_number_is_the_normal_score_of_its_rank():
    """Whatever its scale and skew; order is kept, ends are flat, null is marked."""
    rng = np.random.default_rng(0)
    column = np.exp(3 * rng.standard_normal(20_000)).astype(np.float32)
    column[:50] = np.nan
    inputs = fit_inputs(column[:, None], (), Alone(), seed=0)
    seen = inputs.see(column[:, None])
    numbers = seen.numbers[50:, 0]
    assert abs(float(numbers.mean())) < 0.02
    assert float(numbers.std()) == pytest.approx(1, abs=0.05)
    assert np.all(np.diff(numbers[np.argsort(column[50:])]) >= 0)
    assert seen.is_null[:50, 0].all()
    assert not seen.is_null[50:].any()
    assert not seen.numbers[:50].any()
    far = inputs.see(np.array([[1e30], [-1e30], [np.inf]], np.float32)).numbers.ravel()
    assert far.tolist() == [numbers.max(), numbers.min(), numbers.max()]


@pytest.mark.parametrize("values", [[3.0], [np.nan], [0.0, 1.0], [1.0, np.nan]])
def test_features_of_few_values(values):
    column = np.resize(np.array(values, np.float32), 1000)
    seen = fit_inputs(column[:, None], (), Alone(), seed=0).see(column[:, None])
    assert np.isfinite(seen.numbers).all()
    known = {value for value in values if not np.isnan(value)}
    assert len(np.unique(seen.numbers[~np.isnan(column)])) == len(known)


@pytest.mark.parametrize("rare", [1, 700])
def test_a_rare_value_is_told_from_the_others(rare):
    column = np.zeros((100_000, 2), np.float32)
    column[:rare, 0] = 1.0
    column[:rare, 1] = np.arange(rare) + 1  # a spike and a long tail
    inputs = fit_inputs(column, (), Alone(), seed=0)
    seen = inputs.see(column).numbers
    assert (seen[:rare] > seen[-1] + [2.0, 0.1]).all()
    assert np.isfinite(seen).all()
    assert len(np.unique(seen[:rare, 1])) == rare


def test_a_rare_flag_that_decides_is_learnt(tmp_path):
    rng = np.random.default_rng(0)
    noise, flag = rng.standard_normal((20_000, 1)), rng.random((20_000, 1)) < 0.004
    label = (flag[:, 0] | (rng.random(20_000) < 0.01)).astype(np.float64)
    columns = {"f0": noise[:, 0].astype(np.float32), "f1": flag[:, 0].astype(np.float32)}
    shard = Shard((pa.table(columns),), (label,))
    job = make_job(categorical=(), rounds=15, early_stopping=None)
    model = load("torch", fit("torch", job, shard, shard), tmp_path)
    without, with_flag = model.predict(np.array([[0, 0], [0, 1]], np.float32))
    assert without < 0.05
    assert with_flag > 0.5


@pytest.mark.parametrize("net", NETS)
def test_nulls_say_nothing_until_a_row_of_train_has_one(net):
    """Weights that only such rows would move are 0, so chance does not speak for them."""
    inputs = fit_inputs(np.zeros((9, 4), np.float32), (3,), Alone(), seed=0)
    fresh = build(params_of(make_job(params={**SMALL_NET, "net": net})).shape(inputs, 1)).eval()
    numbers, codes = torch.randn(5, 3), torch.zeros(5, 1, dtype=torch.int64)
    known, null = torch.zeros(5, 3), torch.ones(5, 3)
    assert torch.equal(fresh(numbers, known, codes), fresh(numbers, null, codes))
    null_code, unseen = (torch.full((5, 1), inputs.levels[0] - back) for back in (2, 1))
    assert torch.equal(fresh(numbers, known, null_code), fresh(numbers, known, unseen))
    assert not torch.equal(fresh(numbers, known, codes), fresh(numbers, known, null_code))


@pytest.mark.parametrize(("mean", "spread"), [(1.7e12, 1e4), (1e8, 1.0), (0.0, 1e-6)])
def test_a_regression_s_label_may_lie_anywhere(mean, spread, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(4000)
    shard = Shard((pa.table({"f0": x.astype(np.float32)}),), (mean + spread * x,))
    job = make_job("regression", categorical=(), rounds=15, early_stopping=None)
    fitted = fit("torch", job, shard, shard)
    assert fitted.valid < 0.2 * spread


def test_rows_are_scored_in_parts_that_fit_into_memory():
    small = params_of(make_job(params={"net": "ft_transformer"}))
    wide = fit_inputs(np.zeros((2, 400), np.float32), (), Alone(), seed=0)
    rows = rows_at_once(small.shape(wide, 1))
    assert 16 <= rows < 64
    assert rows * small.shape(wide, 1).row_floats < 2 * SCORED_FLOATS


def test_codes_that_train_never_had_are_one_and_null_is_another():
    train = np.array([[0.0], [2.0], [np.nan]], np.float32)
    inputs = fit_inputs(train, (0,), Alone(), seed=0)
    assert inputs.levels == (5,)
    rows = np.array([[0], [1], [2], [3], [99], [-1], [np.nan]], np.float32)
    assert inputs.see(rows).codes.ravel().tolist() == [0, 1, 2, 4, 4, 4, 3]


@pytest.mark.parametrize("net", NETS)
def test_a_level_between_others_that_no_row_has_is_as_one_never_seen(net, tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.choice([0, 2, 3, 9], 600).astype(np.int32)
    table = pa.table({"f0": rng.standard_normal(600).astype(np.float32), "f1": codes})
    rows = Shard((table,), ((codes == 2).astype(np.float64),))
    job = make_job(categorical=(1,), codes=(12,), rounds=3, params={"net": net, "heads": 2})
    model = load("torch", fit("torch", job, rows, rows), tmp_path)
    places = np.array([[0.5, code] for code in (1, 4, 8, 50, 2)], np.float32)
    *absent, unseen, known = model.predict(places)
    assert absent == [unseen] * 3
    assert abs(known - unseen) > 1e-3


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_net_learns_every_task(net, task, tmp_path):
    params = {"net": net, "width": 16, "heads": 2, "depth": 1, "batch_rows": 64}
    job = make_job(task, rounds=10, early_stopping=None, params={**params, "learning_rate": 0.01})
    train, valid = make_shard(2000, task=task), make_shard(500, seed=1, task=task)
    fitted = fit("torch", job, train, valid)
    at_least = {"binary": 0.93, "multiclass": -0.6, "regression": -0.6}[task]
    assert (fitted.valid if task == "binary" else -fitted.valid) > at_least
    model = load("torch", fitted, tmp_path)
    gains = model.gains()
    assert min(gains[0], gains[3]) > 5 * max(gains[1], gains[2])


def test_importance_is_measured_where_the_metric_is_defined(tmp_path, monkeypatch):
    """The rows of a rare class may be none of those that would do."""
    monkeypatch.setattr("ray_apps.trainers.torch_scores.SHUFFLED_FLOATS", 0)
    train, valid = make_shard(4000), make_shard(4000, seed=1)
    label = valid.label
    label[np.linspace(0, 3999, 256).astype(int)] = 0
    valid = replace(valid, labels=(label * (np.cumsum(label) < 50),))
    job = make_job(rounds=3, early_stopping=None)
    model = load("torch", fit("torch", job, train, valid), tmp_path)
    assert model.gains().max() > 0.05


@pytest.mark.parametrize("net", NETS)
def test_a_row_s_score_does_not_depend_on_the_rows_beside_it(net, tmp_path):
    params = {"net": net, "width": 16, "heads": 2, "depth": 1}
    fitted = fit(
        "torch", make_job(rounds=2, params=params), make_shard(500), make_shard(200, seed=1)
    )
    model = load("torch", fitted, tmp_path)
    matrix = dense(
        pa.concat_tables(make_shard(9000, seed=2).tables)
    )  # more than are scored at once
    whole = model.predict(matrix)
    alone = np.concatenate([model.predict(matrix[i : i + 1]) for i in range(0, 9000, 500)])
    assert np.allclose(whole[::500], alone, atol=1e-6)
    assert model.predict(matrix[:0]).shape == (0,)


def test_weights_are_those_of_torch_s_own_optimizer():
    torch.manual_seed(0)
    net, twin = nn.Linear(5, 3), nn.Linear(5, 3)
    twin.load_state_dict(net.state_dict())
    ours = AdamW(list(net.parameters()), weight_decay=0.1)
    theirs = torch.optim.AdamW(twin.parameters(), weight_decay=0.1, betas=BETAS, eps=EPSILON)
    for rate in (1e-2, 3e-2, 1e-3):
        for group in theirs.param_groups:
            group["lr"] = rate
        rows = torch.randn(7, 5)
        for one in (net, twin):
            one.zero_grad()
            one(rows).square().sum().backward()
        ours.step([p.grad for p in net.parameters()], rate)
        theirs.step()
    for mine, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_depth": 3}, "a network has no 'max_depth'"),
        ({"learnig_rate": 0.1}, "Did you mean 'learning_rate'"),
        ({"net": "cnn"}, "net must be one of mlp, resnet, ft_transformer, got cnn"),
        ({"width": 0}, "width must be a whole number from 1 to 8192, got 0"),
        ({"width": True}, "width must be a whole number"),
        ({"dropout": 1.0}, "dropout must be a number at least 0 and less than 1"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number more than 0"),
        ({"net": "ft_transformer", "width": 30}, "multiple of heads"),
    ],
)
def test_params_are_checked_by_name_and_value(params, message):
    with pytest.raises(SpecError, match=message):
        load_trainer("torch").check_params(make_job(params=params))


def test_a_net_has_defaults_of_its_own():
    assert params_of(make_job(params={"net": "ft_transformer"})).width == 64
    assert params_of(make_job(params={"net": "ft_transformer", "width": 8})).width == 8


def test_T4_a_network_that_diverges_ends_the_training():
    job = make_job(params={"learning_rate": 1e30, "clip": 1e30}, early_stopping=None, rounds=50)
    rounds = []

    def watch(history, _model) -> bool:
        rounds.append(len(history))
        return True

    with pytest.raises(EngineError, match="the training diverged: 'auc' on the valid split"):
        fit("torch", job, make_shard(800), make_shard(200, seed=1), watch)
    assert len(rounds) < 5


def test_a_file_is_tensors_and_json_and_anything_else_is_refused(tmp_path):
    fitted = fit("torch", make_job(rounds=1), make_shard(300), make_shard(200, seed=1))
    (size,) = struct.unpack("<Q", fitted.model[:8])
    about = json.loads(json.loads(fitted.model[8 : 8 + size])["__metadata__"]["about"])
    assert about["shape"]["net"] == "mlp"
    other = json.dumps({"__metadata__": {"about": json.dumps({**about, "format": "x"})}}).encode()
    files = (
        fitted.model[:-4],
        fitted.model[: 8 + size],
        b"\0" * 100,
        struct.pack("<Q", len(other)) + other,
        fitted.model.replace(b'\\"width\\": 32', b'\\"width\\": 33'),
        fitted.model.replace(b'\\"features\\": 4', b'\\"features\\": 5'),
        fitted.model.replace(b'\\"label\\": [0.0, 1.0]', b'\\"label\\": [        ]'),
    )
    for content in files:
        assert content != fitted.model
        with pytest.raises(IntegrityError, match="not a network Arclight can read"):
            load("torch", replace(fitted, model=content), tmp_path)


@pytest.mark.parametrize("net", NETS)
def test_a_network_that_is_read_takes_no_draws_from_one_in_training(net, tmp_path):
    """As a search among trainers does, that weighs its trials by other figures too."""
    params = {"net": net, "width": 16, "heads": 2, "depth": 2, "dropout": 0.3}
    job = make_job(rounds=3, early_stopping=None, params=params)
    train, valid = make_shard(3000), make_shard(200, seed=1)
    alone = fit("torch", job, train, valid)
    path = tmp_path / "model.safetensors"
    path.write_bytes(alone.model)
    before = torch.get_rng_state()
    unpack(path)
    assert torch.equal(torch.get_rng_state(), before)
    is_over, read = threading.Event(), []

    def read_on():
        while not is_over.is_set():
            read.append(unpack(path))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        beside = fit("torch", job, train, valid)
        is_over.set()
        reading.result()
    assert read
    assert beside.model == alone.model


def test_workers_add_their_gradients_up_to_those_of_one(tmp_path):
    """Without dropout and with the whole train as one batch, two workers take one's steps."""
    from tests.ray_apps.gang.test_mesh import gang_of

    params = {**SMALL_NET, "dropout": 0.0, "batch_rows": 10_000}
    job = make_job(rounds=5, early_stopping=None, params=params, imbalance="weight")
    train, valid = make_shard(999, parts=3), make_shard(300, seed=1, parts=2)
    alone = fit("torch", job, train, valid)
    cuts = [(0, 1), (1, 3)]  # one has twice the rows of the other

    def work(mesh):
        low, high = cuts[mesh.rank]
        own = replace(train, tables=train.tables[low:high], labels=train.labels[low:high])
        part = replace(
            valid, tables=valid.tables[mesh.rank :][:1], labels=valid.labels[mesh.rank :][:1]
        )
        trainer = load_trainer("torch")
        return trainer.fit(trainer.prepare(own, part, job, mesh), job, mesh, lambda *_: True)

    first, second = gang_of(2, work)
    assert first.model == second.model
    matrix = dense(pa.concat_tables(valid.tables))
    scores = [load("torch", one, tmp_path).predict(matrix) for one in (alone, first)]
    assert np.allclose(*scores, atol=2e-3)


@contextmanager
def rows_seen():
    """Note how many rows each network is trained on at once."""
    seen = []

    def note(net, rows):
        if hasattr(net, "BELOW") and net.training:
            seen.append(len(rows[0]))

    hook = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def test_a_step_whose_rows_take_much_memory_is_gone_through_in_parts(tmp_path, monkeypatch):
    """And is the same step, but for last bits and what dropout draws."""
    train, valid = make_shard(1000), make_shard(300, seed=1)
    params = {**SMALL_NET, "dropout": 0.0, "batch_rows": 300}
    job = make_job(rounds=3, early_stopping=None, params=params, imbalance="weight")
    with rows_seen() as whole:
        expected = fit("torch", job, train, valid)
    assert whole == [300, 300, 300, 100] * 3
    monkeypatch.setattr("ray_apps.trainers.torch_growing.STEP_FLOATS", 0)
    with rows_seen() as parts:
        found = fit("torch", job, train, valid)
    assert parts == ([*[16] * 18, 12] * 3 + [*[16] * 6, 4]) * 3
    matrix = dense(valid.tables[0])
    scores = [load("torch", one, tmp_path).predict(matrix) for one in (expected, found)]
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "numbers", "most"), [("mlp", 500, 10_000), ("ft_transformer", 20, 1024)]
)
def test_the_usual_network_takes_a_step_at_once(net, numbers, most):
    shape = params_of(make_job(params={"net": net})).shape(
        fit_inputs(np.zeros((9, numbers), np.float32), (), Alone(), seed=0), 1
    )
    assert STEP_FLOATS // (shape.row_floats * shape.depth) >= most


def test_the_rate_grows_and_falls_and_hangs_on_nothing_but_the_step():
    from ray_apps.trainers.torch_growing import Growing

    growing = Growing.__new__(Growing)
    growing._job, growing._steps = make_job(rounds=10), 10
    growing._params = params_of(make_job(params={"learning_rate": 1.0, "warmup": 0.1}))
    growing._now = growing._params
    rates = [growing._rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.001


def histories(params_after, **job):
    """Return the metric after each epoch, and the model."""
    train, valid = make_shard(2000), make_shard(500, seed=1)
    asked = make_job(rounds=6, early_stopping=None, params_after=params_after, **job)
    trainer, seen = load_trainer("torch"), []
    data = trainer.prepare(train, valid, asked, Alone())
    fitted = trainer.fit(data, asked, Alone(), lambda h, _: not seen.append(h[-1]))
    return seen, fitted.model


@pytest.mark.parametrize("net", ["mlp", "resnet", "ft_transformer"])
@pytest.mark.parametrize(
    "changed",
    [{"learning_rate": 0.01}, {"weight_decay": 5.0}, {"dropout": 0.6}, {"clip": 1e-3}],
    ids=lambda one: next(iter(one)),
)
def test_what_is_another_after_some_epochs_is_another_from_there_on(net, changed):
    params = {"net": net, "width": 16, "depth": 1, "dropout": 0.1, "learning_rate": 1e-3}
    plain, model = histories({}, params=params)
    same = {2: {name: {**params, "weight_decay": 1e-4, "clip": 1.0}[name] for name in changed}}
    assert histories(same, params=params) == (plain, model)
    other, _ = histories({2: changed}, params=params)
    assert other[:2] == plain[:2]
    assert all(a != b for a, b in zip(other[2:], plain[2:], strict=True))
    back, _ = histories({2: changed, 6: {}}, params=params)
    assert back == other


@pytest.mark.parametrize("net", NETS)
def test_dropout_is_changed_wherever_there_is_some(net):
    shape = params_of(make_job(params={"net": net, "width": 16, "depth": 2})).shape(
        fit_inputs(np.zeros((9, 2), np.float32), (), Alone(), seed=0), 1
    )
    made = build(shape)
    set_dropout(made, 0.37)
    shares = [one.p for one in made.modules() if isinstance(one, nn.Dropout)]
    shares += [one.dropout for one in made.modules() if isinstance(one, nn.MultiheadAttention)]
    assert len(shares) >= 2
    assert set(shares) == {0.37}


@pytest.mark.parametrize("share", [0.001, 0.1, 0.37, 0.5, 0.93])
def test_dropout_drops_its_share_and_makes_up_for_it(share):
    torch.manual_seed(5)
    made = _Dropout(share)
    rows = torch.ones(999, 401, requires_grad=True)  # no whole number of draws
    found = made(rows)
    is_kept = found != 0
    assert found[is_kept].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-3)
    deviation = (share * (1 - share) / rows.numel()) ** 0.5
    assert 1 - is_kept.float().mean().item() == pytest.approx(share, abs=5 * deviation + 1e-5)
    # each place of a draw and its neighbours on their own: four come of one draw
    lanes = is_kept.flatten()[: rows.numel() // 4 * 4].view(-1, 4).float()
    assert lanes.mean(0).tolist() == pytest.approx([1 - share] * 4, abs=10 * deviation + 1e-5)
    if share > 0.05:
        assert np.corrcoef(lanes.numpy().T) == pytest.approx(np.eye(4), abs=0.02)
    found.sum().backward()
    assert torch.equal(rows.grad, found.detach())


def test_dropout_draws_by_the_seed_and_only_in_training():
    rows, made = torch.randn(50, 7), _Dropout(0.4)
    torch.manual_seed(1)
    first, second = made(rows), made(rows)
    torch.manual_seed(1)
    assert torch.equal(made(rows), first)
    assert not torch.equal(first, second)
    assert torch.equal(made.eval()(rows), rows)
    assert torch.equal(_Dropout(0.0)(rows), rows)


def test_categories_have_the_numbers_and_the_gradients_of_an_embedding():
    torch.manual_seed(2)
    made = build(params_of(make_job()).shape(_inputs_with((5, 9, 3)), 1)).flat.categories
    codes = torch.stack([torch.randint(0, n, (400,)) for n in (5, 9, 3)], 1)
    wanted = torch.nn.functional.embedding(codes + torch.tensor([0, 5, 14]), made.table.weight)
    pull = torch.randn_like(wanted)
    (theirs,) = torch.autograd.grad(wanted, made.table.weight, pull)
    found = made(codes)
    (ours,) = torch.autograd.grad(found, made.table.weight, pull)
    assert torch.equal(found, wanted)
    torch.testing.assert_close(ours, theirs)


def _inputs_with(levels):
    places = tuple(range(len(levels)))
    return Inputs(features=len(levels), categorical=places, knots=(), scores=(), levels=levels)


def test_rows_seen_on_threads_and_in_parts_are_those_of_one_pass():
    train = make_shard(30_000).matrix()
    inputs = fit_inputs(train, (3,), Alone(), seed=1)
    with ThreadPoolExecutor(2) as pool:
        seen = inputs.see(train, pool.map)
    rows = [inputs.see(train[i : i + 1]) for i in (0, 8191, 8192, 29_999)]
    for name in ("numbers", "is_null", "codes"):
        whole = getattr(seen, name)
        assert len(whole) == len(train)
        few = np.concatenate([getattr(one, name) for one in rows])
        assert np.array_equal(few, whole[[0, 8191, 8192, 29_999]])


def test_the_least_that_rows_take_is_what_they_take_while_they_are_laid_out():
    rng, rows, features = np.random.default_rng(0), 400_000, 8
    columns = [rng.standard_normal(rows, np.float32) for _ in range(features)]
    table = pa.table({f"f{i}": column for i, column in enumerate(columns)})
    trainer, job = load_trainer("torch"), replace(make_job(), categorical=())
    least = rows * trainer.least_row_bytes(Values(features, features, features))
    tracemalloc.start()
    try:
        train = Shard((table,), (np.resize([0.0, 1.0], rows),))
        few = Shard((table.slice(0, 100),), (np.resize([0.0, 1.0], 100),))
        trainer.prepare(train, few, job, Alone())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 * peak < least < 1.2 * peak


def test_a_training_that_goes_on_has_the_parameters_of_its_epoch():
    """Whether it was disturbed before, at or after the change."""
    train, valid = make_shard(2000), make_shard(500, seed=1)
    job = make_job(
        rounds=6,
        early_stopping=None,
        params={"width": 16, "depth": 1},
        params_after={2: {"dropout": 0.5, "weight_decay": 0.5}, 4: {"learning_rate": 0.02}},
    )
    trainer, kept = load_trainer("torch"), {}

    def keep(history, model):
        kept[len(history)] = Snapshot(model(), tuple(history))
        return True

    data = trainer.prepare(train, valid, job, Alone())
    whole = trainer.fit(data, job, Alone(), keep)
    for rounds in (1, 2, 3, 4, 5):
        begun = trainer.prepare(train, valid, job, Alone(), kept[rounds])
        assert trainer.fit(begun, job, Alone(), lambda *_: True).model == whole.model


def test_the_last_layers_own_rate_stays_its_own():
    job = make_job(
        params={"learning_rate": 0.001},
        params_after={3: {"learning_rate": 0.02}},
        init=InitModel(Path("none"), head_rate=0.01),
    )
    assert _last_rate(job, params_of(job)) == pytest.approx(10)
    assert _last_rate(job, params_at(params_of(job), job, 3)) == pytest.approx(0.5)
    assert _last_rate(make_job(), params_of(make_job())) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({3: {"width": 8}}, r"train\.params_after\.3: .* cannot take another 'width'"),
        (
            {3: {"dropout": 1.5}},
            r"train\.params_after\.3: dropout must be a number at least 0 and less",
        ),
        ({3: {"learning_rat": 0.1}}, r"Did you mean 'learning_rate'"),
    ],
)
def test_what_cannot_change_on_the_way_is_refused(changes, words):
    with pytest.raises(SpecError, match=words):
        load_trainer("torch").check_params(make_job(params_after=changes))


def test_short_products_train_as_well(tmp_path):
    """Weights, sums and scores stay float32; what was used is told."""
    train, valid = make_shard(4000), make_shard(1000, seed=1)
    job = make_job(rounds=8, early_stopping=None)
    whole = fit("torch", job, train, valid)
    short = fit("torch", replace(job, params={"precision": "bf16"}), train, valid)
    assert (whole.params["precision"], short.params["precision"]) == ("float32", "bf16")
    assert short.model != whole.model
    assert short.valid == pytest.approx(whole.valid, abs=0.01)
    assert whole.valid > 0.9
    matrix = dense(valid.tables[0])
    near = [load("torch", one, tmp_path).predict(matrix) for one in (whole, short)]
    np.testing.assert_allclose(*near, atol=0.1)


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bf16")])
def test_products_are_short_by_themselves_on_a_gpu_alone(device, precision):
    assert params_of(make_job(device=device)).precision == precision
    asked = make_job(device=device, params={"precision": "float32"})
    assert params_of(asked).precision == "float32"


@pytest.mark.fault
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_a_compiled_network_is_the_same_network():
    train, valid = make_shard(4000), make_shard(1000, seed=1)
    job = make_job(rounds=3, early_stopping=None, params={"dropout": 0.0})
    plain = fit("torch", job, train, valid)
    with lean_imports():  # as in a worker
        made = fit("torch", replace(job, params={"dropout": 0.0, "compile": True}), train, valid)
    assert made.valid == pytest.approx(plain.valid, abs=1e-3)


@pytest.mark.fault
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_steps_stay_compiled_after_more_dropouts_than_torch_compiles_a_network_for(monkeypatch):
    """Of one network or of several in a process; and one that goes on has the same bytes."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    train, valid = make_shard(1000), make_shard(300, seed=1)  # the last step has fewer rows
    job = make_job(
        rounds=4,
        early_stopping=None,
        params={"width": 16, "depth": 1, "compile": True},
        params_after={i: {"dropout": 0.1 + i / 10} for i in (1, 2, 3)},
    )
    trainer, kept = load_trainer("torch"), {}

    def keep(history, model):
        kept[len(history)] = Snapshot(model(), tuple(history))
        return True

    whole = trainer.fit(trainer.prepare(train, valid, job, Alone()), job, Alone(), keep)
    for rounds in (1, 2, 3):
        begun = trainer.prepare(train, valid, job, Alone(), kept[rounds])
        assert trainer.fit(begun, job, Alone(), lambda *_: True).model == whole.model


@pytest.mark.parametrize("is_link", [True, False])
def test_nobody_else_can_say_what_a_compiled_network_runs(is_link, tmp_path, monkeypatch):
    """The compiler loads code and pickles from a folder whose name can be foreseen."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Path(default_cache_dir())
    assert place.parent == tmp_path
    if is_link:
        place.symlink_to(tmp_path)
    else:
        place.touch()
    job = make_job(rounds=1, params={"compile": True})
    with pytest.raises(RefusedError, match="must be a folder of this user and not a link"):
        fit("torch", job, make_shard(300), make_shard(200, seed=1))
