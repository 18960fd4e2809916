from __future__ import annotations

from arclight.pages.column_card import make_card
from arclight.pages.findings import by_column, shifts
from tests.arclight.pages.made_up import flights_manifest


def card(name: str):
    manifest = flights_manifest(wide=0)
    splits = by_column(manifest)[name]
    return make_card(manifest, splits, shifts(splits), anchor="a", flags=(), small=False)


def percent(cell: str) -> float:
    return float(cell.removesuffix(" %"))


def test_the_listed_shares_and_the_rest_are_all_known_rows():
    found = card("tailnum")  # 9,000 levels, of which a manifest keeps 200 and the card lists 12
    rest = dict(found.lines)["in none of those below"]
    listed = sum(percent(cells[0]) for _, cells in found.levels)
    assert len(found.levels) == 12
    assert percent(rest[0]) + listed == 100.0 or abs(percent(rest[0]) + listed - 100) < 0.2
    assert percent(rest[0]) > 99


def test_a_share_is_unknown_where_the_manifest_does_not_keep_the_level():
    cells = [cell for _, found in card("tailnum").levels for cell in found[1:3]]
    assert "0 %" not in cells
    assert "\N{EN DASH}" in cells


def test_a_shift_that_cannot_be_told_is_not_shown_as_none():
    found = card("tailnum")
    assert dict(found.lines)["PSI from train"] == ["\N{EN DASH}"] * 3
    assert "cannot be told" in found.caption
    assert "cannot be told" not in card("carrier").caption
    assert card("carrier").lines[-1][1][1] != "\N{EN DASH}"
