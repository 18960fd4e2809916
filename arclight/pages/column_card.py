"""One column of a dataset as a page shows it: its chart, its figures a split, its levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.pages.column_charts import histogram_chart, level_chart
from arclight.pages.findings import has_ordered_label
from arclight.pages.histogram import BINS, make_histogram
from arclight.pages.words import UNKNOWN, count, fixed, number, share

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from markupsafe import Markup

    from arclight.drift import Shift
    from arclight.manifest import DatasetManifest
    from arclight.summary import ColumnSummary, Level

Lines = list[tuple[str, list[str]]]

SHOWN_LEVELS = 12
_SMALL_BINS = 24
_NOT_TOLD = "Whether it shifted cannot be told: every level has less than 1 % of the train rows."
_QUANTILES = (("1 %", 0.01), ("25 %", 0.25), ("median", 0.5), ("75 %", 0.75), ("99 %", 0.99))


@dataclass(frozen=True)
class ColumnCard:
    """What the template shows of a column; every text is already written.

    Attributes:
        anchor: where links to the column lead.
        name: as users wrote it.
        type: `number` or `category`.
        splits: the splits it is known in.
        flags: short warnings.
        facts: a line to read while the card is shut.
        chart: the distribution.
        caption: what the chart leaves out or cannot tell, empty for nothing.
        lines: figure -> one cell a split.
        level_head: heads of the level table after the level itself.
        levels: level -> cells.
        index: cells of the index: null, distinct, association, shift.
    """

    anchor: str
    name: str
    type: str
    splits: tuple[str, ...]
    flags: tuple[str, ...]
    facts: str
    chart: Markup
    caption: str
    lines: Lines
    level_head: tuple[str, ...]
    levels: Lines
    index: tuple[str, ...]


def make_card(
    manifest: DatasetManifest,
    splits: Mapping[str, ColumnSummary],
    moved: Mapping[str, Shift],
    *,
    anchor: str,
    flags: tuple[str, ...],
    small: bool,
) -> ColumnCard:
    """Write a column's card.

    Args:
        manifest: the dataset; says what its label is.
        splits: the column's summary of each split, at least one.
        moved: how far each later split moved from train.
        anchor: where links to the column lead.
        flags: short warnings to show beside its name.
        small: draw the chart smaller, for datasets of many columns.
    """
    first = next(iter(splits.values()))
    is_label = first.name == manifest.label
    with_label = has_ordered_label(manifest) and not is_label
    is_number = first.type == "number"
    chart, caption = _drawn(first, splits, moved, small=small)
    index = _index(first, moved, with_label=with_label)
    return ColumnCard(
        anchor=anchor,
        name=first.name,
        type=first.type,
        splits=tuple(splits),
        flags=("label", *flags) if is_label else flags,
        facts=_facts(first, index, with_label=with_label),
        chart=chart,
        caption=caption,
        lines=_lines(splits, moved, with_label=with_label),
        level_head=() if is_number else _level_head(splits, manifest, with_label=with_label),
        levels=[] if is_number else _levels(splits, with_label=with_label),
        index=index,
    )


def _drawn(
    first: ColumnSummary,
    splits: Mapping[str, ColumnSummary],
    moved: Mapping[str, Shift],
    *,
    small: bool,
) -> tuple[Markup, str]:
    """Return the chart and what cannot be read from it."""
    if first.type == "category":
        is_blind = len(splits) > 1 and not moved and bool(first.levels)
        caption = _NOT_TOLD if is_blind else ""
        return level_chart(first.name, splits, limit=4 if small else 8), caption
    found = make_histogram(splits, _SMALL_BINS if small else BINS)
    is_cut = found is not None and found.is_cut
    caption = "Up to 0.5 % of the rows lie beyond each end of the axis." if is_cut else ""
    return histogram_chart(first.name, splits, found, small=small), caption


def _facts(first: ColumnSummary, index: Sequence[str], *, with_label: bool) -> str:
    nulls, distinct, association, shift = index
    parts = [f"{nulls} null"]
    if first.type == "category":
        parts.append(f"{distinct} levels")
    if with_label and association != UNKNOWN:
        parts.append(f"association {association}")
    if shift != UNKNOWN:
        parts.append(f"shift {shift}")
    return " · ".join(parts)


def _index(
    first: ColumnSummary, moved: Mapping[str, Shift], *, with_label: bool
) -> tuple[str, ...]:
    largest = max((shift.psi for shift in moved.values()), default=None)
    return (
        share(first.nulls, first.rows),
        count(first.distinct) if first.type == "category" else UNKNOWN,
        fixed(first.association) if with_label else UNKNOWN,
        fixed(largest),
    )


def _lines(
    splits: Mapping[str, ColumnSummary], moved: Mapping[str, Shift], *, with_label: bool
) -> Lines:
    found = list(splits.values())

    def line(name: str, write: Callable[[ColumnSummary], str]) -> tuple[str, list[str]]:
        return name, [write(summary) for summary in found]

    lines = [
        line("rows", lambda s: count(s.rows)),
        line("null", lambda s: count(s.nulls)),
        line("null share", lambda s: share(s.nulls, s.rows)),
    ]
    if any(s.nans for s in found):
        lines.append(line("of them NaN", lambda s: count(s.nans)))
    if found[0].type == "number":
        lines += _number_lines(found)
    else:
        lines.append(line("distinct", _distinct))
        shown = _shown(found[0])
        lines.append(line("in none of those below", lambda s: share(_unshown(s, shown), s.rows)))
    if with_label:
        name = "r with label" if found[0].type == "number" else "η with label"
        lines.append(line(name, _association))
    if len(splits) > 1:
        cells = [fixed(moved[split].psi) if split in moved else UNKNOWN for split in splits]
        lines.append(("PSI from train", cells))
    return lines


def _number_lines(found: list[ColumnSummary]) -> Lines:
    quantiles = [s.sketch.quantiles([at for _, at in _QUANTILES]) for s in found]
    return [
        ("zero", [share(s.zeros, s.rows) for s in found]),
        ("min", [number(s.low) for s in found]),
        *(
            (name, [number(values[place]) for values in quantiles])
            for place, (name, _) in enumerate(_QUANTILES)
        ),
        ("max", [number(s.high) for s in found]),
        ("mean", [number(s.moments.mean if s.moments.count else None) for s in found]),
        ("± std", [number(s.moments.std if s.moments.count else None) for s in found]),
    ]


def _shown(first: ColumnSummary) -> list[str]:
    """Return the levels that a card lists: the most frequent ones of the first split."""
    return [level.value for level in first.levels[:SHOWN_LEVELS]]


def _unshown(summary: ColumnSummary, shown: Collection[str]) -> int:
    """Return the rows of a split that have a value, but none that its card says a share of."""
    told = sum(level.count for level in summary.levels if level.value in shown)
    return summary.rows - summary.nulls - told


def _distinct(summary: ColumnSummary) -> str:
    return count(summary.distinct) if summary.distinct < 1024 else f"≈ {count(summary.distinct)}"


def _association(summary: ColumnSummary) -> str:
    if summary.type == "number":
        return fixed(summary.moments.correlation)
    return fixed(summary.association)


def _level_head(
    splits: Mapping[str, ColumnSummary], manifest: DatasetManifest, *, with_label: bool
) -> tuple[str, ...]:
    if not with_label:
        return tuple(splits)
    what = "rate" if manifest.task == "binary" else "mean"
    return (*splits, *(f"label {what}, {split}" for split in splits))


def _levels(splits: Mapping[str, ColumnSummary], *, with_label: bool) -> Lines:
    first = next(iter(splits.values()))
    found = {s: {lv.value: lv for lv in summary.levels} for s, summary in splits.items()}
    lines = []
    for value in _shown(first):
        mine = {split: found[split].get(value) for split in splits}
        cells = [_level_share(lv, splits[s]) for s, lv in mine.items()]
        if with_label:
            cells += [_label_mean(lv) for lv in mine.values()]
        lines.append((value, cells))
    return lines


def _level_share(level: Level | None, summary: ColumnSummary) -> str:
    """Return a level's share; unknown when it may be among those a manifest does not keep."""
    if level is None:
        return UNKNOWN if summary.other_rows else share(0, summary.rows)
    return share(level.count, summary.rows)


def _label_mean(level: Level | None) -> str:
    return fixed(level.label_sum / level.count) if level and level.count else UNKNOWN
