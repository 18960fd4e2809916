"""Charts of a dataset's columns: one look for every split, told apart by more than colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.pages.canvas import WIDTH, Canvas, Ink, nice_ticks
from arclight.pages.words import cut, fixed, number, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from arclight.pages.histogram import Floats, Histogram
    from arclight.summary import ColumnSummary

# the first split is filled, the others are lines of their own pattern
DASHES: dict[str, tuple[float, ...]] = {"train": (), "valid": (), "test": (4, 2)}
INKS: dict[str, Ink] = {"train": "train", "valid": "valid", "test": "test"}
LABEL_SIZE = 11.5
LABEL_ROOM = WIDTH * 0.39
LABEL_LETTERS = 19  # of the widest letters that names are made of, as many as there is room for


@dataclass(frozen=True)
class Bar:
    """One line of a ranking: a name and a value for each series, None where there is none."""

    name: str
    values: Mapping[str, float | None]


def histogram_chart(
    name: str, splits: Mapping[str, ColumnSummary], found: Histogram | None, *, small: bool
) -> Markup:
    """Draw a number's distribution, its splits over each other.

    Args:
        name: of the column.
        splits: the column's summaries, for those who do not see the chart.
        found: what to draw; None when no split has a value.
        small: draw it less high.
    """
    if found is None:
        return _empty(f"{name} has no value in any split")
    height = 84.0 if small else 190.0
    canvas, floor = Canvas(height), height - 20
    low, high = float(found.edges[0]), float(found.edges[-1])
    for tick in nice_ticks(low, high, 3 if small else 6):
        x = _across(tick, low, high)
        canvas.line([(x, 6), (x, floor)], ink="line", width=0.7)
        tick_text(canvas, x, height - 7, number(tick))
    for split, shares in found.shares.items():
        _draw_split(canvas, found, split, shares, floor)
    canvas.line([(0, floor), (WIDTH, floor)], ink="soft", width=0.8)
    return canvas.svg(_histogram_alt(name, splits, found))


def _draw_split(
    canvas: Canvas, found: Histogram, split: str, shares: Floats, floor: float
) -> None:
    low, high = float(found.edges[0]), float(found.edges[-1])
    scale = (floor - 10) / found.peak if found.peak else 0
    points = [(_across(low, low, high), floor)]
    for start, end, height in zip(found.edges, found.edges[1:], shares, strict=False):
        top = floor - float(height) * scale
        points += [(_across(float(start), low, high), top), (_across(float(end), low, high), top)]
    points.append((_across(high, low, high), floor))
    if split == "train":
        canvas.area(points, fill="train", alpha=0.28)
    canvas.line(points, ink=INKS[split], width=1.3, dashes=DASHES[split])


def _across(value: float, low: float, high: float) -> float:
    return 2 + (WIDTH - 4) * (value - low) / (high - low)


def tick_text(canvas: Canvas, x: float, y: float, text: str) -> None:
    """Write a tick's text, kept on the sheet at its ends."""
    edge = 3.2 * len(text)
    anchor = "left" if x < edge else "right" if x > canvas.width - edge else "center"
    canvas.text(x, y, text, size=LABEL_SIZE, anchor=anchor)  # type: ignore[arg-type]


def _histogram_alt(name: str, splits: Mapping[str, ColumnSummary], found: Histogram) -> str:
    parts = []
    for split, summary in splits.items():
        low, middle, high = summary.sketch.quantiles((0.05, 0.5, 0.95))
        parts.append(f"{split}: median {number(middle)}, 90 % in {number(low)} to {number(high)}")
    tails = "; the outermost rows lie beyond the axis" if found.is_cut else ""
    return f"Distribution of {name}. " + "; ".join(parts) + tails + "."


def level_chart(name: str, splits: Mapping[str, ColumnSummary], *, limit: int = 8) -> Markup:
    """Draw the shares of a category's most frequent levels, one bar a split."""
    first = next(iter(splits.values()))
    levels = [level.value for level in first.levels[:limit]]
    if not levels:
        return _empty(f"{name} has no value in {next(iter(splits))}")
    counts = {s: {lv.value: lv.count for lv in found.levels} for s, found in splits.items()}
    bars = [
        Bar(
            level,
            {s: counts[s].get(level, 0) / f.rows if f.rows else None for s, f in splits.items()},
        )
        for level in levels
    ]
    return ranking_chart(f"Share of the most frequent levels of {name}", bars, as_share=True)


def ranking_chart(
    title: str,
    bars: Sequence[Bar],
    *,
    as_share: bool = False,
    top: float | None = None,
    marks: Sequence[float] = (),
) -> Markup:
    """Draw horizontal bars, one group a line, and the value of train or else the largest one.

    Args:
        title: what is ranked, for those who do not see it.
        bars: in order; each has the same series, and a series is a split.
        as_share: write values in percent.
        top: value at the right end, where longer bars are cut; None: the largest one.
        marks: values to mark with a line.
    """
    series = list(bars[0].values)
    thick = 4.4 if len(series) > 1 else 9.0
    pitch = thick * len(series) + 8
    canvas = Canvas(pitch * len(bars) + 4)
    left, right = LABEL_ROOM, WIDTH - 50
    known = [v for bar in bars for v in bar.values.values() if v is not None]
    scale = (right - left) / (top or max(known, default=0) or 1)
    for mark in marks:
        x = left + mark * scale
        canvas.line([(x, 0), (x, canvas.height)], ink="mark", width=1, dashes=(2, 2))
    for place, bar in enumerate(bars):
        y = 4 + place * pitch
        middle = y + thick * len(series) / 2
        canvas.text(
            left - 8,
            middle,
            cut(bar.name, LABEL_LETTERS),
            size=LABEL_SIZE,
            ink="ink",
            anchor="right",
        )
        for row, split in enumerate(series):
            width = min((bar.values[split] or 0) * scale, right - left)
            canvas.bar(left, y + row * thick, width, thick - 0.8, fill=INKS[split])
        longest = max((v for v in bar.values.values() if v is not None), default=0.0)
        told = bar.values.get("train", longest)
        x = min(left + longest * scale, right) + 5
        canvas.text(x, middle, share(told) if as_share else fixed(told), size=10.5)
    return canvas.svg(_ranking_alt(title, bars, as_share=as_share))


def _ranking_alt(title: str, bars: Sequence[Bar], *, as_share: bool) -> str:
    write = share if as_share else fixed
    lines = []
    for bar in bars[:10]:
        values = ", ".join(f"{split} {write(value)}" for split, value in bar.values.items())
        lines.append(f"{bar.name}: {values}")
    return f"{title}. " + "; ".join(lines) + "."


def _empty(text: str) -> Markup:
    canvas = Canvas(40)
    canvas.text(WIDTH / 2, 20, "no values", anchor="center")
    return canvas.svg(text)
