"""Charts of a model's evidence: every figure with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.pages.canvas import WIDTH, Canvas, nice_ticks
from arclight.pages.column_charts import LABEL_LETTERS, LABEL_ROOM, LABEL_SIZE
from arclight.pages.words import count, cut, fixed, number, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from arclight.curves import ActualBin, CurvePoint, ReliabilityBin
    from arclight.pages.canvas import Ink

MAX_CLASSES = 10  # more classes than these are a table, not a picture
_PITCH = 24.0


@dataclass(frozen=True)
class Span:
    """One line of an interval chart; without `low` and `high` only the value is known."""

    name: str
    value: float
    low: float | None
    high: float | None


def interval_chart(
    title: str,
    spans: Sequence[Span],
    *,
    limits: tuple[float, float] | None = None,
    overall: float | None = None,
) -> Markup:
    """Draw values with their intervals, one a line.

    Args:
        title: what is shown, for those who do not see it.
        spans: in order, at least one.
        limits: ends of the axis; None: those of the intervals.
        overall: a value to compare with, marked through all lines.
    """
    low, high = limits or _limits(spans, overall)
    canvas = Canvas(_PITCH * len(spans) + 24)
    left, right, floor = LABEL_ROOM, WIDTH - 46, _PITCH * len(spans)

    def place(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    for tick in nice_ticks(low, high, 4):
        canvas.line([(place(tick), 2), (place(tick), floor)], ink="line", width=0.7)
        canvas.text(place(tick), floor + 11, number(tick, 3), size=10.5, anchor="center")
    if overall is not None:
        canvas.line(
            [(place(overall), 2), (place(overall), floor)], ink="mark", width=1, dashes=(3, 2)
        )
    for line, span in enumerate(spans):
        y = _PITCH * (line + 0.5)
        canvas.text(
            left - 10, y, cut(span.name, LABEL_LETTERS), size=LABEL_SIZE, ink="ink", anchor="right"
        )
        if span.low is not None and span.high is not None:
            x = place(span.low)
            canvas.bar(x, y - 4, max(place(span.high) - x, 1), 8, fill="train", alpha=0.4)
        canvas.line([(place(span.value), y - 7), (place(span.value), y + 7)], ink="train", width=2)
        canvas.text(WIDTH, y, fixed(span.value), size=10.5, anchor="right")
    return canvas.svg(f"{title}. " + "; ".join(_told(span) for span in spans) + ".")


def _limits(spans: Sequence[Span], overall: float | None) -> tuple[float, float]:
    known = [v for s in spans for v in (s.value, s.low, s.high) if v is not None]
    if overall is not None:
        known.append(overall)
    low, high = min(known), max(known)
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 0.5
    return low - pad, high + pad


def _told(span: Span) -> str:
    if span.low is None or span.high is None:
        return f"{span.name} {fixed(span.value)}"
    return f"{span.name} {fixed(span.value)}, interval {fixed(span.low)} to {fixed(span.high)}"


def confusion_chart(classes: Sequence[str], cells: Sequence[Sequence[int]]) -> Markup:
    """Draw the confusion matrix: label by line, prediction by column, shade by share of the line.

    Args:
        classes: names, at most `MAX_CLASSES`.
        cells: rows by label and prediction.
    """
    left, top = 92.0, 40.0
    wide = (WIDTH - left) / len(classes)
    tall = min(wide, 62.0)
    canvas = Canvas(top + tall * len(classes) + 2)
    canvas.text(left + (WIDTH - left) / 2, 9, "predicted", anchor="center")
    canvas.text(left - 10, 28, "label", anchor="right")
    room = max(3, int(wide / 7))
    for column, name in enumerate(classes):
        canvas.text(left + wide * (column + 0.5), 28, cut(name, room), ink="ink", anchor="center")
    for line, (name, counts) in enumerate(zip(classes, cells, strict=True)):
        y = top + tall * line
        canvas.text(left - 10, y + tall / 2, cut(name, 13), ink="ink", anchor="right")
        for column, rows in enumerate(counts):
            part = rows / (sum(counts) or 1)
            x = left + wide * column
            fill: Ink = "train" if line == column else "valid"
            canvas.bar(x + 1, y + 1, wide - 2, tall - 2, fill="line", alpha=0.45)
            canvas.bar(x + 1, y + 1, wide - 2, tall - 2, fill=fill, alpha=0.06 + 0.44 * part)
            _cell(canvas, (x + wide / 2, y + tall / 2), rows, part, is_small=len(classes) > 4)
    told = [
        f"label {name}: "
        + ", ".join(f"{count(n)} as {c}" for c, n in zip(classes, counts, strict=True))
        for name, counts in zip(classes, cells, strict=True)
    ]
    return canvas.svg("Confusion matrix. " + "; ".join(told) + ".")


def _cell(
    canvas: Canvas, middle: tuple[float, float], rows: int, part: float, *, is_small: bool
) -> None:
    x, y = middle
    if is_small:
        canvas.text(x, y, f"{100 * part:.0f} %", size=9.5, ink="ink", anchor="center")
        return
    canvas.text(x, y - 8, count(rows), size=13, ink="ink", anchor="center")
    canvas.text(x, y + 9, share(part), size=10, ink="ink", anchor="center")


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Markup:
    """Draw how often predictions came true against how sure they were, and rows per bin below."""
    left, right, top, floor, base = 34.0, WIDTH - 8, 8.0, 250.0, 300.0
    canvas = Canvas(base + 34)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x, floor - (floor - top) * y

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line([at(0, tick), at(1, tick)], ink="line", width=0.7)
        canvas.line([at(tick, 0), (at(tick, 0)[0], top)], ink="line", width=0.7)
        canvas.text(left - 6, at(0, tick)[1], f"{tick:g}", size=10.5, anchor="right")
        canvas.text(at(tick, 0)[0], base + 10, f"{tick:g}", size=10.5, anchor="center")
    canvas.line([at(0, 0), at(1, 1)], ink="mark", dashes=(4, 3))
    known = [b for b in bins if b.mean_score is not None and b.observed is not None]
    points = [at(b.mean_score or 0.0, b.observed or 0.0) for b in known]
    canvas.line(points, ink="train", width=1.8)
    for x, y in points:
        canvas.dot(x, y, 4, fill="train")
    most = max((b.rows for b in bins), default=0) or 1
    for found in bins:
        x, height = at(found.start, 0)[0], 38 * found.rows / most
        width = (right - left) * (found.end - found.start)
        canvas.bar(x + 1, base - height, width - 2, height, fill="train", alpha=0.45)
    canvas.line([(left, base), (right, base)], ink="soft", width=0.8)
    canvas.text((left + right) / 2, base + 26, "predicted probability", anchor="center")
    told = [
        f"predicted {fixed(b.mean_score, 2)}, came true {fixed(b.observed, 2)} "
        f"({count(b.rows)} rows)"
        for b in known
    ]
    return canvas.svg("Reliability curve. " + "; ".join(told) + ".")


def roc_chart(points: Sequence[CurvePoint], held: tuple[float, float] | None) -> Markup:
    """Draw recall against the false positive rate, for every threshold.

    Args:
        points: of the curve, highest threshold first.
        held: false positive rate and recall at the model's own threshold.
    """
    line = [(p.false_positive_rate, p.recall) for p in points]
    told = _ends("recall", [(p.recall, p.false_positive_rate) for p in points], "false positives")
    canvas = _unit_chart([(0.0, 0.0), *line], [(0, 0), (1, 1)], held, "false positive rate")
    return canvas.svg(f"ROC curve. {told}")


def precision_chart(
    points: Sequence[CurvePoint], held: tuple[float, float] | None, base: float
) -> Markup:
    """Draw precision against recall, for every threshold.

    Args:
        points: of the curve, highest threshold first.
        held: recall and precision at the model's own threshold.
        base: the share of positive rows, which is the precision of calling every row so.
    """
    line = [(p.recall, p.precision) for p in points]
    told = _ends("precision", [(p.precision, p.recall) for p in points], "recall")
    canvas = _unit_chart(line, [(0, base), (1, base)], held, "recall")
    return canvas.svg(f"Precision-recall curve. {told}")


def _ends(name: str, pairs: Sequence[tuple[float, float]], other: str) -> str:
    places = sorted({0, len(pairs) // 4, len(pairs) // 2, 3 * len(pairs) // 4, len(pairs) - 1})
    return "; ".join(f"{name} {fixed(pairs[k][0], 2)} at {other} {fixed(pairs[k][1], 2)}"
                     for k in places) + "."  # fmt: skip


def _unit_chart(
    line: Sequence[tuple[float, float]],
    guide: Sequence[tuple[float, float]],
    held: tuple[float, float] | None,
    below: str,
) -> Canvas:
    """Draw a curve of shares, what chance would give, and where the model's threshold stands."""
    left, right, top, floor = 34.0, WIDTH - 8, 8.0, 250.0
    canvas = Canvas(floor + 34)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x, floor - (floor - top) * y

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        canvas.line([at(0, tick), at(1, tick)], ink="line", width=0.7)
        canvas.line([at(tick, 0), at(tick, 1)], ink="line", width=0.7)
        canvas.text(left - 6, at(0, tick)[1], f"{tick:g}", size=10.5, anchor="right")
        canvas.text(at(tick, 0)[0], floor + 11, f"{tick:g}", size=10.5, anchor="center")
    canvas.line([at(x, y) for x, y in guide], ink="mark", dashes=(4, 3))
    canvas.line([at(x, y) for x, y in line], ink="train", width=1.8)
    if held is not None:
        canvas.dot(*at(*held), 4.5, fill="train")
    canvas.text((left + right) / 2, floor + 27, below, anchor="center")
    return canvas


def actual_chart(bins: Sequence[ActualBin]) -> Markup:
    """Draw labels against predictions: their median, and where most of them lie."""
    known = [v for b in bins for v in (b.mean_score, b.low, b.high)]
    pad = 0.04 * (max(known) - min(known)) or abs(max(known)) * 0.1 or 0.5
    low, high = min(known) - pad, max(known) + pad
    left, right, top, floor = 58.0, WIDTH - 8, 8.0, 250.0
    canvas = Canvas(floor + 34)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - low) / (high - low), (y - low) / (high - low)
        return left + (right - left) * across, floor - (floor - top) * up

    for tick in nice_ticks(low, high, 4):
        canvas.line([at(low, tick), at(high, tick)], ink="line", width=0.7)
        canvas.line([at(tick, low), at(tick, high)], ink="line", width=0.7)
        canvas.text(left - 6, at(low, tick)[1], number(tick, 3), size=10.5, anchor="right")
        canvas.text(at(tick, low)[0], floor + 11, number(tick, 3), size=10.5, anchor="center")
    band = [at(b.mean_score, b.low) for b in bins] + [at(b.mean_score, b.high) for b in bins[::-1]]
    canvas.area(band, fill="train", alpha=0.25)
    canvas.line([at(low, low), at(high, high)], ink="mark", dashes=(4, 3))
    canvas.line([at(b.mean_score, b.median) for b in bins], ink="train", width=1.8)
    for b in bins:
        canvas.dot(*at(b.mean_score, b.median), 3, fill="train")
    canvas.text((left + right) / 2, floor + 27, "prediction", anchor="center")
    told = [
        f"predicted {number(b.mean_score)}, label {number(b.median)} "
        f"({number(b.low)} to {number(b.high)}, {count(b.rows)} rows)"
        for b in bins
    ]
    return canvas.svg("Labels by prediction. " + "; ".join(told) + ".")
