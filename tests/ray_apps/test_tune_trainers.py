"""A search that chooses among trainers, each with a space of its own."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from arclight.errors import SpecError
from arclight.halving import rungs_of
from arclight.study import Study, candidates_of, with_params
from arclight.train_section import Train
from arclight.trial_file import TrialFile
from arclight.trials import Trial, Trials
from arclight.tune_section import AUTO, Tune
from cluster.sizing import GIB
from ray_apps.crews import Room
from ray_apps.tune import check_space
from ray_apps.tuning.ask import Asker, trials_of
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from ray_apps.tuning.stages import Stage
from tests.ray_apps.conftest import ONE_CORE
from tests.ray_apps.make_dataset import make_dataset, make_spec
from tests.ray_apps.test_tune import SMALL, TWO_CORES, searched
from tests.ray_apps.trainers.test_trainers import make_job

TRAINERS = {
    "xgboost": {"space": {"max_depth": {"int": [2, 4]}, "learning_rate": {"float": [0.05, 0.5]}}},
    "lightgbm": {
        "params": {"min_data_in_leaf": 5},
        "space": {"num_leaves": {"int": [3, 15]}, "learning_rate": {"float": [0.01, 0.3]}},
    },
    "torch": {"rounds": 3, "params": {"width": 8}, "space": {"dropout": {"float": [0.0, 0.5]}}},
}
CHOICES = {
    "xgboost": {"space": {"max_depth": {"int": [2, 4]}}},
    "lightgbm": {"space": {"num_leaves": {"int": [3, 4]}, "max_depth": {"choice": [2, 3]}}},
}


def tune_of(trainers=TRAINERS, **section):
    given = {"trials": 9, "sampler": "random", "scheduler": "none", "trainers": trainers}
    return Tune.model_validate_json(json.dumps({**given, **section}))


def spec_of(tune, **section):
    given = {"trainer": "xgboost", "rounds": 9, "early_stopping": None, "params": {"gamma": 0.5}}
    return make_spec(**{**given, **section}).model_copy(update={"tune": tune})


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi_random"])
def test_a_trial_has_a_trainer_and_what_is_tried_with_it(sampler):
    tune = tune_of(sampler=sampler, trials=100)
    asker, known, seen = Asker(tune, seed=3, higher=True), [], Counter()
    for number in range(14 if sampler == "tpe" else 90):
        beside = {99: {"trainer": "torch", "dropout": 0.1}} if number % 2 else {}
        params = asker.ask(number, known, beside)
        assert params == Asker(tune, seed=3, higher=True).ask(number, known, beside)
        seen[params["trainer"]] += 1
        assert set(params) == {"trainer", *TRAINERS[params["trainer"]]["space"]}
        value = 0.9 if params["trainer"] == "lightgbm" else 0.5
        known.append(Trial(number=number, params=params, state="complete", value=value))
    assert set(seen) == set(TRAINERS)
    if sampler != "tpe":
        assert min(seen.values()) > 15


def test_tpe_tries_the_better_trainer_more_often():
    tune = tune_of(sampler="tpe", trials=100)
    asker, known = Asker(tune, seed=0, higher=True), []
    for number in range(45):
        params = asker.ask(number, known, {})
        value = {"lightgbm": 0.9, "xgboost": 0.6, "torch": 0.5}[params["trainer"]]
        value -= abs(params.get("learning_rate", 0.1) - 0.1)
        known.append(Trial(number=number, params=params, state="complete", value=value))
    late = Counter(trial.params["trainer"] for trial in known[20:])
    assert late["lightgbm"] > 12


@pytest.mark.parametrize("better", ["torch", "xgboost"])
def test_tpe_does_not_take_many_rounds_for_good_ones(tmp_path, better):
    """A tree's hundredth round of 300 is as far on its way as a network's tenth of 30."""
    space, heights = {"learning_rate": {"float": [0.01, 0.3]}}, {"xgboost": 300, "torch": 30}
    trainers = {"xgboost": {"space": space}, "torch": {"rounds": 30, "space": space}}
    tune, known = tune_of(trainers, sampler="tpe", scheduler="asha", trials=50), {}
    for number in range(40):
        trainer = ("xgboost", "torch")[number % 2]
        value = 0.9 if trainer == better else 0.6
        rungs = rungs_of(heights[trainer])[: 1 + number // 2 % 4]
        known[number] = Trial(
            number=number, params={"trainer": trainer, "learning_rate": 0.02 + number / 200},
            state="stopped", value=value, points=tuple((rung, value) for rung in rungs),
        )  # fmt: skip
    asked: Counter[str] = Counter()
    for seed in range(20):
        study = Study(
            name="s", number=1, key="0" * 64, dataset="d@1", dataset_digest="1" * 64,
            task="binary", metric="auc", train=Train(rounds=300, seed=seed), tune=tune,
        )  # fmt: skip
        trials = Trials(TrialFile(tmp_path / f"{seed}.jsonl"), dict(known))
        asked[Controller(study, trials).next()[1]["trainer"]] += 1
    assert asked[better] > 13


def test_grids_are_gone_through_one_after_the_other():
    tune = tune_of(CHOICES, sampler="grid", trials=100)
    assert trials_of(tune) == 3 + 2 * 2
    asker = Asker(tune, seed=0, higher=True)
    points = [tuple(asker.ask(number, [], {}).values()) for number in range(7)]
    assert len(set(points)) == 7
    assert Counter(point[0] for point in points) == {"lightgbm": 4, "xgboost": 3}
    assert {point[0] for point in points[:2]} == {"lightgbm", "xgboost"}  # they take turns


def test_a_section_of_each_trainer_is_filled_in():
    train = Train(trainer="xgboost", rounds=50, params={"gamma": 0.5, "max_depth": 6})
    found = candidates_of(train, tune_of())
    assert [one.rounds for one in found.values()] == [50, 50, 3]
    assert found["xgboost"].params == {"gamma": 0.5}  # the train section's own that is not tried
    assert found["lightgbm"].params == {"min_data_in_leaf": 5}
    chosen = with_params(train, tune_of(), {"trainer": "torch", "dropout": 0.2})
    assert (chosen.trainer, chosen.rounds) == ("torch", 3)
    assert chosen.params == {"width": 8, "dropout": 0.2}


@pytest.mark.parametrize("profile", [ONE_CORE, TWO_CORES], ids=["one", "two at a time"])
def test_every_trainer_is_tried_on_real_rows_and_gives_what_it_gives_alone(tmp_path, profile):
    made = make_dataset(tmp_path / "store", rows=SMALL)
    tune = tune_of(trials=9, sampler="quasi_random")
    found, trials = searched(made, spec_of(tune), tmp_path, profile=profile)
    by = {trial.params["trainer"]: trial for trial in trials.ended.values()}
    assert set(by) == set(TRAINERS)
    assert {trial.state for trial in by.values()} == {"complete"}
    assert {name: trial.rounds for name, trial in by.items()} == {
        "xgboost": 9, "lightgbm": 9, "torch": 3,
    }  # fmt: skip
    assert found.params["trainer"] in TRAINERS
    # rows are made ready once a trainer, and whoever waits for that, or for a network, waits
    binned = [trial.params["trainer"] for trial in trials.ended.values() if trial.bin_s]
    assert sorted(binned) == sorted(TRAINERS)
    assert all(trial.queue_s >= 0 and trial.train_s > 0 for trial in trials.ended.values())
    for name in ("xgboost", "lightgbm"):
        own = {n: v for n, v in by[name].params.items() if n != "trainer"}
        fixed = {"gamma": 0.5} if name == "xgboost" else {"min_data_in_leaf": 5}
        alone = make_spec(trainer=name, rounds=9, early_stopping=None, params=fixed)
        space = {n: {"choice": [v]} for n, v in own.items()}
        one = Tune.model_validate_json(
            json.dumps({"trials": 1, "sampler": "grid", "space": space})
        )
        alone = alone.model_copy(update={"name": f"alone-{name}", "tune": one})
        value = searched(made, alone, tmp_path)[0].value
        assert value == pytest.approx(by[name].value, abs=1e-6)


def test_a_trial_is_compared_with_those_of_its_own_trainer(tmp_path):
    """A network after one round is not stopped for what trees are after theirs."""
    tune = tune_of(scheduler="asha", trials=50)
    study = Study(
        name="s", number=1, key="0" * 64, dataset="d@1", dataset_digest="1" * 64, task="binary",
        metric="auc", train=Train(rounds=81), tune=tune,
    )  # fmt: skip
    controller = Controller(study, Trials(TrialFile(tmp_path / "trials.jsonl")))
    firsts = {}
    while len(firsts) < 3:
        number, params = controller.next()
        value = {"xgboost": 0.9, "lightgbm": 0.8, "torch": 0.5}[params["trainer"]]
        passed = controller.passes(number, 1, value)
        firsts.setdefault(params["trainer"], passed)
        # afterwards only the better third of its own kind
        trial = Trial(number=number, params=params, state="complete", value=value)
        controller.end(trial)
    assert firsts == dict.fromkeys(TRAINERS, True)
    assert not controller.passes(number, 1, 0.1)  # it has ended


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"space": {"max_depth": {"int": [2, 4]}}}, "tune.space.*not both"),
        ({"trainers": {}}, "must have a space or trainers"),
        ({"trainers": {}, "space": {"trainer": {"choice": ["xgboost", "torch"]}}},
         "tune.space.trainer: trainers are chosen among by tune.trainers"),
        ({"sampler": "gp"}, "use tpe to choose among trainers"),
        ({"sampler": "evolution"}, "use tpe to choose among trainers"),
        ({"sampler": "grid"}, "trainers.xgboost.space.learning_rate.*no steps"),
        ({"trainers": {"catboost": {"space": {"a": {"int": [1, 2]}}}}}, "catboost"),
        ({"trainers": {"xgboost": {"space": {}}}}, "xgboost"),
        ({"trainers": "all"}, "tune.trainers"),
        ({"trainers": {"xgboost": {"spcae": {"a": {"int": [1, 2]}}}}}, "Did you mean 'space'"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_where_it_stands(tmp_path, change, told):
    from arclight.spec_file import load_spec

    body = {
        "name": "demo", "task": "binary", "sources": {"t": {"path": "t"}},
        "etl": {"key": ["id"], "label": "label"},
        "tune": {"trials": 3, "sampler": "random", "trainers": TRAINERS, **change},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(json.dumps(body, indent=1))
    with pytest.raises(SpecError, match=told):
        load_spec(tmp_path / "spec.yaml")


def test_a_parameter_that_a_library_has_not_is_named_with_its_trainer():
    wrong = {**TRAINERS, "lightgbm": {"space": {"num_leafs": {"int": [3, 9]}}}}
    with pytest.raises(SpecError, match=r"tune.trainers.lightgbm.space.num_leafs: .*num_leafs"):
        check_space(spec_of(tune_of(wrong)))


def test_auto_is_every_trainer_with_spaces_that_the_libraries_take():
    tune = tune_of("auto")
    assert set(tune.among) == set(AUTO) == {"xgboost", "lightgbm", "torch"}
    spec = spec_of(tune, params={})
    check_space(spec)
    written = json.dumps(tune.written_out().model_dump(mode="json", by_alias=True))
    assert Tune.model_validate_json(written).among == tune.among


def test_networks_are_trained_one_after_another_beside_trees(tmp_path):
    """They draw from one generator in a process."""
    alive, most = Counter(), Counter()

    class Counting:
        bin_key = staticmethod(lambda _: ())
        prepare = staticmethod(lambda *_: object())

        def __init__(self, kind):
            self.kind = kind

        def fit(self, _data, _job, _gang, watch):
            alive[self.kind] += 1
            most[self.kind] = max(most[self.kind], alive[self.kind])
            time.sleep(0.02)
            alive[self.kind] -= 1
            watch([0.5], None)
            return type("Fitted", (), {"valid": 0.5, "rounds": 1})

    tune = tune_of(CHOICES | {"torch": {"space": {"dropout": {"choice": [0.0, 0.1]}}}}, trials=30)
    study = Study(
        name="s", number=1, key="0" * 64, dataset="d@1", dataset_digest="1" * 64, task="binary",
        metric="auc", train=Train(rounds=1), tune=tune,
    )  # fmt: skip
    controller = Controller(study, Trials(TrialFile(tmp_path / "trials.jsonl")))
    trainers = {name: Counting(name) for name in study.candidates}
    job = make_job(rounds=1)
    Host(study, controller, trainers, (Stage(0, None, None, job),), at_once=6).run()
    assert controller.is_done()
    assert most["torch"] == 1
    assert max(most["xgboost"], most["lightgbm"]) > 1


@pytest.mark.parametrize(("gib", "held"), [(1.0, 1), (99.0, 2)])
def test_a_way_to_bin_that_has_no_room_beside_another_takes_its_place(tmp_path, gib, held):
    alive, most = Counter(), []

    class Bins:
        def __init__(self):
            alive["bins"] += 1
            most.append(alive["bins"])

        def __del__(self):
            alive["bins"] -= 1

    class Trainer:
        bin_key = staticmethod(lambda _: ())
        prepare = staticmethod(lambda *_: Bins())

        def fit(self, _data, _job, _gang, watch):
            watch([0.5], None)
            return type("Fitted", (), {"valid": 0.5, "rounds": 1})

    study = Study(
        name="s", number=1, key="0" * 64, dataset="d@1", dataset_digest="1" * 64, task="binary",
        metric="auc", train=Train(rounds=1), tune=tune_of(CHOICES, trials=30),
    )  # fmt: skip
    controller = Controller(study, Trials(TrialFile(tmp_path / "trials.jsonl")))
    trainers = {name: Trainer() for name in study.candidates}
    rows = SimpleNamespace(rows=1 << 20)
    room = Room(at_once=3, row_bytes=dict.fromkeys(trainers, 1 << 10), bins_bytes=int(gib * GIB))
    Host(
        study, controller, trainers, (Stage(0, rows, None, make_job(rounds=1)),),
        at_once=3, room=room,
    ).run()  # fmt: skip
    assert controller.is_done()
    assert max(most) == held


def test_nothing_is_binned_any_more_once_the_time_is_over(tmp_path):
    """Three ways to bin take the time of three, each of which waits for the one before."""
    now, binned, waiting = [0.0], [], set()
    another_waits = threading.Event()

    class Trainer:
        def bin_key(self, _):
            waiting.add(self)
            if len(waiting) > 1:
                another_waits.set()
            return ()

        def prepare(self, *_):
            binned.append(self)
            assert another_waits.wait(20)
            now[0] += 40.0
            return object()

    everyone = CHOICES | {"torch": {"space": {"dropout": {"choice": [0.0, 0.1]}}}}
    study = Study(
        name="s", number=1, key="0" * 64, dataset="d@1", dataset_digest="1" * 64, task="binary",
        metric="auc", train=Train(rounds=1), tune=tune_of(everyone, trials=30, time_limit_s=30),
    )  # fmt: skip
    trials = Trials(TrialFile(tmp_path / "trials.jsonl"))
    controller = Controller(study, trials, clock=lambda: now[0])
    trainers = {name: Trainer() for name in study.candidates}
    stages = (Stage(0, None, None, make_job(rounds=1)),)
    Host(study, controller, trainers, stages, at_once=6, clock=lambda: now[0]).run()
    assert len(binned) == 1
    assert not trials.ended
