"""The profile of a dataset: what is in it, what was left out, and what to know before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.drift import LARGE, MODERATE
from arclight.manifest import SPLITS
from arclight.pages.column_card import ColumnCard, make_card
from arclight.pages.column_charts import Bar, ranking_chart
from arclight.pages.findings import (
    Finding,
    by_column,
    find_warnings,
    has_ordered_label,
    shifts,
)
from arclight.pages.flow_chart import flow_chart
from arclight.pages.frame import render
from arclight.pages.words import count, moment, share
from arclight.sketch import POINTS
from arclight.summary import RANK_ERROR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from arclight.drift import Shift
    from arclight.manifest import DatasetManifest
    from arclight.summary import ColumnSummary

RANKED = 15
OPEN_COLUMNS = 60  # more than these and the cards start shut
SMALL_COLUMNS = 120  # more than these and their charts are small
SHOWN_CLASSES = 6
SHIFT_TOP = 0.4  # one column that moved wholly must not flatten the others
_SECTIONS = (
    ("warnings", "Warnings"),
    ("rows", "Rows"),
    ("signal", "Signal and shift"),
    ("columns", "Columns"),
    ("origin", "Origin"),
)
_FLAGS = {"high": "check", "low": "note"}


@dataclass(frozen=True)
class _Page:
    """What the template needs beside the manifest."""

    total: int
    features: int
    kinds: str
    quarantined: int
    quarantine_share: str
    size_bytes: int
    files: int
    split_rows: Mapping[str, int]
    split_lines: list[tuple[str, list[str]]]
    class_heads: tuple[str, ...]
    class_chart: Markup | None
    warnings: tuple[Finding, ...]
    build_warnings: tuple[str, ...]
    flow: Markup
    proof: list[tuple[str, str]]
    reasons: list[tuple[str, int, str]]
    association: Markup | None
    shift: Markup | None
    later: tuple[str, ...]
    shown: int
    columns: tuple[ColumnCard, ...]
    anchors: Mapping[str, str]
    origin: list[tuple[str, str]]
    is_open: bool


def dataset_page(manifest: DatasetManifest) -> str:
    """Return the profile of a dataset as one file of HTML.

    It shows the full data, from the summaries every split carries, and opens no data file.
    """
    return render(
        "dataset.html.j2",
        title=manifest.ref,
        sections=_SECTIONS,
        manifest=manifest,
        page=_page(manifest),
        exact_values=POINTS,
        rank_error=RANK_ERROR,
    )


def _page(manifest: DatasetManifest) -> _Page:
    columns = by_column(manifest)
    warnings = find_warnings(manifest)
    moved = {name: shifts(splits) for name, splits in columns.items()}
    anchors = {name: f"c{place}" for place, name in enumerate(columns)}
    split_rows = {str(split): manifest.rows[split] for split in SPLITS if split in manifest.rows}
    read = manifest.ledger.stages[0].rows_in if manifest.ledger.stages else 0
    quarantined = manifest.ledger.quarantined
    numbers = sum(feature.type == "number" for feature in manifest.plan.features)
    features = len(manifest.plan.features)
    heads, lines = _split_lines(manifest, split_rows)
    return _Page(
        total=sum(split_rows.values()),
        features=features,
        kinds=f"{count(numbers)} numbers, {count(features - numbers)} categories",
        quarantined=quarantined,
        quarantine_share=share(quarantined, read),
        size_bytes=sum(file.size_bytes for file in manifest.files),
        files=len(manifest.files),
        split_rows=split_rows,
        split_lines=lines,
        class_heads=heads,
        class_chart=_class_chart(manifest),
        warnings=warnings,
        build_warnings=_build_warnings(manifest, warnings),
        flow=flow_chart(manifest.ledger, split_rows),
        proof=_proof(manifest),
        reasons=_reasons(manifest, read),
        association=_association_chart(manifest, columns),
        shift=_shift_chart(moved),
        later=tuple(split for split in split_rows if split != "train"),
        shown=min(RANKED, features),
        columns=_cards(manifest, columns, moved, warnings, anchors),
        anchors=anchors,
        origin=_origin(manifest),
        is_open=len(columns) <= OPEN_COLUMNS,
    )


def _cards(
    manifest: DatasetManifest,
    columns: Mapping[str, Mapping[str, ColumnSummary]],
    moved: Mapping[str, Mapping[str, Shift]],
    warnings: Sequence[Finding],
    anchors: Mapping[str, str],
) -> tuple[ColumnCard, ...]:
    flagged = {found.column: _FLAGS[found.weight] for found in reversed(warnings)}
    return tuple(
        make_card(
            manifest,
            splits,
            moved[name],
            anchor=anchors[name],
            flags=(flagged[name],) if name in flagged else (),
            small=len(columns) > SMALL_COLUMNS,
        )
        for name, splits in columns.items()
    )


def _build_warnings(manifest: DatasetManifest, warnings: Sequence[Finding]) -> tuple[str, ...]:
    """Return what the build warned of, but for features the page has a warning of its own for."""
    named = tuple(f"feature '{found.column}' " for found in warnings)
    return tuple(text for text in manifest.warnings if not text.startswith(named))


def _split_lines(
    manifest: DatasetManifest, split_rows: Mapping[str, int]
) -> tuple[tuple[str, ...], list[tuple[str, list[str]]]]:
    """Return the heads after rows and share, and a line a split: few classes have columns here."""
    total = sum(split_rows.values())
    names = list(dict.fromkeys(n for found in manifest.class_rows.values() for n in found))
    shown = names if len(names) <= SHOWN_CLASSES else []
    lines = []
    for split, rows in split_rows.items():
        classes = manifest.class_rows.get(split, {})
        cells = [share(classes.get(name, 0), rows) for name in shown]
        lines.append((split, [count(rows), share(rows, total), *cells]))
    return tuple(f"{manifest.label} = {name}" for name in shown), lines


def _class_chart(manifest: DatasetManifest) -> Markup | None:
    names = list(dict.fromkeys(n for found in manifest.class_rows.values() for n in found))
    if not names:
        return None
    bars = [
        Bar(
            name,
            {
                split: found.get(name, 0) / (sum(found.values()) or 1)
                for split, found in manifest.class_rows.items()
            },
        )
        for name in names[:RANKED]
    ]
    return ranking_chart(f"Class balance of {manifest.label}", bars, as_share=True, top=1.0)


def _association_chart(
    manifest: DatasetManifest, columns: Mapping[str, Mapping[str, ColumnSummary]]
) -> Markup | None:
    if not has_ordered_label(manifest):
        return None
    bars = [
        Bar(name, {split: summary.association for split, summary in splits.items()})
        for name, splits in columns.items()
        if name != manifest.label
    ]
    ranked = _strongest(bars)
    return ranking_chart("Association with the label", ranked) if ranked else None


def _shift_chart(moved: Mapping[str, Mapping[str, Shift]]) -> Markup | None:
    bars = [
        Bar(name, {split: shift.psi for split, shift in found.items()})
        for name, found in moved.items()
    ]
    ranked = _strongest(bars)
    if not ranked:
        return None
    return ranking_chart(
        "Population stability index from train", ranked, top=SHIFT_TOP, marks=(MODERATE, LARGE)
    )


def _strength(bar: Bar) -> float:
    """Return what a line is ranked by: its first series, or the largest of the later splits."""
    if "train" in bar.values:
        return bar.values["train"] or 0.0
    return max((value for value in bar.values.values() if value is not None), default=0.0)


def _strongest(bars: Sequence[Bar]) -> list[Bar]:
    known = [bar for bar in bars if any(value is not None for value in bar.values.values())]
    return sorted(known, key=lambda bar: -_strength(bar))[:RANKED]


def _reasons(manifest: DatasetManifest, read: int) -> list[tuple[str, int, str]]:
    reasons = manifest.ledger.reasons
    return [(reason, rows, share(rows, read)) for reason, rows in reasons.items()]


def _proof(manifest: DatasetManifest) -> list[tuple[str, str]]:
    proof = manifest.proof
    lines = [
        ("distinct keys", f"{count(proof.keys)}, none in two splits"),
        ("key", ", ".join(manifest.key_columns)),
        ("rows of repeated keys", f"{count(proof.repeated_keys)}, in quarantine"),
    ]
    lines += [
        (f"{split} time", f"{moment(first)} to {moment(last)}")
        for split, (first, last) in _bounds(manifest)
    ]
    if proof.groups:
        groups = ", ".join(f"{split} {count(n)}" for split, n in proof.groups.items())
        lines += [("groups", groups), ("groups in two splits", count(proof.group_overlap))]
    return lines


def _bounds(manifest: DatasetManifest) -> list[tuple[str, tuple[str, str]]]:
    bounds = manifest.proof.bounds
    return [(split, bounds[split]) for split in SPLITS if split in bounds]


def _origin(manifest: DatasetManifest) -> list[tuple[str, str]]:
    lineage = manifest.lineage
    return [
        ("key", manifest.key),
        ("content", manifest.content_digest),
        ("plan", manifest.plan.digest),
        ("spec", lineage.spec_digest),
        ("code", lineage.code_digest),
        *((f"input {name}", digest) for name, digest in lineage.inputs.items()),
        ("python", lineage.python),
        *lineage.libraries.items(),
    ]
