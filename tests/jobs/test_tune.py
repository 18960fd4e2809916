"""`arclight tune` as it is typed: a search, its model, and the same command once more."""

from __future__ import annotations

import json
import re

import pytest

from arclight.study import newest_study, studies_of, study_folder, trial_lines
from arclight.trials import Trials
from ray_apps.tuning.controller import Controller
from ray_apps.tuning.host import Host
from tests.jobs.test_signing import arclight
from tests.ray_apps.make_dataset import make_dataset

SPEC = """
name: demo
task: binary
sources: {t: {path: t}}
etl: {key: [id], label: label}
train: {rounds: 12, workers: 0, params: {learning_rate: 0.2}}
tune: {trials: TRIALS, sampler: random, space: {max_depth: {int: [2, 5]}}}
"""


@pytest.fixture
def made(tmp_path):
    return make_dataset(tmp_path / "store", rows=(600, 200, 100))


def typed(made, tmp_path, capsys, *options, text=SPEC, trials="5"):
    (tmp_path / "spec.yaml").write_text(text.replace("TRIALS", trials))
    store = str(made.catalog.store.root)
    status = arclight("tune", tmp_path / "spec.yaml", "--store", store, "--json", *options)
    said = capsys.readouterr()
    return status, json.loads(said.out) if said.out else None, " ".join(said.err.split())


def test_a_search_gives_a_model_whose_record_says_where_it_comes_from(made, tmp_path, capsys):
    status, body, said = typed(made, tmp_path, capsys)
    assert status == 0
    assert body["search"]["study"] == "demo@1"
    assert body["search"]["trials"] == 5
    bundle = made.catalog.model(body["model"])
    assert bundle.search.model_dump(mode="json") == body["search"]
    assert bundle.params["max_depth"] == body["search"]["params"]["max_depth"]
    assert bundle.train_metrics["valid"] == pytest.approx(body["search"]["value"], abs=1e-6)
    assert "study demo@1" in said
    assert arclight("models", body["model"], "--store", str(made.catalog.store.root)) == 0
    assert "trial" in capsys.readouterr().err
    # the same command has nothing to do; more trials are added; another space is another study
    assert typed(made, tmp_path, capsys)[1] == body
    status, more, said = typed(made, tmp_path, capsys, trials="8")
    assert (status, more["search"]["trials"], more["search"]["study"]) == (0, 8, "demo@1")
    assert "going on with study demo@1: 5 trials ended" in said
    other = SPEC.replace("[2, 5]", "[2, 4]")
    assert typed(made, tmp_path, capsys, text=other)[1]["search"]["study"] == "demo@2"
    assert typed(made, tmp_path, capsys, "--new-study")[1]["search"]["study"] == "demo@3"
    # of studies that are alike the newest is the one, though another one is newer still
    assert typed(made, tmp_path, capsys, text=other, trials="6")[1]["search"]["study"] == "demo@2"
    typed(made, tmp_path, capsys, "--new-study", text=SPEC.replace("[2, 5]", "[3, 4]"))
    status, body, said = typed(made, tmp_path, capsys, trials="4")
    assert (status, body["search"]["study"], body["search"]["trials"]) == (0, "demo@3", 5)
    assert "study demo@3 has 5 trials, more than tune.trials (4); all of them count" in said


def test_what_a_limit_of_time_has_left_is_made_with_another_one(
    made, tmp_path, capsys, monkeypatch
):
    def is_over(self) -> bool:
        return len(Trials.read(trial_lines(made.catalog.store, newest())).ended) >= 2

    def newest():
        return newest_study(made.catalog.store, "demo")

    monkeypatch.setattr(Host, "_is_over", is_over)
    monkeypatch.setattr(Controller, "_is_over", is_over)
    limited = SPEC.replace("TRIALS,", "TRIALS, scheduler: none, time_limit_s: 3000,")
    status, body, said = typed(made, tmp_path, capsys, text=limited)
    left = 5 - body["search"]["trials"]
    told = f"{left} of 5 trials are left, since tune.time_limit_s (3,000 s) was over; the same"
    assert (status, 0 < left < 5, told in said) == (0, True, True), said
    assert told in typed(made, tmp_path, capsys, text=limited)[2]  # there is nothing to do
    monkeypatch.undo()
    status, body, said = typed(made, tmp_path, capsys, text=limited.replace("3000", "3001"))
    assert (status, body["search"]["trials"], "are left" in said) == (0, 5, False)


def test_a_target_that_the_time_did_not_suffice_for_is_said(made, tmp_path, capsys, monkeypatch):
    over = {"after": 2}

    def is_over(self) -> bool:
        study = newest_study(made.catalog.store, "demo")
        ended = Trials.read(trial_lines(made.catalog.store, study)).ended
        return len(ended) >= over["after"]

    monkeypatch.setattr(Host, "_is_over", is_over)
    limited = "TRIALS, scheduler: none, at_once: 1, time_limit_s: 3000, target: 0.9999,"
    text = SPEC.replace("TRIALS,", limited)
    status, body, said = typed(made, tmp_path, capsys, text=text)
    assert (status, body["search"]["trials"]) == (0, 2)
    assert (
        "3 of 5 trials are left and tune.target (0.9999) is not reached, since tune.time_limit_s"
    ) in said
    over["after"] = 99
    status, body, said = typed(made, tmp_path, capsys, text=text.replace("0.9999", "0.5"))
    assert (status, body["search"]["trials"], "are left" in said) == (0, 2, False)


def test_a_search_whose_trials_are_in_a_database(made, tmp_path, capsys, postgres):
    text = SPEC.replace("TRIALS,", f"TRIALS, storage: '{postgres.url}',")
    status, body, said = typed(made, tmp_path, capsys, text=text)
    assert (status, body["search"]["trials"]) == (0, 5), said
    status, more, said = typed(made, tmp_path, capsys, text=text, trials="7")
    assert (status, more["search"]["trials"]) == (0, 7)
    assert "going on with study demo@1: 5 trials ended" in said
    study = newest_study(made.catalog.store, "demo")
    assert [p.name for p in study_folder(made.catalog.store, study).iterdir()] == ["study.html"]
    store = ("--store", str(made.catalog.store.root))
    assert arclight("studies", "demo@1", *store, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 7
    # one that is not there: a sentence, before anything starts; another study is still shown
    gone = text.replace(str(postgres.port), "1")
    status, body, said = typed(made, tmp_path, capsys, text=gone)
    assert (status, body) == (1, None)
    assert "tune.storage: the trials must be kept in postgresql://arclight@127.0.0.1:1/" in said
    assert studies_of(made.catalog.store, "demo") == (1,)
    assert typed(made, tmp_path, capsys)[1]["search"]["study"] == "demo@2"
    postgres.stop()
    try:
        assert arclight("studies", *store, "--json") == 1
        said = capsys.readouterr()
        assert [s["study"] for s in json.loads(said.out)["studies"]] == ["demo@2"]
        assert "arclight@127.0.0.1" in json.loads(said.out)["not_read"][0]["reason"]
        assert arclight("studies", *store) == 1
        assert "demo@1 (not read)" in capsys.readouterr().err
    finally:
        postgres.start()


def test_a_damaged_model_does_not_stand(made, tmp_path, capsys):
    train = SPEC[: SPEC.index("tune:")]
    (tmp_path / "spec.yaml").write_text(train)
    command = ("train", tmp_path / "spec.yaml", "--store", str(made.catalog.store.root))
    assert arclight(*command) == 0
    assert arclight(*command) == 0
    bundle = made.catalog.model("demo")
    file = made.catalog.folder(bundle) / bundle.model_file
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    capsys.readouterr()
    assert arclight(*command) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "must have the SHA-256" in said
    assert "Another train.seed makes another model." in said
    # what it says is a way
    (tmp_path / "spec.yaml").write_text(train.replace("rounds: 12", "rounds: 12, seed: 7"))
    assert arclight(*command) == 0


def test_a_study_that_is_not_over_is_not_left_for_another_in_silence(made, tmp_path, capsys):
    typed(made, tmp_path, capsys)
    study = newest_study(made.catalog.store, "demo")
    Trials.read(trial_lines(made.catalog.store, study)).begin(5, {"max_depth": 2})
    other = SPEC.replace("[2, 5]", "[2, 4]")
    status, body, said = typed(made, tmp_path, capsys, text=other)
    assert (status, body) == (3, None)
    assert "space (max_depth: [2, 5], now [2, 4])" in said
    assert "--new-study" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SPEC.replace("tune:", "#"), "'tune' must say what is searched"),
        (SPEC.replace("max_depth:", "max_dept:"), "tune.space.max_dept: XGBoost does not use"),
        (SPEC.replace("max_depth:", "eta:").replace("int: [2, 5]", "float: [0.1, 0.2]"),
         "'learning_rate' and 'eta' are the same"),
        (SPEC.replace("rounds: 12", "rounds: 12, init: demo@1"), "leave init or tune out"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_told_with_its_line(made, tmp_path, capsys, text, told):
    status, body, said = typed(made, tmp_path, capsys, text=text)
    assert (status, body) == (2, None)
    assert told in said
    assert "spec.yaml:" in said
    assert "Traceback" not in said


POPULATION = SPEC.replace(
    "train: {rounds: 12, workers: 0, params: {learning_rate: 0.2}}",
    "train: {trainer: torch, rounds: 9, early_stopping: null, workers: 0, params: {width: 8}}",
).replace(
    "sampler: random, space: {max_depth: {int: [2, 5]}}",
    "sampler: random, scheduler: population, population: 4, "
    "space: {learning_rate: {float: [0.0001, 0.05]}, dropout: {float: [0, 0.5]}}",
)


def test_a_population_gives_a_model_that_its_record_trains_again(made, tmp_path, capsys):
    status, body, said = typed(made, tmp_path, capsys, text=POPULATION, trials="12")
    assert status == 0, said
    bundle = made.catalog.model(body["model"])
    assert bundle.settings.params_after == bundle.search.params_after
    assert bundle.train_metrics["valid"] == pytest.approx(body["search"]["value"], abs=1e-9)
    store = ("--store", str(made.catalog.store.root))
    assert arclight("verify", body["model"], "--retrain", *store) == 0
    assert "same bytes" in " ".join(capsys.readouterr().err.split())
    assert arclight("studies", "demo@1", *store) == 0
    assert arclight("models", body["model"], *store) == 0
    # as it stands in a record it can be written into a spec, which trains the same model
    train = {"trainer": "torch", "rounds": 9, "early_stopping": None, "workers": 0}
    train |= {"params": {"width": 8, **bundle.search.params}}
    train |= {"params_after": bundle.search.params_after or {}}
    text = POPULATION[: POPULATION.index("train:")] + f"train: {json.dumps(train)}"
    (tmp_path / "spec.yaml").write_text(text)
    capsys.readouterr()
    assert arclight("train", tmp_path / "spec.yaml", *store, "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == body["digest"]


def test_auto_searches_among_all_trainers_and_trains_what_it_chose(made, tmp_path, capsys):
    status, body, said = typed(made, tmp_path, capsys, "--auto", trials="4")
    assert status == 0
    bundle = made.catalog.model(body["model"])
    assert bundle.trainer == body["search"]["params"]["trainer"]
    assert set(body["search"]["params"]) - {"trainer"} <= set(bundle.params)
    assert bundle.train_metrics["valid"] == pytest.approx(body["search"]["value"], abs=1e-4)
    study = newest_study(made.catalog.store, "demo")
    assert set(study.tune.trainers) == {"xgboost", "lightgbm", "torch"}
    assert study.tune.sampler == "random"  # what else the section says stands
    page = (study_folder(made.catalog.store, study) / "study.html").read_text()
    assert 'id="trainers"' in page
    assert f"Parameters of {bundle.trainer}" in page
    # limits without a space are a section for it
    limits = SPEC[: SPEC.index("tune:")] + "tune: {trials: 3, sampler: random}\n"
    status, body, _ = typed(made, tmp_path, capsys, "--auto", "--new-study", text=limits)
    assert (status, body["search"]["trials"]) == (0, 3)
    status, _, said = typed(made, tmp_path, capsys, text=limits)
    assert (status, "a search must have a space" in said) == (2, True)
    # without a section it is there as well
    text = SPEC[: SPEC.index("tune:")]
    status, _, said = typed(made, tmp_path, capsys, text=text)
    assert status == 2
    assert "arclight tune --auto" in said


def test_auto_says_whose_the_parameters_of_the_spec_are(made, tmp_path, capsys):
    """What one trainer was asked for, another one that wins does not have."""
    text = SPEC.replace(
        "params: {learning_rate: 0.2}", "params: {learning_rate: 0.2, min_split_loss: 1}"
    ).replace("rounds: 12", "rounds: 1")
    _, body, said = typed(made, tmp_path, capsys, "--auto", text=text, trials="1")
    assert body["search"]["trials"] == 1
    assert "train.params (learning_rate, min_split_loss) are those of xgboost: trials of" in said
    assert "of lightgbm and torch are made without them" in said
    assert "of train.params, learning_rate will be what the search has for xgboost." in said
    assert "are made without them" not in typed(made, tmp_path, capsys, trials="1")[2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("sampler: random", "sampler: gp"), "--auto.*gp needs the same parameters"),
        (("workers: 0", "workers: 0, init: demo@1"), "--auto.*trained from scratch"),
        (
            ("{learning_rate: 0.2}", "{eta: 0.2}"),
            "spec.yaml:7: tune.trainers: train.params do not go beside what auto tries with "
            "xgboost: 'eta' and 'learning_rate' are the same; keep one. Leave it out of train.",
        ),
        ((SPEC, POPULATION), "--auto chooses among trainers, but tune.population is of networks"),
    ],
)
def test_auto_on_a_spec_that_it_contradicts(made, tmp_path, capsys, change, told):
    text = SPEC.replace(*change)
    text = text[: text.index("tune:")] if "init" in text else text
    status, _, said = typed(made, tmp_path, capsys, "--auto", text=text, trials="12")
    assert status == 2
    assert re.search(told, said)


def test_what_is_wrong_without_auto_as_well_is_told_as_ever(made, tmp_path, capsys):
    text = SPEC.replace("rounds: 12", "runds: 12")
    status, _, said = typed(made, tmp_path, capsys, "--auto", text=text)
    assert (status, "'train.runds' is not a field" in said, "--auto" in said) == (2, True, False)
