"""Charts of a search: its trials in their order, as they learn, and by their parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.metrics import METRICS
from arclight.pages.canvas import WIDTH, Canvas, nice_ticks
from arclight.pages.column_charts import LABEL_LETTERS, LABEL_ROOM, LABEL_SIZE, tick_text
from arclight.pages.words import count, cut, number
from arclight.search_space import Choice, chart_place, ends_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup

    from arclight.pages.canvas import Ink
    from arclight.search_space import Param, Range
    from arclight.trials import Trial

LINES = 300
"""Trials drawn as lines, the best ones; more of them are a blot."""
DOTS = 2000
LABELLED = 4
"""Values of a choice that are all named below a chart; of more, the first and the last."""
_INKS: dict[str, Ink] = {"complete": "train", "stopped": "mark", "failed": "bad"}
_LEFT, _RIGHT, _TOP, _FLOOR = 52.0, WIDTH - 8, 8.0, 220.0


@dataclass(frozen=True)
class Scale:
    """The figures of a chart: from the best to where nine of ten trials are.

    One learning rate that blows up would leave no room for the others.
    """

    low: float
    high: float
    cut: int
    """Trials beyond it, drawn at its edge."""

    @classmethod
    def of(cls, values: Sequence[float], *, higher: bool) -> Scale:
        """Return the scale of some figures, at least one."""
        ranked = sorted(values, reverse=higher)
        last = ranked[max(0, math.ceil(0.9 * len(ranked)) - 1)]
        low, high = min(ranked[0], last), max(ranked[0], last)
        pad = 0.06 * (high - low) or abs(high) * 0.01 or 0.5
        low, high = low - pad, high + pad
        return cls(low, high, sum(not low <= value <= high for value in values))

    def up(self, value: float) -> float:
        """Return where a figure stands on the sheet."""
        inside = min(max(value, self.low), self.high)
        return _FLOOR - (_FLOOR - _TOP) * (inside - self.low) / (self.high - self.low)


def history_chart(trials: Sequence[Trial], metric: str) -> Markup:
    """Draw every trial's figure in the order of their numbers, and the best so far.

    Args:
        trials: those with a figure, at least one, in any order.
        metric: the figure.
    """
    better = _better(metric)
    shown = sorted(trials, key=lambda t: t.number)
    values = [trial.value or 0.0 for trial in shown]
    scale = Scale.of(values, higher=METRICS[metric].higher_is_better)
    canvas = Canvas(_FLOOR + 36)
    last = max(1, shown[-1].number)

    def across(place: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * place / last

    _figures(canvas, scale)
    for tick in (one for one in nice_ticks(0, last, 5) if one == round(one)):
        tick_text(canvas, across(tick), _FLOOR + 12, count(round(tick)))
    step = max(1, math.ceil(len(shown) / DOTS))
    for trial in shown[::step]:
        _spot(canvas, across(trial.number), scale.up(trial.value or 0.0), _INKS[trial.state])
    best, line = values[0], [(across(shown[0].number), scale.up(values[0]))]
    for trial, value in zip(shown[1:], values[1:], strict=True):
        if better(value, best):
            line.append((across(trial.number), scale.up(best)))
            best = value
            line.append((across(trial.number), scale.up(best)))
    canvas.line([*line, (across(last), scale.up(best))], ink="ink", width=1.4)
    canvas.text((_LEFT + _RIGHT) / 2, _FLOOR + 29, "trial", anchor="center")
    first = shown[values.index(best)].number
    return canvas.svg(
        f"{metric} of {count(len(shown))} trials; the best, {number(best, 5)}, is that of trial "
        f"{first}; {count(scale.cut)} trials lie beyond the chart."
    )


def learning_chart(trials: Sequence[Trial], metric: str, unit: str = "round") -> Markup:
    """Draw the best figure so far against rounds, a line a trial, where it was looked at.

    Args:
        trials: the best first.
        metric: the figure.
        unit: what the scheduler counts in (`Tune.unit`).
    """
    lines = [(trial, _learnt(trial, unit)) for trial in trials[:LINES]]
    every = [y for _, points in lines for _, y in points]
    scale = Scale.of(every, higher=METRICS[metric].higher_is_better)
    ends = [x for _, points in lines for x, _ in points]
    low, high = math.log(min(ends)), math.log(max(*ends, min(ends) + 1))
    canvas = Canvas(_FLOOR + 36)

    def across(rounds: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (math.log(rounds) - low) / (high - low)

    _figures(canvas, scale)
    for tick in sorted({min(ends), max(ends), *_middle(min(ends), max(ends))}):
        tick_text(canvas, across(tick), _FLOOR + 12, count(tick))
    for place, (trial, points) in reversed(list(enumerate(lines))):
        ink: Ink = "ink" if place == 0 else _INKS[trial.state]
        places = [(across(x), scale.up(y)) for x, y in points]
        canvas.line(places, ink=ink, width=2 if place == 0 else 0.8)
        _spot(canvas, *places[-1], ink)
    canvas.text((_LEFT + _RIGHT) / 2, _FLOOR + 29, f"{unit}s, on a log scale", anchor="center")
    return canvas.svg(
        f"Best {metric} so far by {unit}s, of {count(len(lines))} trials; the best one went to "
        f"{number(trials[0].value, 5)} in {count(trials[0].rounds)} rounds."
    )


def parallel_chart(trials: Sequence[Trial], space: Mapping[str, Range]) -> Markup:
    """Draw parallel coordinates lying down: a line an axis, a trial from the top to the bottom.

    Args:
        trials: the best first; those of the best tenth stand out.
        space: the axes.
    """
    pitch, top = 46.0, 16.0
    canvas = Canvas(top + pitch * (len(space) - 1) + 26)
    left, right = LABEL_ROOM, WIDTH - 12
    shown, tenth = trials[:LINES], max(1, len(trials) // 10)

    def at(line: int, trial: Trial) -> tuple[float, float]:
        name = names[line]
        share = chart_place(space[name], trial.params[name])
        return left + (right - left) * share, top + pitch * line

    names = list(space)
    for place, trial in reversed(list(enumerate(shown))):
        ink: Ink = "ink" if place == 0 else "train" if place < tenth else "flow"
        width = 2.2 if place == 0 else 1.1 if place < tenth else 0.5
        canvas.line([at(line, trial) for line in range(len(names))], ink=ink, width=width)
    for line, name in enumerate(names):
        y = top + pitch * line
        canvas.line([(left, y), (right, y)], ink="soft", width=1)
        first, last = (_value(end) for end in ends_of(space[name]))
        canvas.text(left - 10, y, cut(name, LABEL_LETTERS), size=LABEL_SIZE, ink="ink",
                    anchor="right")  # fmt: skip
        canvas.text(left, y + 11, first, size=10.5)
        canvas.text(right, y + 11, last, size=10.5, anchor="right")
    best = ", ".join(f"{name} {_value(trials[0].params[name])}" for name in names)
    return canvas.svg(f"Parameters of {count(len(shown))} trials. The best one: {best}.")


def slice_chart(trials: Sequence[Trial], metric: str, name: str, one: Range) -> Markup:
    """Draw every trial's figure against one of its parameters.

    Args:
        trials: the best first.
        metric: the figure.
        name: of the parameter.
        one: its range.
    """
    values = [trial.value or 0.0 for trial in trials]
    scale = Scale.of(values, higher=METRICS[metric].higher_is_better)
    canvas = Canvas(_FLOOR + 22)

    def across(trial: Trial) -> float:
        return _LEFT + 6 + (_RIGHT - _LEFT - 12) * chart_place(one, trial.params[name])

    _figures(canvas, scale)
    for trial in reversed(trials[:DOTS]):
        _spot(canvas, across(trial), scale.up(trial.value or 0.0), _INKS[trial.state])
    best = trials[0]
    canvas.dot(across(best), scale.up(best.value or 0.0), 4.5, fill="ink")
    first, last = (_value(end) for end in ends_of(one))
    few = one.choice if isinstance(one, Choice) and len(one.choice) <= LABELLED else ends_of(one)
    for value in few:
        share = chart_place(one, value)
        tick_text(canvas, _LEFT + 6 + (_RIGHT - _LEFT - 12) * share, _FLOOR + 12, _value(value))
    log = ", on a log scale" if getattr(one, "log", False) else ""
    return canvas.svg(
        f"{metric} by {name}, {first} to {last}{log}; the best trial has "
        f"{_value(best.params[name])}."
    )


def trade_chart(
    trials: Sequence[Trial], best: Sequence[Trial], metric: str, other: str
) -> Markup | None:
    """Draw every trial's figure against another of its figures, and those that none beats.

    Args:
        trials: the best first.
        best: those that no other one beats, the best first.
        metric: the figure.
        other: the other one.
    """
    known = [trial for trial in trials if other in trial.others]
    if not known:
        return None
    scale = Scale.of([t.value or 0.0 for t in known], higher=METRICS[metric].higher_is_better)
    values = [trial.others[other] for trial in known]
    low, width = min(values), (max(values) - min(values)) or 1.0
    canvas = Canvas(_FLOOR + 36)

    def across(value: float) -> float:
        return _LEFT + 6 + (_RIGHT - _LEFT - 12) * (value - low) / width

    _figures(canvas, scale)
    for tick in nice_ticks(low, low + width, 4):
        tick_text(canvas, across(tick), _FLOOR + 12, number(tick, 4))
    for trial in reversed(known[:DOTS]):
        _spot(canvas, across(trial.others[other]), scale.up(trial.value or 0.0), "train")
    for trial in best:
        canvas.dot(across(trial.others[other]), scale.up(trial.value or 0.0), 4.5, fill="ink")
    canvas.text((_LEFT + _RIGHT) / 2, _FLOOR + 29, other, anchor="center")
    return canvas.svg(
        f"{metric} against {other} of {count(len(known))} trials; no other one beats "
        f"{count(len(best))} of them in every figure."
    )


# --------------------------------------------------------------------------------- inside


def _better(metric: str) -> Callable[[float, float], bool]:
    higher = METRICS[metric].higher_is_better
    return (lambda a, b: a > b) if higher else (lambda a, b: a < b)


def _figures(canvas: Canvas, scale: Scale) -> None:
    for tick in nice_ticks(scale.low, scale.high, 4):
        y = scale.up(tick)
        canvas.line([(_LEFT, y), (_RIGHT, y)], ink="line", width=0.7)
        canvas.text(_LEFT - 6, y, number(tick, 4), size=10.5, anchor="right")


def _spot(canvas: Canvas, x: float, y: float, ink: Ink) -> None:
    """Mark a place; a circle is five times as long on the page."""
    canvas.area([(x - 2.6, y), (x, y - 2.6), (x + 2.6, y), (x, y + 2.6)], fill=ink)


def _learnt(trial: Trial, unit: str) -> list[tuple[int, float]]:
    points = [(max(1, x), y) for x, y in trial.points]
    if unit != "round" and points:
        return points
    end = (max(1, trial.rounds), trial.value or 0.0)
    return points if points and points[-1][0] >= end[0] else [*points, end]


def _middle(low: int, high: int) -> list[int]:
    """Return one round between two that are far apart."""
    return [round(math.sqrt(low * high))] if high > 4 * low else []


def _value(value: Param) -> str:
    return number(value) if isinstance(value, float) else cut(str(value), 12)
