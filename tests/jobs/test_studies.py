"""`arclight studies`: what is listed of searches, and what one shows while it runs and after."""

from __future__ import annotations

import json

import pytest

from arclight.study import Study, studies_of, study_folder, trial_lines
from arclight.trials import Trials
from jobs.studies import PAGE, LiveTable
from ray_apps.tuning.importance import AT_LEAST, importance_of
from tests.arclight.pages.made_up_study import made_up_study, made_up_trials
from tests.jobs.test_signing import arclight
from tests.ray_apps.make_dataset import make_dataset


@pytest.fixture
def store(tmp_path):
    return make_dataset(tmp_path / "store", rows=(60, 20, 20)).catalog.store


def put(store, made, *, trials=20, metric="auc"):
    """Publish a study and the trials it has made, and return both."""
    asked = made_up_study(trials, metric=metric)
    record = store.append(
        lambda n: asked.model_copy(update={"number": n}).to_json(), lambda _: False,
        "studies", asked.name, "versions",
    )  # fmt: skip
    study = Study.from_json(record.text, source=record.path)
    known = Trials(trial_lines(store, study))
    for number, trial in sorted(made_up_trials(study, made).ended.items()):
        known.begin(number, trial.params)
        known.end(trial)
    return study, known


def typed(store, capsys, *words):
    status = arclight("studies", *words, "--store", str(store.root))
    said = capsys.readouterr()
    return status, said.out, said.err


def test_studies_are_listed_with_their_best_and_whether_they_are_over(store, capsys):
    assert "there are no studies" in typed(store, capsys)[2]
    study, trials = put(store, 20)
    trials.close(study.tune)
    put(store, 3, metric="log_loss")
    status, out, _ = typed(store, capsys, "--json")
    rows = json.loads(out)["studies"]
    assert status == 0
    assert [(r["study"], r["state"], r["trials"]) for r in rows] == [
        ("flights@1", "over", 20), ("flights@2", "open", 3),
    ]  # fmt: skip
    assert rows[0]["best"] == trials.ranked("auc")[0].value
    assert rows[0]["failed"] == 1
    assert "flights@2" in typed(store, capsys, "flights")[2]


def test_a_study_is_shown_and_its_page_written(store, capsys):
    study, trials = put(store, 20)
    trials.begin(20, trials.ended[0].params)
    status, out, said = typed(store, capsys, "flights@1", "--json")
    body = json.loads(out)
    assert (status, body["begun"], len(body["trials"])) == (0, [20], 20)
    page = study_folder(store, study) / PAGE
    assert not page.exists()
    status, out, said = typed(store, capsys, "flights@1")
    assert (status, out) == (0, "")
    assert str(page) in said
    assert "open: 20 of 20 trials ended, 1 begun" in said
    assert f"{trials.ranked('auc')[0].value:.5f}" in said
    assert "What decided" in page.read_text()


def test_a_study_that_has_not_begun_is_shown(store, capsys):
    study, _ = put(store, 0)
    path = trial_lines(store, study).path
    assert not path.exists()
    assert typed(store, capsys, "flights@1")[0] == 0
    assert "No trial gave a figure" in (path.parent / PAGE).read_text()


@pytest.mark.parametrize("name", ["flight", "flights@7", "flights@x", "@1", "../x@1"])
def test_what_is_not_there_is_said(store, capsys, name):
    put(store, 2)
    status, _, said = typed(store, capsys, name)
    assert status == 2
    assert name.removesuffix("@1") in said
    assert "Traceback" not in said


def test_a_damaged_study_is_listed_as_such(store, capsys):
    study, _ = put(store, 3)
    put(store, 3)
    path = trial_lines(store, study).path
    path.write_bytes(path.read_bytes().replace(b'"ended"', b'"anded"', 1))
    status, _, said = typed(store, capsys)
    assert status == 1
    assert "flights@1 (damaged)" in said
    assert "flights@2" in said
    assert "line 2 of" in said


def test_the_live_table_has_the_best_and_those_that_run(store, monkeypatch):
    study, trials = put(store, 9)
    lines = []
    take = Trials._take
    monkeypatch.setattr(Trials, "_take", lambda self, body: lines.append(1) or take(self, body))
    draw = LiveTable(store, study)
    first = list(draw().columns[0].cells)
    assert first[0] == str(trials.ranked("auc")[0].number)
    assert "running" not in list(draw().columns[3].cells)
    known = len(lines)
    draw()
    assert len(lines) == known > 9  # what was read is not read again
    trials.begin(9, trials.ended[0].params)
    assert list(draw().columns[0].cells)[-1] == "9"
    assert list(draw().columns[3].cells)[-1] == "running"


def test_the_parameter_that_decides_is_said_to():
    study = made_up_study(60)
    found = importance_of(study, made_up_trials(study))
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 0.6
    assert sum(found.values()) == pytest.approx(1)


def test_of_few_trials_nothing_is_said():
    study = made_up_study(AT_LEAST)
    assert importance_of(study, made_up_trials(study, AT_LEAST - 1)) is None


def test_where_nothing_sets_the_best_apart_nothing_is_said():
    """Not that every parameter decided as much as every other."""
    study = made_up_study(60)
    trials = made_up_trials(study)
    alike = {n: t.model_copy(update={"value": 0.7}) for n, t in trials.ended.items()}
    assert importance_of(study, Trials(trials.lines, alike)) is None
    assert importance_of(study, trials) is not None


def test_numbers_of_studies(store):
    assert studies_of(store, "flights") == ()
    put(store, 1)
    assert studies_of(store, "flights") == (1,)
