"""Trials that train several times: fold after fold, or on more and more row groups."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from arclight.errors import DataError, SpecError
from arclight.folds import fold_rule
from arclight.search_space import FloatRange
from arclight.spec import HashSplit, Spec
from arclight.study import open_study, with_params
from arclight.train_section import Train
from arclight.trials import Trial
from arclight.tune_section import Tune
from ray_apps.folds import deal
from ray_apps.gang import Alone
from ray_apps.shards import read_shard
from ray_apps.trainers import Fitted, load_trainer
from ray_apps.tune import plain_job
from ray_apps.tuning.ask import Asker
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from ray_apps.tuning.stages import Stage, stages_of
from tests.ray_apps.conftest import train_here
from tests.ray_apps.make_dataset import make_dataset
from tests.ray_apps.test_tune import searched, spec_of
from tests.ray_apps.trainers.test_trainers import make_job

ROWS = (900, 200, 100)
FOLDS = {"folds": 4, "trials": 4, "scheduler": "none"}


def on(_history, _model) -> bool:
    return True


def shards(made):
    home = made.catalog.folder(made.manifest)
    return (read_shard(home, made.manifest, split) for split in ("train", "valid"))


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "torch"])
def test_a_trials_figure_is_the_mean_of_its_folds(tmp_path, name):
    """Each fold is what a training on its rows gives, whatever ran before it."""
    made = make_dataset(tmp_path / "store", rows=ROWS)
    spec = spec_of(name, FOLDS, rounds=5)
    found, trials = searched(made, spec, tmp_path)
    assert [t.state for t in trials.ended.values()] == ["complete"] * 4
    trial = trials.ended[found.trial]
    assert [height for height, _ in trial.points] == [1, 2, 3, 4]
    assert found.value == trial.points[-1][1] == max(t.value for t in trials.ended.values())
    assert trial.rounds == 4 * 5
    train, _ = shards(made)
    dealt = deal(train, fold_rule(spec, made.manifest, "tune"), Alone())
    chosen = spec.model_copy(update={"train": with_params(spec.train, spec.tune, trial.params)})
    trainer, values = load_trainer(name), []
    for number in range(4):
        job = plain_job(spec, chosen.train)
        job = spec_job(job, made, chosen)
        data = trainer.prepare(*dealt.parts(train, number), job, Alone())
        values.append(trainer.fit(data, job, Alone(), on).valid)
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert trial.points[1][1] == pytest.approx(np.mean(values[:2]), abs=1e-9)


def spec_job(job, made, spec):
    """Return a job with what the data and the section say."""
    return replace(
        job,
        categorical=made.manifest.plan.categorical,
        classes=0,
        rounds=spec.train.rounds,
        early_stopping=spec.train.early_stopping,
    )


def test_a_trial_is_stopped_between_folds_and_then_has_no_figure(tmp_path):
    """One lucky fold is no mean of four: it is never the best."""
    made = make_dataset(tmp_path / "store", rows=ROWS)
    tune = {"folds": 4, "trials": 14, "scheduler": "asha"}
    found, trials = searched(made, spec_of("xgboost", tune, rounds=4), tmp_path)
    stopped = [t for t in trials.ended.values() if t.state == "stopped"]
    assert len(stopped) >= 5
    assert {len(t.points) for t in stopped} <= {1, 2}
    assert all(t.rounds == 4 * len(t.points) for t in stopped)
    assert all(t.value is None for t in stopped)
    assert stopped[0].reason.startswith("not among the best after ")
    assert "fold" in stopped[0].reason
    assert trials.ended[found.trial].state == "complete"


def test_row_groups_are_a_fidelity(tmp_path):
    """Who is best on few rows is trained from scratch on more; the figure is that of all."""
    made = make_dataset(tmp_path / "store", rows=ROWS, row_groups=9)
    spec = spec_of("xgboost", {"fidelity": "rows", "trials": 14}, rounds=6)
    found, trials = searched(made, spec, tmp_path)
    groups = sum(len(file.row_groups) for file in made.manifest.files_of("train"))
    heights = {height for t in trials.ended.values() for height, _ in t.points}
    assert heights <= {1, 2, 3, 6, 9, 18}
    assert max(heights) == groups
    best = trials.ended[found.trial]
    assert best.points[-1][0] == groups
    assert len(best.points) >= 2
    assert sum(t.state == "stopped" for t in trials.ended.values()) >= 5
    params = {**spec.train.params, **best.params}
    train = spec.train.model_copy(update={"params": params})
    bundle = train_here(made, spec.model_copy(update={"train": train}), tmp_path)
    assert bundle.train_metrics["valid"] == pytest.approx(found.value, abs=1e-6)


def test_few_row_groups_come_from_all_over_train(tmp_path):
    """Rows may lie in an order of time."""
    made = make_dataset(tmp_path / "store", rows=ROWS, row_groups=9)
    train, valid = shards(made)
    tune = Tune.model_validate_json(json.dumps({**spec_tune(), "fidelity": "rows"}))
    job = spec_job(plain_job(spec_of(), spec_of().train), made, spec_of())
    stages = stages_of(tune, train, valid, job, None)
    whole = len(train.labels)
    assert [stage.height for stage in stages][-1] == whole
    for stage in stages:
        mine = {label.tobytes() for label in stage.train.labels}
        chosen = [i for i, y in enumerate(train.labels) if y.tobytes() in mine]
        assert len(chosen) == stage.height
        if stage.height > 1:
            assert (chosen[0], chosen[-1]) == (0, whole - 1)
    assert stages[-1].train.rows == train.rows


def spec_tune():
    return {"space": {"max_depth": {"int": [2, 5]}}}


@pytest.mark.parametrize("how", [{"folds": 3}, {"fidelity": "rows"}])
def test_a_search_in_stages_goes_on_where_it_was(tmp_path, how):
    """One at a time: its trials are those of a search that was not disturbed."""
    told = []
    for place, parts in (("whole", (10,)), ("parts", (4, 10))):
        made = make_dataset(tmp_path / place / "store", rows=ROWS, row_groups=9)
        for trials in parts:
            spec = spec_of("lightgbm", {**how, "trials": trials, "scheduler": "asha"}, rounds=4)
            _, found = searched(made, spec, tmp_path / place)
        told.append([(t.params, t.state, t.points, t.value) for t in found.ended.values()])
    assert told[0] == told[1]
    assert len(told[0]) == 10


def test_every_fold_is_binned_once(tmp_path, monkeypatch):
    made = make_dataset(tmp_path / "store", rows=ROWS)
    trainer, calls = type(load_trainer("xgboost")), []
    real = trainer.prepare
    monkeypatch.setattr(
        trainer, "prepare", lambda self, *a, **k: calls.append(1) or real(self, *a, **k)
    )
    searched(made, spec_of("xgboost", FOLDS, rounds=3), tmp_path)
    assert len(calls) == 4


def test_cma_es_takes_no_choice():
    space = {"net": {"choice": ["mlp", "resnet"]}}
    with pytest.raises(ValidationError, match="cma_es moves along numbers"):
        Tune.model_validate_json(json.dumps({"space": space, "sampler": "cma_es"}))


def test_folds_have_all_rows():
    with pytest.raises(ValidationError, match="folds have all rows"):
        Tune.model_validate_json(json.dumps({**spec_tune(), "folds": 3, "fidelity": "rows"}))


def test_folds_are_dealt_as_the_dataset_was_split(tmp_path):
    made = make_dataset(tmp_path / "store", rows=ROWS)
    spec = spec_of("xgboost", FOLDS)
    etl = spec.etl.model_copy(update={"split": HashSplit(by="hash", group=("shop",))})
    with pytest.raises(SpecError, match=r"tune\.folds: dataset .* was split by key"):
        searched(made, spec.model_copy(update={"etl": etl}), tmp_path)


ALSO = {"also": ["log_loss", "model_bytes"], "scheduler": "none", "trials": 6}


@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "torch"])
def test_other_figures_are_those_of_the_trials_model(tmp_path, name):
    made = make_dataset(tmp_path / "store", rows=ROWS)
    spec = spec_of(name, ALSO, rounds=5)
    found, trials = searched(made, spec, tmp_path)
    assert all(set(t.others) == {"log_loss", "model_bytes"} for t in trials.ended.values())
    best = trials.ended[found.trial]
    chosen = with_params(spec.train, spec.tune, best.params)
    other = chosen.model_copy(update={"metric": "log_loss"})
    bundle = train_here(made, spec.model_copy(update={"train": other}), tmp_path)
    assert bundle.train_metrics["valid"] == pytest.approx(best.others["log_loss"], abs=1e-6)
    size = sum(f.size_bytes for f in bundle.files if f.path == bundle.model_file)
    assert best.others["model_bytes"] == pytest.approx(size, rel=0.02)


def test_with_folds_other_figures_are_means_too(tmp_path):
    made = make_dataset(tmp_path / "store", rows=ROWS)
    whole, folds = ({**ALSO, "trials": 2, **more} for more in ({}, {"folds": 3}))
    _, one = searched(made, spec_of("xgboost", whole, rounds=4), tmp_path)
    _, mean = searched(made, spec_of("xgboost", folds, rounds=4), tmp_path)
    losses = [trials.ended[0].others["log_loss"] for trials in (one, mean)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


def test_tpe_learns_from_every_figure(tmp_path):
    """What lowers the other figure alone is looked for as well."""
    tune = Tune.model_construct(
        sampler="tpe", trials=60, space={"u": FloatRange(bounds=(0.0, 1.0))},
        also=("model_bytes",), scheduler="none",
    )  # fmt: skip
    asker, known = Asker(tune, seed=1, higher=True), []
    for number in range(50):
        u = float(asker.ask(number, known, {})["u"])
        others = {"model_bytes": 1000 * u}
        value = -((u - 0.9) ** 2) if u > 0.1 else -1.0
        known.append(
            Trial(number=number, params={"u": u}, state="complete", value=value, others=others)
        )
    late = [t.params["u"] for t in known[20:]]
    # one figure alone would keep it at 0.9; above that both are worse
    assert sum(u < 0.75 for u in late) > 0.6 * len(late)
    assert sum(u > 0.95 for u in late) < 0.1 * len(late)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"also": ["log_loss"]}, "set `scheduler: none`"),
        ({**ALSO, "sampler": "evolution"}, "learns from one figure alone"),
    ],
)
def test_what_cannot_be_weighed_is_refused(how, told):
    with pytest.raises(ValidationError, match=told):
        Tune.model_validate_json(json.dumps({**spec_tune(), **how}))


@pytest.mark.parametrize(
    ("also", "told"),
    [("auc", "is train.metric already"), ("rmse", "must be one of .* Or model_bytes")],
)
def test_figures_of_another_task_are_refused(also, told):
    tune = {**spec_tune(), "also": [also], "scheduler": "none"}
    body = json.loads(spec_of().model_dump_json()) | {"tune": tune}
    with pytest.raises(ValidationError, match=told):
        Spec.model_validate_json(json.dumps(body))


def test_a_record_says_what_its_trials_were_judged_on(tmp_path):
    """And an older record, which says nothing of it, keeps its bytes."""
    made = make_dataset(tmp_path / "store", rows=ROWS)
    found, _ = searched(made, spec_of("xgboost", {**FOLDS, "trials": 2}, rounds=3), tmp_path)
    assert found.folds == 4
    assert str(found).endswith("the mean of 4 folds")
    plain = found.model_copy(update={"folds": None})
    assert "folds" not in plain.model_dump(mode="json")
    assert str(plain).endswith("on valid")


class TestClocks:
    """What counts against a trial's limit, and against the search's."""

    @staticmethod
    def run(tmp_path, tune, *, bin_s, round_s, rounds=2, now=None):
        """Return a study's trials on a clock that only its trainer moves."""
        made = make_dataset(tmp_path / "store", rows=ROWS)
        spec = spec_of("xgboost", {"scheduler": "none", "trials": 2, **tune}, rounds=rounds)
        study, trials = open_study(made.catalog.store, made.manifest, spec)
        now = [0.0] if now is None else now

        class Slow:
            bin_key = staticmethod(lambda _: ())

            def prepare(self, *_):
                now[0] += bin_s
                return object()

            def fit(self, _data, job, _gang, watch):
                history = []
                for number in range(job.rounds):
                    now[0] += round_s
                    history.append(0.5 + number / 100)
                    watch(history, None)
                return Fitted(b"", len(history), history[-1], {}, len(history))

        job = make_job(rounds=rounds, early_stopping=None)
        stages = tuple(Stage(n, None, None, job) for n in (1, 2, 3))
        controller = Controller(study, trials, clock=lambda: now[0])
        Host(study, controller, {"xgboost": Slow()}, stages, at_once=1, clock=lambda: now[0]).run()
        return trials

    def test_making_rows_ready_is_no_training_in_any_stage(self, tmp_path):
        tune = {"folds": 3, "trial_limit_s": 10}
        trials = self.run(tmp_path, tune, bin_s=500.0, round_s=1.0)
        assert [t.state for t in trials.ended.values()] == ["complete"] * 2
        assert [t.train_s for t in trials.ended.values()] == [6.0, 6.0]
        assert [t.bin_s for t in trials.ended.values()] == [1500.0, 0.0]
        assert [t.queue_s for t in trials.ended.values()] == [0.0, 0.0]

    def test_other_figures_are_judging_and_no_waiting(self, tmp_path, monkeypatch):
        now = [0.0]

        def slowly(*_):
            now[0] += 7.0
            return {}

        monkeypatch.setattr("ray_apps.tuning.host.other_figures", slowly)
        trials = self.run(tmp_path, {"folds": 3}, bin_s=0.0, round_s=1.0, now=now)
        assert [t.queue_s for t in trials.ended.values()] == [0.0, 0.0]
        assert [(t.train_s, t.judge_s) for t in trials.ended.values()] == [(27.0, 21.0)] * 2

    def test_stages_count_together_against_a_trials_limit(self, tmp_path):
        trials = self.run(tmp_path, {"folds": 3, "trial_limit_s": 5}, bin_s=0.0, round_s=1.0)
        (first, *_) = trials.ended.values()
        assert (first.state, first.value, first.rounds) == ("stopped", None, 5)
        assert first.reason == "a trial's 5 s are over"

    def test_a_trial_that_the_searchs_limit_cut_is_gone_on_with(self, tmp_path):
        tune = {"folds": 3, "time_limit_s": 8}
        trials = self.run(tmp_path, tune, bin_s=0.0, round_s=1.0)
        assert [t.state for t in trials.ended.values()] == ["complete"]
        assert list(trials.begun) == [1]


def test_where_nobody_looks_no_rows_are_trained(tmp_path):
    made = make_dataset(tmp_path / "store", rows=ROWS, row_groups=9)
    tune = {"fidelity": "rows", "trials": 3, "scheduler": "none"}
    _, trials = searched(made, spec_of("xgboost", tune, rounds=4), tmp_path)
    assert [[height for height, _ in t.points] for t in trials.ended.values()] == [[18]] * 3


@pytest.mark.parametrize("imbalance", ["downsample", "upsample", "weight"])
def test_row_groups_without_a_class_are_no_fidelity(tmp_path, imbalance):
    """A rare class: of one row group nothing can be learned."""
    train = np.zeros(900)
    train[::60] = 1.0
    train[:120] = 0.0
    labels = {"train": pa.array(train), "valid": pa.array(np.resize([0.0, 0.0, 1.0], 200))}
    made = make_dataset(tmp_path / "store", rows=ROWS, row_groups=9, label=labels)
    spec = spec_of("xgboost", {"fidelity": "rows", "trials": 4}, rounds=3, imbalance=imbalance)
    found, trials = searched(made, spec, tmp_path)
    assert {t.state for t in trials.ended.values()} <= {"complete", "stopped"}
    assert np.isfinite(found.value)


def test_folds_that_cannot_be_judged_name_their_field(tmp_path):
    train = np.zeros(900)
    train[3] = 1.0
    made = make_dataset(tmp_path / "store", rows=ROWS, label={"train": pa.array(train)})
    with pytest.raises(DataError, match=r"fold . of 3 \(tune\.folds\)"):
        searched(made, spec_of("xgboost", {**FOLDS, "folds": 3}), tmp_path)


def test_a_model_that_could_not_be_judged_on_valid_is_told_before_its_search_by_folds(tmp_path):
    """No trial looks at valid, but the model that is trained afterwards does."""
    labels = {
        "train": pa.array(np.resize([0.0, 1.0], ROWS[0])),
        "valid": pa.array(np.zeros(ROWS[1])),
    }
    made = make_dataset(tmp_path / "store", rows=ROWS, label=labels)
    with pytest.raises(DataError, match="the valid split must have rows of two classes"):
        searched(made, spec_of("xgboost", FOLDS, rounds=4), tmp_path)


def test_what_is_for_one_trainer_alone_is_not_for_another():
    spec = spec_of("xgboost", {"trainers": "auto", "space": {}}, bins="disk", device="auto")
    chosen = with_params(spec.train, spec.tune, {"trainer": "lightgbm", "num_leaves": 8})
    assert (chosen.trainer, chosen.bins, chosen.device) == ("lightgbm", "auto", "auto")
    Train.model_validate(chosen.model_dump())
    own = with_params(spec.train, spec.tune, {"trainer": "xgboost", "max_depth": 3})
    assert own.bins == "disk"


def test_where_no_fewer_row_groups_will_do_rounds_are_no_rungs(tmp_path):
    """All smaller parts lack a class: one stage is left, and nobody looks between its rounds."""
    train = np.zeros(900)
    train[450:454] = 1.0
    labels = {"train": pa.array(train), "valid": pa.array(np.resize([0.0, 1.0], 200))}
    made = make_dataset(tmp_path / "store", rows=ROWS, row_groups=9, label=labels)
    spec = spec_of("xgboost", {"fidelity": "rows", "trials": 8}, rounds=6)
    _, trials = searched(made, spec, tmp_path)
    assert [t.state for t in trials.ended.values()] == ["complete"] * 8
    assert {t.points[0][0] for t in trials.ended.values()} == {18}
