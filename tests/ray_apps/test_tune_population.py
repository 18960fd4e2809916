"""Searches by a population: networks that take over each other's weights."""

from __future__ import annotations

import json
import math
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from arclight.errors import ArclightError, DivergedError
from arclight.population import Leg
from arclight.spec import Spec
from arclight.store import Store
from arclight.study import Study, leg_in, newest_study, open_study, trial_lines, with_params
from arclight.train_section import Train
from arclight.trial_file import TrialFile
from arclight.trials import Trial, Trials
from ray_apps.checkpoints import Checkpoints
from ray_apps.gang import Alone
from ray_apps.shards import read_shard
from ray_apps.trainers import Fitted, load_trainer
from ray_apps.trainers.boosting import BEGINNING, Snapshot
from ray_apps.trainers.torch_rows import TorchData
from ray_apps.tune import plain_job
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from ray_apps.tuning.networks import Networks
from ray_apps.tuning.running import Running
from tests.ray_apps.conftest import train_here
from tests.ray_apps.make_dataset import make_dataset
from tests.ray_apps.test_tune import searched, spec_of
from tests.ray_apps.trainers.test_trainers import make_job

ROWS = (900, 300, 100)
SPACE = {
    "learning_rate": {"float": [1e-4, 3e-2], "log": True},
    "dropout": {"float": [0.0, 0.5]},
    "weight_decay": {"float": [1e-6, 1e-1], "log": True},
}
TUNE = {"space": SPACE, "scheduler": "population", "population": 4, "trials": 16}


def population(tune=None, **section):
    given = {"rounds": 10, "seed": 1, "params": {"width": 16, "depth": 1}, **section}
    return spec_of("torch", {**TUNE, **(tune or {})}, **given)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    made, spec = make_dataset(folder / "store", rows=ROWS), population()
    result, trials = searched(made, spec, folder)
    return made, spec, newest_study(made.catalog.store, spec.name), result, trials


def told(trials):
    return {n: (t.params, t.state, t.points, t.value, t.parent) for n, t in trials.ended.items()}


def test_every_trial_is_one_training_whose_parameters_change(found):
    """What is copied from network to network is what training from the first round gives."""
    made, spec, study, _, trials = found
    home, trainer = made.catalog.folder(made.manifest), load_trainer("torch")
    shards = [read_shard(home, made.manifest, split) for split in ("train", "valid")]
    assert [t.state for t in trials.ended.values()] == ["complete"] * 16
    assert any(t.parent not in (None, t.number - 4) for t in trials.ended.values())
    for trial in trials.ended.values():
        leg = leg_in(study, trials, trial)
        train = with_params(spec.train, spec.tune, leg.params, leg.params_after)
        job = replace(
            plain_job(spec, train),
            categorical=made.manifest.plan.categorical,
            rounds=10,
            early_stopping=None,
            is_kept=False,
        )
        data = trainer.prepare(*shards, job, Alone())
        fitted = trainer.fit(data, job, Alone(), lambda history, _: len(history) < leg.ends)  # noqa: B023
        assert fitted.valid == trial.value == trial.points[-1][1]
        assert (trial.rounds, trial.points[-1][0]) == (leg.ends, leg.ends)


def test_the_worst_of_each_generation_takes_over_the_best(found):
    *_, trials = found
    for begin in (4, 8, 12):
        before = sorted((trials.ended[n] for n in range(begin - 4, begin)), key=lambda t: t.value)
        for n in range(begin, begin + 4):
            is_worst = n - 4 == before[0].number
            assert trials.ended[n].parent == (before[-1].number if is_worst else n - 4)


def test_the_best_ones_parameters_train_the_model(found, tmp_path):
    made, spec, _, result, trials = found
    best = trials.ended[result.trial]
    assert best.value == max(t.value for t in trials.ended.values()) == result.value
    train = with_params(spec.train, spec.tune, result.params, result.params_after)
    told = spec.model_copy(update={"train": train, "tune": None})
    written = told.model_dump_json(by_alias=True)
    assert Spec.model_validate_json(written).train == train
    bundle = train_here(made, spec.model_copy(update={"train": train}), tmp_path)
    assert bundle.settings.params_after == result.params_after
    if best.number >= 12:  # the model's training goes on to the last round
        assert bundle.train_metrics["valid"] == pytest.approx(result.value, abs=1e-9)


def test_nothing_of_the_networks_is_left(found):
    made, *_ = found
    assert not list((made.catalog.store.root / "checkpoints").rglob("*.json"))


@pytest.mark.parametrize("loses", [False, True])
def test_a_search_goes_on_where_it_was(found, tmp_path, loses):
    """With the networks of the generation before, or with none of them."""
    *_, undisturbed = found
    made, spec = make_dataset(tmp_path / "store", rows=ROWS), population()
    study, _ = open_study(made.catalog.store, made.manifest, spec)
    path = trial_lines(made.catalog.store, study).path
    store = made.catalog.store.root

    def tick(done, *_):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(made, spec, tmp_path, tick=tick)
    assert 6 <= len(Trials.read(TrialFile(path)).ended) < 16
    kept = sorted((store / "checkpoints").rglob("model"))
    assert kept
    if loses:
        for one in kept:
            one.write_bytes(b"damaged")
    _, trials = searched(made, spec, tmp_path)
    assert told(trials) == told(undisturbed)


def test_networks_whose_training_is_over_early_are_taken_over(tmp_path):
    """Two rounds without a better figure end one; others go on."""
    made = make_dataset(tmp_path / "store", rows=ROWS)
    spec = population(early_stopping=2, rounds=16)
    result, trials = searched(made, spec, tmp_path)
    assert [t.state for t in trials.ended.values()] == ["complete"] * 16
    assert any(t.rounds < t.points[-1][0] for t in trials.ended.values())
    for trial in trials.ended.values():  # a figure is of its own rounds
        begins = trial.points[-1][0] - 4
        assert trial.best_round > begins or trial.rounds <= begins
    assert result.value == max(t.value for t in trials.ended.values())


@pytest.mark.parametrize("early_stopping", [None, 20])
def test_a_network_that_diverges_is_replaced(tmp_path, early_stopping):
    """One that had a figure before has failed too: nobody can go on from it."""
    made = make_dataset(tmp_path / "store", rows=ROWS)
    space = {"learning_rate": {"choice": [1e-3, 1e30]}}
    params = {"width": 8, "depth": 1, "clip": 1e30}
    spec = population({"space": space}, params=params, early_stopping=early_stopping)
    result, trials = searched(made, spec, tmp_path)
    failed = [t for t in trials.ended.values() if t.state == "failed"]
    assert failed
    assert all("diverged" in t.reason for t in failed)
    assert {t.parent for t in trials.ended.values()}.isdisjoint({t.number for t in failed})
    assert result.value > 0.5


def test_a_generation_is_asked_for_when_the_one_before_is_over(found, tmp_path):
    """Whoever asks too early waits; who is left is asked for again."""
    *_, study, _, _ = found
    controller = Controller(study, Trials(TrialFile(tmp_path / "trials.jsonl")))
    for host in (0, 0, 0, 1):
        controller.next(host)
    answers = []
    asks = threading.Thread(target=lambda: answers.append(controller.next(0)))
    for number in range(3):
        controller.end(trial_of(number, 0.5 + number / 10))
    asks.start()
    asks.join(0.5)
    assert asks.is_alive()
    controller.lost(1, "it was killed")
    asks.join(20)
    assert answers[0][0] == 3  # that of the lost host
    controller.end(trial_of(3, 0.1))
    assert controller.next(0)[0] == 4
    assert controller.leg(4).parent == 0


def trial_of(number, figure):
    return Trial(
        number=number,
        params={"learning_rate": 0.01, "dropout": 0.1, "weight_decay": 0.01},
        state="complete",
        value=figure,
        points=((5, figure),),
    )


@pytest.mark.parametrize("figures", [(0.5, math.nan), (math.nan,), (0.5, 0.6, math.nan)])
def test_a_network_that_diverges_has_no_figure_whatever_it_was_worth_before(
    found, tmp_path, figures
):
    """With early stopping a training would end with its best round: here somebody goes on."""
    *_, study, _, _ = found
    networks = Networks(Store(tmp_path / "store"), study)
    networks._read = lambda _: Snapshot(b"weights", (0.4,))

    class Diverging:
        def fit(self, data, _job, _gang, watch):
            history = list(data.start.history)
            for figure in figures:
                history.append(figure)
                watch(history, lambda: b"weights")
            return Fitted(b"", len(history), 0.5, {}, len(history))

    data = TorchData(*[None] * 5, start=BEGINNING)
    job, leg = make_job(rounds=10, early_stopping=20), Leg(0, {}, {}, begins=1, ends=5)
    with pytest.raises(DivergedError, match="diverged before round 5; lower the learning rate"):
        networks.go_on(4, leg, Diverging(), data, job, lambda *_: True)
    assert not list((tmp_path / "store").rglob("model"))


def test_a_store_without_room_for_networks_costs_time_alone(found, tmp_path, monkeypatch):
    *_, undisturbed = found
    made = make_dataset(tmp_path / "store", rows=ROWS)

    def full(*_):
        raise ArclightError("no space left")

    monkeypatch.setattr(Checkpoints, "write", full)
    _, trials = searched(made, population(), tmp_path)
    assert told(trials) == told(undisturbed)


def test_networks_stay_while_a_search_may_go_on(tmp_path):
    made = make_dataset(tmp_path / "store", rows=ROWS)
    searched(made, population({"target": 0.0}, early_stopping=5), tmp_path)
    assert list((made.catalog.store.root / "checkpoints").rglob("model"))


def test_networks_of_another_study_are_not_gone_on_with(found, tmp_path):
    """Of the same name and number: its store was restored from an older backup."""
    *_, undisturbed = found
    made = make_dataset(tmp_path / "store", rows=ROWS)
    other = population({"target": 0.0, "trials": 8}, seed=2, early_stopping=5)
    searched(made, other, tmp_path)
    shutil.rmtree(made.catalog.store.root / "studies")
    _, trials = searched(made, population(), tmp_path)
    assert told(trials) == told(undisturbed)


@pytest.mark.parametrize(("early_stopping", "best"), [(None, 6), (3, 1)])
def test_without_early_stopping_the_newest_generation_is_chosen_from(early_stopping, best):
    """What a network was worth on the way is not what its training ends with."""
    tune = population().tune
    study = Study(
        name="a", number=1, key="0" * 64, dataset="a@1", dataset_digest="1" * 64, task="binary",
        metric="auc", tune=tune, train=Train(trainer="torch", early_stopping=early_stopping),
    )  # fmt: skip
    trials = Trials(TrialFile(Path("none")))
    for number, figure in enumerate([0.5, 0.9, 0.6, 0.7, 0.6, 0.65, 0.8]):
        trials.ended[number] = trial_of(number, figure)
    assert study.best(trials).number == 1  # the newest generation is not whole
    trials.ended[7] = trial_of(7, 0.7)
    assert study.best(trials).number == best
    assert len(study.ranked(trials)) == 8
    # of four generations the second: its model would be trained on
    assert study.is_on_the_way(study.best(trials)) is (early_stopping is None)
    last = trial_of(15, 0.9)
    assert not study.is_on_the_way(last)


def test_a_target_that_a_network_has_on_the_way_is_none_yet(tmp_path):
    """Without early stopping its model is trained to the last round."""
    made = make_dataset(tmp_path / "store", rows=ROWS)
    found, trials = searched(made, population({"target": 0.0}), tmp_path)
    assert found.trial in range(12, 16)
    assert len(trials.ended) >= 13


def test_a_limit_of_time_counts_what_is_new(found):
    """Rounds that are trained again, since their network was lost, are none of the trial's."""
    *_, study, _, _ = found
    now, limited = [0.0], study.tune.model_copy(update={"trial_limit_s": 5})
    study = study.model_copy(update={"tune": limited})
    host = Host(study, None, {}, (), at_once=1, clock=lambda: now[0])
    mine = Running(9, {}, 0.0, begun_s=0.0, leg=Leg(5, {}, {}, begins=6, ends=9))
    for rounds in range(1, 9):
        now[0] += 3.0
        mine.rounds = rounds
        assert bool(host._limit(mine)) == (rounds == 8)
    assert mine.again_s == 18.0


def test_generations_are_part_of_the_study(found):
    made, spec, study, *_ = found
    more = spec.tune.model_copy(update={"trials": 24})
    other, _ = open_study(
        made.catalog.store, made.manifest, spec.model_copy(update={"tune": more})
    )
    assert other.key != study.key


@pytest.mark.parametrize(
    ("section", "tune", "words"),
    [
        ({"trainer": "xgboost"}, {}, r"a population is of networks \(trainer: torch\), got xgb"),
        ({}, {"space": {"width": {"choice": [8, 16]}}}, r"weights keeps its width; search among"),
        ({"rounds": 3}, {}, r"4 generations .* need as many rounds, got 3"),
        ({"params_after": {"2": {"dropout": 0.1}}}, {}, r"leave those that change on the way"),
    ],
)
def test_what_a_spec_with_a_population_cannot_say(section, tune, words):
    body = json.loads(make_body())
    body["train"] |= section
    body["tune"] = {**TUNE, "sampler": "random", **tune}
    with pytest.raises(ValidationError, match=words):
        Spec.model_validate_json(json.dumps(body))


def make_body():
    return population().model_dump_json(by_alias=True)
