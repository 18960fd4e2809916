"""Rows evened out for training, and scores that are probabilities of the data as it is."""

from __future__ import annotations

from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from arclight.bundle import WEIGHING
from arclight.errors import DataError, SpecError
from arclight.metrics import measure, measure_scores
from ray_apps.gang import Alone
from ray_apps.shards import Reader, Shard, read_shard
from ray_apps.trainers import load_trainer
from ray_apps.trainers.imbalance import even_out, put_right
from ray_apps.trainers.lgbm import _shifted as lgbm_shifted
from ray_apps.trainers.xgb_trees import shifted as xgb_shifted
from tests.ray_apps.conftest import train_here as train
from tests.ray_apps.make_dataset import make_dataset, make_spec
from tests.ray_apps.trainers.test_trainers import fit, go_on, load, make_job

LIBRARIES = ("xgboost", "lightgbm", "torch")
SAMPLED = ("downsample", "upsample")


def uneven(rows: int, *, seed: int = 0, flip: bool = False) -> Shard:
    """Rows of which about one in twenty is of class 1, by a logistic rule that is known."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 2)).astype(np.float32)
    chance = 1 / (1 + np.exp(-(1.5 * x[:, 0] - 3.8)))
    label = (rng.random(rows) < chance).astype(np.float64)
    table = pa.table(
        {"f0": x[:, 0], "f1": x[:, 1], "f2": pa.array(rng.integers(0, 3, rows), pa.int32())}
    )
    label = 1 - label if flip else label
    cut = rows // 3
    return Shard((table[:cut], table[cut:]), (label[:cut], label[cut:]))


def job_of(**changes):
    section = {"params": {"learning_rate": 0.2}, "metric": "log_loss", **changes}
    return make_job(categorical=(2,), **section)


@pytest.mark.parametrize("flip", [False, True], ids=["rare ones", "rare zeros"])
@pytest.mark.parametrize("how", SAMPLED)
@pytest.mark.parametrize("name", LIBRARIES)
def test_scores_are_probabilities_of_the_data_as_it_is(name, how, flip, tmp_path):
    train_rows, valid = uneven(30_000, flip=flip), uneven(10_000, seed=1, flip=flip)
    matrix, label = valid.matrix(), valid.label
    rounds = 12 if name == "torch" else 40
    evened, job = even_out(train_rows, job_of(rounds=rounds, imbalance=how), Alone())
    fitted = fit_evened(name, evened, valid, job)
    scores = load(name, fitted, tmp_path).predict(matrix)
    assert scores.mean() == pytest.approx(label.mean(), rel=0.15)
    # the metric that stopped the training is that of the file that came out of it
    assert fitted.valid == pytest.approx(
        measure_scores(job.task, job.metric, label, scores), abs=1e-5
    )
    plain = fit(name, job_of(rounds=rounds), train_rows, valid)
    assert fitted.valid == pytest.approx(plain.valid, abs=0.012)
    assert measure("binary", "auc", label, scores) > 0.8


@pytest.mark.parametrize("flip", [False, True], ids=["rare ones", "rare zeros"])
def test_a_network_s_scores_are_probabilities_where_a_class_is_rare(flip, tmp_path):
    """Most steps have none of its rows, a few have one that weighs as much as hundreds."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30_000, 1)).astype(np.float32)
    label = (rng.random(30_000) < 1 / (1 + np.exp(5.5 - x[:, 0]))).astype(np.float64)
    assert label.mean() < 0.008
    label = 1 - label if flip else label
    rows = Shard((pa.table({"f0": x[:, 0]}),), (label,))
    job = make_job(
        categorical=(), rounds=10, early_stopping=None, metric="log_loss", imbalance="upsample"
    )
    evened, job = even_out(rows, replace(job, params={"learning_rate": 0.003}), Alone())
    scores = load("torch", fit("torch", job, evened, rows), tmp_path).predict(x)
    rare = (1 - label, 1 - scores) if flip else (label, scores)
    assert rare[1].mean() == pytest.approx(rare[0].mean(), rel=0.12)


def fit_evened(name, evened, valid, job):
    if name == "torch":
        return fit(name, job, evened, valid)
    trainer = load_trainer(name)
    return trainer.fit(trainer.prepare(evened, valid, job, Alone()), job, Alone(), go_on)


def test_downsampling_keeps_every_rare_row_and_about_as_many_others():
    rows = uneven(30_000)
    evened, job = even_out(rows, job_of(imbalance="downsample"), Alone())
    rare = int(rows.label.sum())
    assert evened.label.sum() == rare
    assert evened.rows == pytest.approx(2 * rare, rel=0.05)
    assert evened.matrix().shape == (evened.rows, 3)
    assert job.shift == pytest.approx(-np.log((rows.rows - rare) / rare))
    again, _ = even_out(rows, job_of(imbalance="downsample"), Alone())
    assert np.array_equal(again.matrix(), evened.matrix())
    other, _ = even_out(rows, job_of(imbalance="downsample", seed=99), Alone())
    assert not np.array_equal(other.matrix()[:100], evened.matrix()[:100])


@pytest.mark.parametrize("how", ["none", "weight"])
def test_otherwise_rows_and_scores_stay_as_they_are(how):
    rows, job = uneven(3000), job_of(imbalance=how)
    assert even_out(rows, job, Alone()) == (rows, job)
    assert job.shift == 0


def test_a_row_is_kept_whichever_worker_reads_it(tmp_path):
    labels = (np.arange(2400) % 10 == 0).astype(float)
    made = make_dataset(tmp_path, label={"train": pa.array(labels)})
    home, job = made.catalog.folder(made.manifest), job_of(imbalance="downsample")

    def kept(world: int) -> list[bytes]:
        found = []
        for rank in range(world):
            shard = read_shard(home, made.manifest, "train", reader=Reader(rank, world))
            masked = even_out(shard, job, _Whole(labels))[0].matrix()
            found += [row.tobytes() for row in masked]
        return sorted(found)

    assert kept(1) == kept(3)


class _Whole(Alone):
    """One that hears of all workers' classes."""

    def __init__(self, labels) -> None:
        self.counts = np.bincount(labels.astype(int))

    def agree(self, part, judge, *, kind=b"a"):
        is_count = len(part) == self.counts.nbytes
        return self.counts.astype(np.int64).tobytes() if is_count else judge([part])


def test_odds_are_moved_by_the_same_factor():
    scores = np.array([0.0, 0.2, 0.5, 1.0])
    found = put_right(scores, np.log(3))
    assert found.tolist() == pytest.approx([0.0, 0.6 / 1.4, 0.75, 1.0])
    assert put_right(found, -np.log(3)) == pytest.approx(scores)


@pytest.mark.parametrize(
    ("name", "param"),
    [
        ("lightgbm", {"linear_tree": True}),
        ("lightgbm", {"is_unbalance": True}),
        ("lightgbm", {"neg_bagging_fraction": 0.5, "bagging_freq": 1}),
        ("lightgbm", {"scale_pos_weight": 2.0}),
        ("xgboost", {"scale_pos_weight": 2.0}),
        ("xgboost", {"base_score": 0.01}),
    ],
)
def test_parameters_that_weigh_classes_are_refused_by_name(name, param):
    trainer = load_trainer(name)
    trainer.check_params(job_of(params=param))
    with pytest.raises(SpecError, match=f"{next(iter(param))} must not be set with imbalance: up"):
        trainer.check_params(job_of(params=param, imbalance="upsample"))


@pytest.mark.parametrize(
    ("name", "param"),
    [
        ("lightgbm", {"is_unbalance": True}),
        ("lightgbm", {"pos_bagging_fraction": 0.5, "bagging_freq": 1}),
        ("xgboost", {"scale_pos_weight": 2.0}),
    ],
)
def test_classes_are_not_weighed_twice(name, param):
    with pytest.raises(SpecError, match=f"{next(iter(param))} must not be set with .* weight, wh"):
        load_trainer(name).check_params(job_of(params=param, imbalance="weight"))
    plain = {next(iter(param)): WEIGHING[next(iter(param))]}
    load_trainer(name).check_params(job_of(params=plain, imbalance="weight"))


@pytest.mark.parametrize("shift", [-20.0, -0.5, 3.0, 20.0])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_shift_moves_every_raw_score_by_itself(name, shift, tmp_path):
    train_rows, valid = uneven(5000), uneven(300, seed=1)
    plain = fit(name, job_of(rounds=10), train_rows, valid)
    shifted = SHIFTED[name](plain.model, shift)
    margins = [_margins(name, model, valid.matrix()) for model in (plain.model, shifted)]
    assert margins[1] - margins[0] == pytest.approx(shift, rel=1e-5)
    assert SHIFTED[name](plain.model, 0.0) == plain.model


SHIFTED = {"xgboost": xgb_shifted, "lightgbm": lgbm_shifted}


def _margins(name, model, matrix):
    if name == "xgboost":
        return (
            xgb.Booster(model_file=bytearray(model))
            .inplace_predict(matrix, predict_type="margin")
            .astype(float)
        )
    return lgb.Booster(model_str=model.decode()).predict(matrix, raw_score=True)


def test_a_worker_without_rows_is_refused_everywhere():
    label = np.zeros(4000)
    label[:2] = 1.0
    rows = uneven(4000)
    shard = Shard((rows.tables[0].slice(0, 3),), (np.zeros(3),))
    with pytest.raises(DataError, match="rows left by imbalance: downsample on every worker"):
        even_out(shard, job_of(imbalance="downsample"), _Whole(label))


def test_a_few_rare_rows_beside_which_chance_leaves_no_other_are_refused():
    """A model of one class alone would give every row that class."""
    rows, label = uneven(900), np.zeros(900)
    label[:2] = 1.0
    shard = Shard(rows.tables, (label[:300], label[300:]))
    refused = []
    for seed in range(40):
        try:
            evened, _ = even_out(shard, job_of(imbalance="downsample", seed=seed), Alone())
        except DataError as error:
            refused.append(error.message)
            continue
        assert set(evened.label) == {0.0, 1.0}
    assert refused
    assert "beside the 2 of class 1 chance left none of the 898 of class 0" in refused[0]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_sampled_training_goes_on_to_the_same_bytes(name, tmp_path):
    """Rows are chosen before rounds begin, and the shift is no part of a checkpoint."""
    labels = {"train": pa.array((np.arange(2400) % 7 == 0).astype(float))}
    section = {"trainer": name, "imbalance": "downsample", "metric": "log_loss", "rounds": 24}
    spec = make_spec(**section, early_stopping=None, checkpoint_every="0s")
    wanted = train(make_dataset(tmp_path / "a", label=labels), spec, tmp_path)
    made, seen = make_dataset(tmp_path / "b", label=labels), []

    def kill(done, _total, note):
        if note.startswith("valid") and done > 10 and not seen:
            seen.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, spec, tmp_path, tick=kill)
    found = train(made, spec, tmp_path)
    assert found.model_digest == wanted.model_digest
    assert len(found.resumed) == 1
    assert found.weighting is None
    rate = 1 / 7
    golden = np.array(found.golden.scores).ravel()
    assert golden.mean() == pytest.approx(rate, rel=0.5)
