import functools
import importlib
import importlib.util
import re
from html.parser import HTMLParser

import pytest

import arclight.pages
from arclight.bundle import TrainSettings, Transfer
from arclight.decision import Decision
from arclight.errors import SpecError
from arclight.pages.dataset_page import dataset_page
from arclight.pages.model_page import model_page
from tests.arclight.pages.made_up import (
    HOSTILE,
    evaluation_of,
    flights_manifest,
    model_bundle,
)

TASKS = ("binary", "multiclass", "regression")
VOID = {"meta", "br", "hr", "link", "img"}


class Reader(HTMLParser):
    """Reads a page as a browser does: its text, tags and addresses; tags must nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.addresses, self.ids, self.labels = [], [], [], [], []
        self._open = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.addresses += [found[name] for name in ("href", "src") if name in found]
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "svg":
            self.labels.append(found.get("aria-label", ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@functools.cache
def manifest_of(task):
    return flights_manifest(task=task, wide=3)


@functools.cache
def read_page(kind, task):
    manifest = manifest_of(task)
    if kind == "dataset":
        return Reader(dataset_page(manifest))
    bundle = model_bundle(manifest)
    decision = Decision(kind="refuse", reason=f"auc must be at least 0.9 {HOSTILE}.")
    return Reader(model_page(bundle, evaluation_of(bundle), manifest, decision))


@pytest.fixture(params=TASKS)
def manifest(request):
    return manifest_of(request.param)


@pytest.fixture
def dataset(manifest):
    return read_page("dataset", manifest.task)


@pytest.fixture
def model(manifest):
    return read_page("model", manifest.task)


@pytest.fixture(params=["dataset", "model"])
def page(request, manifest):
    return read_page(request.param, manifest.task)


def test_a_page_is_whole_without_scripts_or_addresses(page):
    assert not {"script", "img", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_hostile_names_are_text(page):
    assert "<script>alert('x')</script> $\\frac{1}$ \\x1b[31m\\u202e" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_every_chart_says_what_it_shows(page):
    assert page.labels
    assert all(len(label) > 10 for label in page.labels)


def test_a_dataset_page_shows_every_column_and_account(dataset, manifest):
    assert dataset.labels[0].startswith("Rows stage by stage.")
    for text in (
        "flights-late@3", "2026-11-21 04:10 UTC", "21,000", "22,760", "check:known_arrival 800",
        "key:repeated", "5.5 %", manifest.content_digest, "after the last bound 500",
        "2013-09-01 10:00 UTC", "join 'weather'", "1.91 MB",
    ):  # fmt: skip
        assert text in dataset.text, text
    for summary in manifest.summaries["train"]:
        if summary.name.isidentifier():
            assert summary.name in dataset.text
    drawn = [label for label in dataset.labels if label.startswith(("Distribution", "Share of"))]
    assert len(drawn) == len(manifest.summaries["train"]) - 1  # one has no value anywhere


def test_figures_of_a_column_are_those_of_its_summary():
    manifest = flights_manifest(wide=0)
    temp = next(s for s in manifest.summaries["valid"] if s.name == "temp")
    text = Reader(dataset_page(manifest)).text
    assert f"{temp.high:.1f}" in text
    assert f"{temp.moments.mean:.2f}" in text
    assert f"{temp.moments.correlation:.3f}" in text


def test_a_dataset_page_says_how_near_its_quantiles_are(dataset):
    assert "Every figure on this page is of the full data" in dataset.text
    assert "Quantiles of more than 1,024 values" in dataset.text
    assert "a rank is off by at most 0.50 % of a split's values." in dataset.text


def test_classes_without_order_have_no_association():
    text = Reader(dataset_page(flights_manifest(task="multiclass", wide=0))).text
    assert "the classes have no order" in text
    assert "with label" not in text


def test_a_column_is_not_warned_of_twice():
    manifest = flights_manifest(wide=0)
    built = ("feature 'always_one' has one value in train", "feature 'temp' is odd")
    text = Reader(dataset_page(manifest.model_copy(update={"warnings": built}))).text
    assert built[0] not in text
    assert built[1] in text


def test_a_dataset_without_rows_in_a_split_has_a_page():
    manifest = flights_manifest(wide=0, rows={"train": 400, "valid": 0, "test": 1})
    assert "flights-late@3" in Reader(dataset_page(manifest)).text


def test_a_wide_dataset_stays_small_and_starts_shut():
    manifest = flights_manifest(wide=485, rows={"train": 600, "valid": 200, "test": 200})
    page = dataset_page(manifest)
    assert len(page) < 5_000_000
    assert page.count("<svg") > 500
    assert not re.search(r"<details[^>]* open", page)


def test_a_model_page_shows_every_figure_with_its_interval(model, manifest):
    report = evaluation_of(model_bundle(manifest)).report
    for figure in report.figures:
        assert figure.name in model.text
        assert f"{figure.value:,.4f}" in model.text
        assert f"{figure.low:,.4f} to {figure.high:,.4f}" in model.text
    assert "Gate: refuse." in model.text
    assert "50 resamples of 5,000 rows, seed 5" in model.text
    for segment in report.segments:
        assert f"{segment.rows:,}" in model.text


def test_a_model_page_fits_its_task(model, manifest):
    drawn = {label.split(".")[0] for label in model.labels}
    curves = {"Confusion matrix", "Reliability curve"}
    assert curves <= drawn if manifest.task != "regression" else not curves & drawn
    ranked = {"ROC curve", "Precision-recall curve"}
    assert ranked <= drawn if manifest.task == "binary" else not ranked & drawn
    assert ("Labels by prediction" in drawn) == (manifest.task == "regression")
    assert ("Figures in the label's unit" in drawn) == (manifest.task == "regression")
    assert ("0.3125" in model.text) == (manifest.task == "binary")


WEIGHTED = {"settings": TrainSettings(rounds=9, early_stopping=4, imbalance="weight", seed=3)}
EVEN = {"settings": TrainSettings(rounds=9, early_stopping=None, imbalance="none", seed=3)}


@pytest.mark.parametrize(
    ("update", "reason"),
    [({}, None), (EVEN, None), (WEIGHTED, "imbalance: weight"),
     ({"params": {"scale_pos_weight": 4.0}}, "scale_pos_weight: 4.0"),
     ({"params": {"is_unbalance": True}}, "is_unbalance: True"),
     ({"params": {"is_unbalance": False, "pos_bagging_fraction": 1.0}}, None),
     ({"params": {"neg_bagging_fraction": 0.1}}, "neg_bagging_fraction: 0.1")],
)  # fmt: skip
def test_a_card_calls_no_weighted_score_a_probability(manifest, update, reason):
    bundle = model_bundle(manifest).model_copy(update=update)
    text = Reader(model_page(bundle)).text
    if bundle.settings is not None:
        assert f"train.imbalance {bundle.settings.imbalance}" in " ".join(text.split())
        assert "train.early_stopping" in text
    is_said = reason is not None and manifest.task != "regression"
    assert ("is no probability of the data as it is" in text) == is_said
    if is_said:
        assert f"training weighted the classes ({reason})" in text


UPON = Transfer(metric="auc", model="m@1", model_digest="d", rounds=218, is_valid_new=True,
                is_test_new=True, before=None, tuned=0.7)  # fmt: skip


@pytest.mark.parametrize(
    ("rounds", "stopping", "transfer", "said"),
    [(318, 20, None, ", all that were asked for"), (318, None, None, ""),
     (319, 20, None, ", of at most 319 with early stopping"),
     (100, 20, UPON, ", all that were asked for"),
     (101, 20, UPON, ", of at most 319 with early stopping")],
)  # fmt: skip
def test_a_model_page_tells_rounds_that_were_kept_of_more_from_all(
    rounds, stopping, transfer, said
):
    """The model has 318, those of the one that it started from included."""
    settings = TrainSettings(rounds=rounds, early_stopping=stopping, imbalance="none", seed=3)
    bundle = model_bundle(manifest_of("binary")).model_copy(
        update={"settings": settings, "transfer": transfer}
    )
    text = Reader(model_page(bundle)).text
    assert f"xgboost, 318 rounds{said} Learned from" in text
    assert f"Rounds 318 {said[2:]}".strip() in text
    assert "after early stopping" not in text


@pytest.mark.parametrize(("train", "said"), [(100_000, ""), (100_001, " (of 100,000 rows)")])
def test_a_model_page_says_of_how_many_rows_the_figure_on_train_is(train, said):
    manifest = manifest_of("binary")
    rows = {**manifest.rows, "train": train, "valid": 200_000}
    page = model_page(model_bundle(manifest), None, manifest.model_copy(update={"rows": rows}))
    text = Reader(page).text
    assert f"auc, train 0.8123{said} auc, valid 0.7432 " in text


def test_a_model_page_ranks_what_its_trees_use(model, manifest):
    told = next(label for label in model.labels if label.startswith("What it uses"))
    first = model_bundle(manifest).importance[0]
    assert f"train {100 * first:.1f} %" in told
    assert f"{100 * first:.1f} %" in model.text


def test_a_model_whose_trees_never_split_ranks_nothing(manifest):
    bundle = model_bundle(manifest)
    for importance in ((), (0.0,) * len(bundle.plan.features)):
        page = Reader(model_page(bundle.model_copy(update={"importance": importance})))
        assert "What its trees use" not in page.text


def test_a_report_of_an_older_release_draws_no_curves(manifest):
    bundle = model_bundle(manifest)
    evaluation = evaluation_of(bundle)
    report = evaluation.report.model_copy(update={"curve": (), "actual": ()})
    page = Reader(model_page(bundle, evaluation.model_copy(update={"report": report})))
    drawn = {label.split(".")[0] for label in page.labels}
    assert not drawn & {"ROC curve", "Precision-recall curve", "Labels by prediction"}
    assert ("errors" in page.ids) == (manifest.task != "regression")


def test_a_model_without_evidence_says_so():
    page = Reader(model_page(model_bundle(flights_manifest(wide=0))))
    assert "not been judged on a test split yet" in page.text
    assert "0.7432" in page.text


def test_pages_are_the_same_text_each_time():
    manifest = flights_manifest(wide=0)
    assert dataset_page(manifest) == dataset_page(manifest)


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_library_names_the_extra(library, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == library else find(n))
    with pytest.raises(SpecError, match=rf"'{library}'.*pip install 'arclight\[report\]'"):
        importlib.reload(arclight.pages)
