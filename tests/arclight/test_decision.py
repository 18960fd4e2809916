from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from arclight.decision import Decision, GateRule, decide_gate
from arclight.paired import Redrawn
from arclight.report import EvalReport, Figure

Bounds = tuple[float | None, float | None, float | None]


def made(metric: str = "auc", dataset: str = "flights@3", **figures: Bounds) -> EvalReport:
    return EvalReport(
        task="binary",
        split="test",
        metric=metric,
        rows=100,
        positives=40,
        class_counts=(60, 40),
        classes=(),
        threshold=0.5,
        figures=tuple(
            Figure(name=name, value=v, low=low, high=high)
            for name, (v, low, high) in figures.items()
        ),
        confusion=((0, 0), (0, 0)),
        reliability=(),
        segments=(),
        seed=1,
        resamples=400,
        condensed_to=None,
        model=None,
        dataset=dataset,
        opening=None,
    )


NEW = made(auc=(0.75, 0.72, 0.78), log_loss=(0.40, 0.35, 0.45), precision=(None, None, None))
LIMIT = GateRule(at_least={"auc": 0.7})
NOT_WORSE = GateRule(not_worse_than="champion")


@pytest.mark.parametrize(
    ("gate", "kind", "match"),
    [
        (None, "promote", "There is no gate."),
        (GateRule(), "promote", "There is no gate."),
        (LIMIT, "promote", "auc 0.75 is at least 0.7."),
        (GateRule(at_least={"auc": 0.75}), "promote", "auc 0.75 is at least 0.75."),
        (GateRule(at_least={"auc": 0.76}), "refuse", "auc must be at least 0.76, got 0.75."),
        (GateRule(at_most={"log_loss": 0.4}), "promote", "log_loss 0.4 is at most 0.4."),
        (GateRule(at_most={"log_loss": 0.39}), "refuse", "log_loss must be at most 0.39, got 0.4"),
        (
            GateRule(at_least={"auc": 0.8}, at_most={"log_loss": 0.3}),
            "refuse",
            "auc must be at least 0.8, got 0.75; log_loss must be at most 0.3, got 0.4.",
        ),
        (GateRule(at_least={"precision": 0.1}), "refuse", "but is undefined on these rows"),
        (
            GateRule(at_least={"r2": 0.1}),
            "refuse",
            "r2 must be at least 0.1 but is not in the rep",
        ),
        (NOT_WORSE, "promote", "no model holds 'champion' yet."),
    ],
)
def test_limits(gate, kind, match):
    decision = decide_gate(gate, NEW, None)
    assert decision.kind == kind
    assert match in decision.reason
    assert not decision.reason.lower().startswith(("refuse", "keep"))  # the kind stands before it


@pytest.mark.parametrize(
    ("metric", "theirs", "kind"),
    [
        ("auc", 0.60, "promote"),
        ("auc", 0.75, "promote"),
        ("auc", 0.78, "promote"),  # the edge of our interval
        ("auc", 0.781, "keep"),
        ("log_loss", 0.60, "promote"),
        ("log_loss", 0.35, "promote"),
        ("log_loss", 0.349, "keep"),
    ],
)
def test_the_champion_is_compared_with_the_interval(metric, theirs, kind):
    ours = NEW.model_copy(update={"metric": metric})
    champion = made(metric, **{metric: (theirs, theirs - 0.01, theirs + 0.01)})
    decision = decide_gate(NOT_WORSE, ours, champion)
    assert decision.kind == kind
    assert f"{metric} of 'champion' is {theirs:g}" in decision.reason
    assert "95% interval 0." in decision.reason
    assert "not the same rows" not in decision.reason


@pytest.mark.parametrize(
    ("metric", "step", "kind", "verdict"),
    [
        ("auc", 0.003, "promote", ": not worse beyond chance"),
        ("auc", -0.001, "promote", ": not worse beyond chance"),  # less than chance explains
        ("auc", -0.003, "keep", ": worse beyond chance"),
        ("log_loss", 0.003, "keep", ": worse beyond chance"),
        ("log_loss", -0.003, "promote", ": not worse beyond chance"),
    ],
)
def test_on_the_same_rows_the_difference_decides(metric, step, kind, verdict):
    """The figures are well within each other's intervals; what counts is row by row."""
    drawn = tuple(0.75 + 0.0001 * n for n in range(-150, 151))
    off = tuple(0.00001 * n for n in range(-150, 151))
    theirs = Redrawn(metric=metric, rows="same", value=0.75, kept=0.75, drawn=drawn)
    ours = theirs.model_copy(
        update={
            "value": 0.75 + step,
            "kept": 0.75 + step,
            "drawn": tuple(d + step + o for d, o in zip(drawn, off, strict=True)),
        }
    )
    figure = {metric: (0.75 + step, 0.735 + step, 0.765 + step)}
    new = made(metric, **figure).model_copy(update={"redrawn": ours})
    champion = made(metric, dataset="flights@2", **{metric: (0.75, 0.735, 0.765)})
    champion = champion.model_copy(update={"redrawn": theirs})
    decision = decide_gate(NOT_WORSE, new, champion)
    assert (decision.kind, verdict in decision.reason) == (kind, True)
    assert f"on the same rows the difference is {step:+.3g} with 95% interval" in decision.reason
    assert "not the same rows" not in decision.reason
    other = champion.model_copy(update={"redrawn": theirs.model_copy(update={"rows": "others"})})
    assert "not the same rows: 'flights@2'" in decide_gate(NOT_WORSE, new, other).reason


@pytest.mark.parametrize(("theirs", "kind"), [(0.75, "promote"), (0.7501, "keep")])
def test_without_an_interval_the_point_figure_decides(theirs, kind):
    ours = made(auc=(0.75, None, None))
    decision = decide_gate(NOT_WORSE, ours, made(auc=(theirs, None, None)))
    assert decision.kind == kind
    assert "interval not computed" in decision.reason


def test_another_dataset_is_named():
    champion = made(dataset="flights@2", auc=(0.7, 0.6, 0.8))
    reason = decide_gate(NOT_WORSE, NEW, champion).reason
    assert "not the same rows: 'flights@2' for the champion, 'flights@3' for this model" in reason


@pytest.mark.parametrize(
    ("ours", "theirs", "side"),
    [
        (made(auc=(None, None, None)), NEW, "this model"),
        (NEW, made(auc=(None, None, None)), "'champion'"),
        (NEW, made("log_loss", log_loss=(0.4, 0.3, 0.5)), "'champion'"),
    ],
)
def test_what_cannot_be_compared_keeps_the_champion(ours, theirs, side):
    decision = decide_gate(NOT_WORSE, ours, theirs)
    assert decision.kind == "keep"
    assert f"auc of {side} is missing or undefined" in decision.reason


def test_a_missed_limit_comes_before_the_champion():
    gate = GateRule(at_least={"auc": 0.9}, not_worse_than="champion")
    assert decide_gate(gate, NEW, made(auc=(0.99, 0.9, 1.0))).kind == "refuse"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"at_least": {"log_loss": 0.3}}, "takes metrics where higher is better, got 'log_loss'; "
         "put it under 'at_most'"),
        ({"at_most": {"auc": 0.3}}, "'at_most' takes metrics where lower .* under 'at_least'"),
        ({"at_most": {"bias": 0.3}}, "best at zero, so limit mae or rmse"),
        ({"at_least": {"acu": 0.3}}, r"known metric, got 'acu'; .* Did you mean 'auc'\?"),
        ({"at_least": {"auc": float("nan")}}, "finite number"),
        ({"at_least": {"auc": 70}}, "'at_least' must set limits that can be met, but auc is 1 at"),
        ({"at_least": {"r2": 1.01}}, "r2 is 1 at best, got 1.01"),
        ({"at_most": {"rmse": -0.5}}, "rmse is 0 at best, got -0.5"),
        ({"at_leats": {"auc": 0.3}}, "Extra inputs"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_where_it_is_built(fields, match):
    with pytest.raises(ValidationError, match=match):
        GateRule(**fields)


def test_a_rule_knows_its_task():
    LIMIT.check_task("binary")
    with pytest.raises(ValueError, match=r"gate of a regression task must use .*got 'auc'"):
        LIMIT.check_task("regression")


@pytest.mark.parametrize(
    ("value", "field"),
    [(LIMIT, "not_worse_than"), (Decision(kind="keep", reason="Because."), "kind")],
)
def test_values_are_frozen_and_survive_json_and_pickling(value, field):
    assert type(value).model_validate_json(value.model_dump_json()) == value
    assert pickle.loads(pickle.dumps(value)) == value
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, field, "promote")
