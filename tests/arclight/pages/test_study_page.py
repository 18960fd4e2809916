"""The page of a search: what it says, whatever the study's names and trials are."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import yaml

from arclight.pages.study_charts import Scale
from arclight.pages.study_page import _lines, _reasons, study_page
from arclight.search_space import Choice, FloatRange, IntRange, chart_place, ends_of
from arclight.study import with_params
from arclight.train_section import Train
from arclight.trial_file import TrialFile
from arclight.trials import LAST_TIME, Trial, Trials, seconds_of
from arclight.tune_section import Tune
from tests.arclight.pages.made_up import HOSTILE
from tests.arclight.pages.made_up_study import made_up_study, made_up_trials


def page_of(trials=60, *, metric="auc", made=None, importance=None):
    study = made_up_study(trials, metric=metric)
    return study_page(study, made_up_trials(study, made), importance)


def test_the_best_trial_is_a_section_that_a_spec_takes():
    study = made_up_study(60)
    trials = made_up_trials(study)
    page = study_page(study, trials)
    text = re.search(r"<pre[^>]*>(.*?)</pre>", page, re.S)[1]
    train = yaml.safe_load(text.replace("&lt;", "<").replace("&gt;", ">")
                           .replace("&#34;", '"').replace("&#39;", "'"))["train"]  # fmt: skip
    best = trials.ranked("auc")[0]
    assert train["trainer"] == "lightgbm"
    assert train["params"]["min_data_in_leaf"] == 50
    assert train["params"]["num_leaves"] == best.params["num_leaves"]
    assert train["params"]["learning_rate"] == best.params["learning_rate"]


def section_of(page):
    text = re.search(r"<pre[^>]*>(.*?)</pre>", page, re.S)[1]
    return Train.model_validate_json(json.dumps(yaml.safe_load(html.unescape(text))["train"]))


def test_the_section_says_all_that_the_search_had():
    """Whoever copies it trains what the search would."""
    study, given = made_up_study(60), {"early_stopping": None, "imbalance": "weight", "seed": 3}
    study = study.model_copy(update={"train": study.train.model_copy(update=given)})
    trials = made_up_trials(study)
    best = study.best(trials)
    train = section_of(study_page(study, trials))
    assert train == with_params(study.train, study.tune, best.params)
    assert (train.early_stopping, train.imbalance) == (None, "weight")
    # one that was stopped on the way does not stand for a model of all rounds
    lucky = next(n for n, t in trials.ended.items() if t.state == "stopped")
    trials.ended[lucky] = trials.ended[lucky].model_copy(update={"value": 0.99})
    page = study_page(study, trials)
    assert section_of(page) == train
    assert "those that had all their rounds come first" in page


def test_a_population_shows_how_its_best_network_came_about():
    tune = {
        "scheduler": "population", "population": 4, "trials": 8, "sampler": "random",
        "space": {"learning_rate": {"float": (0.01, 0.5), "log": True}},
    }  # fmt: skip
    study = made_up_study(8)
    study = study.model_copy(
        update={"train": Train(trainer="torch", rounds=10), "tune": Tune.model_validate(tune)}
    )
    trials = Trials(TrialFile(Path("none")))
    for number in range(8):
        before = None if number < 4 else trials.ended[max(1, number - 4)]
        trials.ended[number] = Trial(
            number=number, params={"learning_rate": (2 + number) / 100}, state="complete",
            value=0.6 + number / 100, points=((5 if before is None else 10, 0.6),), rounds=5,
            parent=before and before.number,
        )  # fmt: skip
    page = study_page(study, trials)
    train = section_of(page)
    assert train.params == {"learning_rate": 0.05}
    assert train.params_after == {5: {"learning_rate": 0.09}}
    assert "population of 4, 2 generations" in page
    assert "at the end of each generation" in page
    assert "its parameters are those of its last generation" in page
    (best, *_) = _lines(study, trials, study.ranked(trials))
    assert [height for height, _ in best.points] == [5, 10]


def test_counts_reasons_and_seconds_are_those_of_the_trials():
    study = made_up_study(60)
    trials = made_up_trials(study)
    page = study_page(study, trials)
    states = [trial.state for trial in trials.ended.values()]
    assert f"{states.count('stopped')} stopped, {states.count('failed')} failed" in page
    assert "the loss is not a number after round 3" in page
    spent = seconds_of(trials)
    assert spent.training == pytest.approx(sum(t.train_s for t in trials.ended.values()))
    assert spent.waste == pytest.approx(0.2 * states.count("failed"))
    assert 0 < spent.share < 1
    assert f"{spent.training:,.1f}" in page


def test_trials_that_took_their_process_with_them_are_one_reason_whatever_is_known_of_each():
    gone = "its process was gone 3 times before it ended"
    trials = Trials(TrialFile(Path("none")))
    for number in range(8):
        reason = f"{gone}{LAST_TIME}it held {number}.5 GiB" if number < 7 else "another one"
        trials.ended[number] = Trial(number=number, params={}, state="failed", reason=reason)
    assert _reasons(trials) == [(f"{gone}{LAST_TIME}it held 0.5 GiB", 7), ("another one", 1)]


def test_trials_whose_process_was_gone_are_named():
    study = made_up_study(60)
    trials = made_up_trials(study)
    assert "process was gone" not in study_page(study, trials)
    trials.attempts = {0: 1, 7: 2, 12: 3}
    assert "begun again, since their process was gone" in study_page(study, trials)
    assert "trials 7, 12" in study_page(study, trials)


def test_names_and_reasons_are_text():
    page = page_of()
    assert HOSTILE not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_the_line_of_the_history_ends_at_the_best(metric):
    study = made_up_study(40, metric=metric)
    trials = made_up_trials(study)
    best = trials.ranked(metric)[0]
    values = [t.value for t in trials.ended.values() if t.value is not None]
    assert best.value == (max(values) if metric == "auc" else min(values))
    assert f"is that of trial {best.number}" in study_page(study, trials)


def test_importance_is_drawn_in_its_order_and_said_to_be_missing():
    found = page_of(importance={"num_leaves": 0.7, "learning_rate": 0.3})
    assert "num_leaves: train 70.0 %; learning_rate: train 30.0 %" in found
    assert found.index("by num_leaves</h3>") < found.index("by learning_rate</h3>")
    assert "Nothing is said about the importance" in page_of()


@pytest.mark.parametrize("made", [0, 1, 2, 16, 17])
def test_a_study_is_shown_however_far_it_is(made):
    page = page_of(made=made)
    assert ("No trial gave a figure" in page) == (made == 0)
    assert "open, 0 begun" in page


def test_only_failures_show_their_reason():
    study = made_up_study(1)
    trials = made_up_trials(study, 17)
    trials.ended = {16: trials.ended[16]}
    page = study_page(study, trials)
    assert "No trial gave a figure" in page
    assert "the loss is not a number" in page


def test_many_trials_are_listed_and_drawn_up_to_a_limit():
    page = page_of(700)
    assert "The best 500 of 700." in page
    assert page.count("<tr><td>") < 560


def test_one_that_blew_up_does_not_press_the_others_together():
    values = [0.3 + i / 1000 for i in range(40)] + [1e9]
    scale = Scale.of(values, higher=False)
    assert scale.high < 1
    assert scale.cut > 0
    assert scale.up(1e9) == scale.up(scale.high)
    assert scale.up(0.3) > scale.up(0.33)  # a page counts from the top
    same = Scale.of([0.5, 0.5], higher=True)
    assert same.low < 0.5 < same.high


@pytest.mark.parametrize(
    ("one", "value", "place"),
    [
        (FloatRange.model_validate({"float": (0.01, 1.0), "log": True}), 0.1, 0.5),
        (FloatRange.model_validate({"float": (0.0, 4.0)}), 1.0, 0.25),
        (IntRange.model_validate({"int": (2, 12)}), 12, 1.0),
        (Choice(choice=("a", "b", "c")), "b", 0.5),
        (Choice(choice=(7,)), 7, 0.0),
    ],
)
def test_a_value_has_its_place_in_a_range(one, value, place):
    assert chart_place(one, value) == pytest.approx(place)
    assert chart_place(one, ends_of(one)[0]) == 0
