"""What a reader should know about a dataset before trusting it: decided from its summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from arclight.drift import Shift, measure_shift
from arclight.pages.words import count, number, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arclight.ledger import RowLedger
    from arclight.manifest import DatasetManifest
    from arclight.summary import ColumnSummary

Weight = Literal["high", "low"]

NULL_SHARE = 0.5
MANY_LEVELS = 1000
UNIQUE_SHARE = 0.5  # distinct levels among known rows: the column is nearly a key
LOST_SHARE = 0.05  # of all rows in quarantine: more is seldom a few bad rows
LEAK = 0.95  # association: a feature this close to the label is likely made from it


@dataclass(frozen=True)
class Finding:
    """One warning.

    Attributes:
        weight: `high` when a model would likely be wrong or useless because of it.
        column: the column it is about, None for the whole dataset.
        text: a short sentence without the column's name.
        is_built: the manifest's own warnings have it too.
    """

    weight: Weight
    column: str | None
    text: str
    is_built: bool = False

    @property
    def sentence(self) -> str:
        """The text with the column it is about."""
        return self.text if self.column is None else f"column '{self.column}' {self.text}"


def by_column(manifest: DatasetManifest) -> dict[str, dict[str, ColumnSummary]]:
    """Return column -> split -> summary, features in order and the label last."""
    table: dict[str, dict[str, ColumnSummary]] = {}
    for split, summaries in manifest.summaries.items():
        for summary in summaries:
            table.setdefault(summary.name, {})[split] = summary
    return table


def shifts(splits: Mapping[str, ColumnSummary]) -> dict[str, Shift]:
    """Return how far each later split moved from train; empty without train."""
    train = splits.get("train")
    if train is None:
        return {}
    found = {s: measure_shift(train, other) for s, other in splits.items() if s != "train"}
    return {split: shift for split, shift in found.items() if shift is not None}


def has_ordered_label(manifest: DatasetManifest) -> bool:
    """Whether means of the label say something: its classes' numbers have no order."""
    return manifest.task != "multiclass"


def find_warnings(manifest: DatasetManifest) -> tuple[Finding, ...]:
    """Return the warnings of all columns, heavy ones first, then in the columns' order.

    Shifts stand after the rest of their weight: data split by time often have many.
    """
    found, moved = [*_whole(manifest)], list[Finding]()
    unkept = {feature.name for feature in manifest.plan.features if feature.keeps_nothing}
    for name, splits in by_column(manifest).items():
        train = splits.get("train")
        if train is None:
            continue
        if name != manifest.label:
            found += _column(
                train, ordered=has_ordered_label(manifest), is_kept=name not in unkept
            )
        moved += _moved(name, splits)
    return tuple(sorted([*found, *moved], key=lambda finding: finding.weight != "high"))


def _whole(manifest: DatasetManifest) -> Iterator[Finding]:
    yield from _lost(manifest.ledger)
    names = dict.fromkeys(name for rows in manifest.class_rows.values() for name in rows)
    for split, classes in manifest.class_rows.items():
        for name in names:
            if not classes.get(name, 0):
                yield Finding("high", None, f"The {split} split has no row of class '{name}'.")


def _lost(ledger: RowLedger) -> Iterator[Finding]:
    read = ledger.stages[0].rows_in if ledger.stages else 0
    if ledger.quarantined > LOST_SHARE * read:
        reason, rows = next(iter(ledger.reasons.items()))
        text = (
            f"{share(ledger.quarantined, read)} of all rows are in quarantine, "
            f"{count(rows)} of them for {reason}: is that meant?"
        )
        yield Finding("high", None, text)


def _column(train: ColumnSummary, *, ordered: bool, is_kept: bool) -> Iterator[Finding]:
    if train.nulls == train.rows:
        yield Finding("high", train.name, "has no value in train.", is_built=True)
        return
    if train.is_constant:
        yield Finding("high", train.name, "has one value in all of train.", is_built=True)
    if train.nulls > NULL_SHARE * train.rows:
        yield Finding("low", train.name, f"is null in {share(train.nulls, train.rows)} of train.")
    if not is_kept:
        text = (
            f"keeps none of its {count(train.distinct)} levels: each has fewer train rows than "
            "features.min_count; lower that or drop the column."
        )
        yield Finding("high", train.name, text, is_built=True)
    elif _has_many_levels(train):
        yield Finding(
            "low", train.name, f"has {count(train.distinct)} levels; rare ones share one code."
        )
    strength = train.association if ordered else None
    # with many levels a category comes close to any label by chance
    if strength is not None and strength >= LEAK and not _has_many_levels(train):
        text = f"follows the label almost exactly ({number(strength, 3)}): is it known beforehand?"
        yield Finding("high", train.name, text)


def _has_many_levels(train: ColumnSummary) -> bool:
    if train.type == "number":
        return False
    known = train.rows - train.nulls
    return train.distinct > MANY_LEVELS or train.distinct > max(50, UNIQUE_SHARE * known)


def _moved(name: str, splits: Mapping[str, ColumnSummary]) -> Iterator[Finding]:
    moved = {split: s for split, s in shifts(splits).items() if s.grade != "none"}
    if moved:
        large = any(shift.grade == "large" for shift in moved.values())
        parts = [f"{split} PSI {number(shift.psi, 2)}" for split, shift in moved.items()]
        text = f"is not as in train: {', '.join(parts)}."
        yield Finding("high" if large else "low", name, text)
