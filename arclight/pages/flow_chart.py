"""The picture of the row ledger: how many rows each stage passed on, and where the rest went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.pages.canvas import WIDTH, Canvas
from arclight.pages.column_charts import INKS
from arclight.pages.words import count, cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

    from arclight.ledger import RowLedger
    from arclight.pages.canvas import Ink

_PITCH, _THICK = 34.0, 11.0
_SLIVER = 2.0  # points; a part that is there is seen, however small


def flow_chart(ledger: RowLedger, splits: Mapping[str, int]) -> Markup:
    """Draw a bar a stage and one for the splits, all on one scale of rows."""
    stages = ledger.stages
    canvas = Canvas(_PITCH * (len(stages) + 1) + 4)
    widest = max([*(stage.rows_in for stage in stages), sum(splits.values()), 1])
    told = []
    for place, stage in enumerate(stages):
        lost = sum(stage.quarantined.values())
        dropped = sum(stage.dropped.values())
        note = f"{count(stage.rows_in)} → {count(stage.rows_out)}"
        parts: list[tuple[int, Ink]] = [(stage.rows_out, "flow"), (lost, "bad"), (dropped, "soft")]
        _bar(canvas, place, (stage.name, note), parts, widest)
        told.append(f"{stage.name}: {note}, {count(lost)} to quarantine, {count(dropped)} dropped")
    rows = [(n, INKS[name]) for name, n in splits.items()]
    _bar(canvas, len(stages), ("splits", count(sum(splits.values()))), rows, widest)
    told.append("splits: " + ", ".join(f"{name} {count(n)}" for name, n in splits.items()))
    return canvas.svg("Rows stage by stage. " + "; ".join(told) + ".")


def _bar(
    canvas: Canvas,
    place: int,
    texts: tuple[str, str],
    parts: list[tuple[int, Ink]],
    widest: int,
) -> None:
    y = place * _PITCH
    canvas.text(0, y + 8, cut(texts[0], 24), ink="ink")
    canvas.text(WIDTH, y + 8, texts[1], size=10.5, anchor="right")
    x, room = 0.0, WIDTH - 2 * _SLIVER
    for rows, ink in parts:
        if rows:
            width = max(room * rows / widest, _SLIVER)
            canvas.bar(x, y + 17, width, _THICK, fill=ink)
            x += width
