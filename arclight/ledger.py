"""The row ledger: every row of every stage is accounted for, or nothing is published."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from arclight.contract import Contract
from arclight.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMED_REASONS = 3


class Stage(Contract):
    """One stage's account: rows_in = rows_out + quarantined + dropped, reason by reason."""

    name: str
    rows_in: int
    rows_out: int
    quarantined: dict[str, int] = {}
    dropped: dict[str, int] = {}

    @property
    def missing(self) -> int:
        """Rows that went in and are in no account (negative: rows that came from nowhere)."""
        return (
            self.rows_in
            - self.rows_out
            - sum(self.quarantined.values())
            - sum(self.dropped.values())
        )


class RowLedger(Contract):
    """The stages in order; each one's rows_out is the next one's rows_in.

    In `quarantined` and `dropped` a row counts once, under the first reason that took it out.
    """

    sources: dict[str, int] = {}
    stages: tuple[Stage, ...] = ()

    def prove(self) -> None:
        """Check the whole ledger.

        Raises:
            IntegrityError: a stage lost or made rows, or two stages do not meet.
        """
        for stage in self.stages:
            if stage.missing:
                raise IntegrityError(
                    f"stage '{stage.name}' must account for every row, but {stage.missing:,} of "
                    f"{stage.rows_in:,} are in no account; nothing was published; run again and "
                    "report it if it stays."
                )
        for before, after in itertools.pairwise(self.stages):
            if before.rows_out != after.rows_in:
                raise IntegrityError(
                    f"stage '{after.name}' must take the {before.rows_out:,} rows that stage "
                    f"'{before.name}' gave, but took {after.rows_in:,}; nothing was published; "
                    "run again and report it if it stays."
                )

    @property
    def quarantined(self) -> int:
        """Rows in quarantine, all stages."""
        return sum(self.reasons.values())

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> rows in quarantine for it, all stages, the most frequent first."""
        found: dict[str, int] = {}
        for stage in self.stages:
            found = _add(found, stage.quarantined)
        return dict(_ranked(found))


def name_reasons(reasons: Mapping[str, int]) -> str:
    """Return the most frequent reasons with their rows, and how many more there are."""
    named = [f"{reason} {rows:,}" for reason, rows in _ranked(reasons)[:NAMED_REASONS]]
    more = len(reasons) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def add_stages(left: tuple[Stage, ...], right: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return the sum of two accounts of the same stages, as two tasks keep them."""
    return tuple(
        Stage(
            name=a.name,
            rows_in=a.rows_in + b.rows_in,
            rows_out=a.rows_out + b.rows_out,
            quarantined=_add(a.quarantined, b.quarantined),
            dropped=_add(a.dropped, b.dropped),
        )
        for a, b in zip(left, right, strict=True)
    )


def _ranked(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def _add(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}
