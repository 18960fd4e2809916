"""Gates: whether a new model takes the alias, as a value with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, model_validator

from arclight.contract import Contract
from arclight.errors import nearest, printable
from arclight.metrics import METRICS, metrics_of
from arclight.paired import difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.metrics import Direction
    from arclight.report import EvalReport, Figure
    from arclight.samples import Task


# the best that a metric can be, where it has an end; what is past it, no model reaches
BEST = {"higher": 1.0, "lower": 0.0}


class Decision(BaseModel):
    """What a gate says: promote the model, keep the present one, or refuse it; and why.

    Not a stored record of its own, so `kind` is a plain field here; it nests in those that are.
    """

    model_config = Contract.model_config

    kind: Literal["promote", "keep", "refuse"]
    reason: str
    """Figures and rule, to be read after the kind, which it does not repeat."""


class GateRule(Contract):
    """What a model must reach before an alias moves to it. An empty rule lets every model pass."""

    at_least: dict[str, float] = {}
    """Lowest point figures, of metrics where higher is better."""
    at_most: dict[str, float] = {}
    """Highest point figures, of metrics where lower is better."""
    not_worse_than: str | None = None
    """Alias whose model must not be better by the main metric, by more than chance explains."""

    @model_validator(mode="after")
    def _check_directions(self) -> Self:
        _check_limits("at_least", self.at_least, "higher")
        _check_limits("at_most", self.at_most, "lower")
        return self

    def check_task(self, task: Task) -> None:
        """Check that every limit is on a metric of the task.

        Raises:
            ValueError: one is not.
        """
        known = [metric.name for metric in metrics_of(task)]
        for name in (*self.at_least, *self.at_most):
            if name not in known:
                raise ValueError(
                    f"A gate of a {task} task must use its metrics, got '{name}'; "
                    f"known: {', '.join(known)}.{nearest(name, known)}"
                )


def _check_limits(field: str, limits: dict[str, float], direction: Direction) -> None:
    fitting = [metric.name for metric in METRICS.values() if metric.direction == direction]
    for name, limit in limits.items():
        if name in fitting:
            _check_reach(field, name, limit, direction)
            continue
        if name not in METRICS:
            raise ValueError(
                f"'{field}' must name a known metric, got '{printable(name)}'; "
                f"known: {', '.join(fitting)}.{nearest(name, METRICS)}"
            )
        raise ValueError(
            f"'{field}' takes metrics where {direction} is better, got '{name}'; "
            f"{_advice(METRICS[name].direction)}."
        )


def _check_reach(field: str, name: str, limit: float, direction: Direction) -> None:
    """Refuse a limit that no model can meet: every metric ends at 1 or, as an error, at 0."""
    best = BEST[direction]
    is_out_of_reach = limit > best if direction == "higher" else limit < best
    if is_out_of_reach:
        raise ValueError(
            f"'{field}' must set limits that can be met, but {name} is {best:g} at best, got "
            f"{limit:g}; give the figure as reports show it."
        )


def _advice(direction: Direction) -> str:
    if direction == "zero":
        return "it is best at zero, so limit mae or rmse instead"
    return f"put it under '{'at_least' if direction == 'higher' else 'at_most'}'"


def decide_gate(
    gate: GateRule | None,
    report: EvalReport,
    champion: EvalReport | None,
    holder: str | None = None,
    doubts: Sequence[str] = (),
) -> Decision:
    """Decide whether the model of a report may take the alias.

    A limit that is missed or cannot be checked refuses the model; a better champion is kept: one
    whose main metric is better by more than chance. On the same rows that is a 95% interval of the
    difference (`arclight.paired`) that lies on the model's worse side; on others the champion's
    point figure lies on the better side of the model's own interval. The reason says where one of
    the two may have learned from the rows they are compared on.

    Args:
        gate: the rule; None or an empty one promotes.
        report: evidence about the new model.
        champion: evidence about the model `not_worse_than` names; None when there is none yet.
        holder: NAME@V of that model; None when no model holds the alias.
        doubts: what speaks against figures of either (`Evaluation.doubt`).
    """
    gate = gate or GateRule()
    missed = _missed_limits(gate, report)
    if missed:
        return Decision(kind="refuse", reason=f"{'; '.join(missed)}.")
    met = _met_limits(gate, report)
    if gate.not_worse_than is None:
        return Decision(kind="promote", reason=f"{'; '.join(met) or 'There is no gate'}.")
    if champion is None and holder is not None:
        return Decision(
            kind="keep",
            reason=f"{holder} holds '{gate.not_worse_than}' and has no evaluation to compare "
            f"with; make one: arclight evaluate SPEC --model {holder}",
        )
    found = _compare(gate.not_worse_than, met, report, champion)
    if champion is None or not doubts:
        return found
    return Decision(kind=found.kind, reason=f"{found.reason} {_doubt(doubts, gate)}")


def _limits(gate: GateRule) -> list[tuple[str, str, float]]:
    lower = [(name, "at least", limit) for name, limit in gate.at_least.items()]
    upper = [(name, "at most", limit) for name, limit in gate.at_most.items()]
    return lower + upper


def _figure(report: EvalReport, name: str) -> Figure | None:
    return next((figure for figure in report.figures if figure.name == name), None)


def _missed_limits(gate: GateRule, report: EvalReport) -> list[str]:
    missed = []
    for name, side, limit in _limits(gate):
        figure = _figure(report, name)
        if figure is None or figure.value is None:
            what = "is not in the report" if figure is None else "is undefined on these rows"
            missed.append(f"{name} must be {side} {limit:g} but {what}")
        elif figure.value < limit if side == "at least" else figure.value > limit:
            missed.append(f"{name} must be {side} {limit:g}, got {figure.value:.6g}")
    return missed


def _met_limits(gate: GateRule, report: EvalReport) -> list[str]:
    return [
        f"{name} {report.figure(name).value:.6g} is {side} {limit:g}"
        for name, side, limit in _limits(gate)
    ]


def _compare(
    alias: str, met: list[str], report: EvalReport, champion: EvalReport | None
) -> Decision:
    if champion is None:
        reason = "; ".join([*met, f"no model holds '{alias}' yet"])
        return Decision(kind="promote", reason=f"{reason}.")
    ours, theirs = _figure(report, report.metric), _figure(champion, report.metric)
    if ours is None or ours.value is None or theirs is None or theirs.value is None:
        side = "this model" if ours is None or ours.value is None else f"'{alias}'"
        return Decision(
            kind="keep",
            reason=f"{report.metric} of {side} is missing or undefined, so the two cannot be "
            "compared.",
        )
    told = f"{report.metric} of '{alias}' is {theirs.value:.6g}"
    apart = None
    if report.redrawn is not None and champion.redrawn is not None:
        apart = difference(report.redrawn, champion.redrawn)
    if apart is not None:
        is_worse, rule = _judge_difference(report.metric, ours.value - theirs.value, apart)
        rule = f"{told} and of this model {ours.value:.6g}; {rule}"
    else:
        is_worse, rule = _judge_figures(report.metric, ours, theirs.value)
        rule = f"{told}, {rule}{_other_dataset(report, champion)}"
    if is_worse:
        return Decision(kind="keep", reason=f"{rule}.")
    return Decision(kind="promote", reason=f"{'; '.join([*met, rule])}.")


def _judge_difference(
    metric: str, apart: float, interval: tuple[float, float]
) -> tuple[bool, str]:
    """Say whether a model is worse by its figure less the champion's, on the same rows."""
    low, high = interval
    is_worse = high < 0 if METRICS[metric].higher_is_better else low > 0
    return is_worse, (
        f"on the same rows the difference is {apart:+.3g} with 95% interval {low:+.3g} to "
        f"{high:+.3g}: {'worse' if is_worse else 'not worse'} beyond chance"
    )


def _judge_figures(metric: str, ours: Figure, theirs: float) -> tuple[bool, str]:
    """Say whether a model is worse by its own interval and the champion's figure."""
    higher = METRICS[metric].higher_is_better
    edge = ours.high if higher else ours.low
    edge = ours.value if edge is None else edge
    is_worse = edge is not None and (theirs > edge if higher else theirs < edge)
    return is_worse, (
        f"{'better than' if is_worse else 'within or worse than'} {ours.value:.6g} with 95% "
        f"interval {_interval(ours)} of this model"
    )


def _doubt(doubts: Sequence[str], gate: GateRule) -> str:
    return (
        f"But {', and '.join(doubts)}; figures of rows that were learned from are too good, and "
        f"where that decides, `arclight promote` moves '{gate.not_worse_than}' by hand."
    )


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return "not computed"
    return f"{figure.low:.6g} to {figure.high:.6g}"


def _other_dataset(report: EvalReport, champion: EvalReport) -> str:
    if champion.dataset == report.dataset:
        return ""
    return (
        f" (not the same rows: '{champion.dataset}' for the champion, '{report.dataset}' for "
        "this model)"
    )
