"""The moves of an alias, each a record, and where a rollback of one goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from arclight.contract import Contract

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")


class AliasRecord(Contract):
    """One move of an alias; the highest number holds."""

    kind: ClassVar[str] = "alias"

    model: str
    alias: str
    number: int
    version_number: int
    before: int | None
    """The version a rollback goes to."""
    reason: str
    at: str


def version_before(held: AliasRecord, moves: Sequence[AliasRecord]) -> int | None:
    """Return the version that a rollback of a move goes to, None if there is none.

    A move may name its own version as the one before: somebody moved an alias to where it stood.

    Args:
        held: the move.
        moves: of its alias, newest first.
    """
    number, before = held.number, held.before
    while before == held.version_number:
        same = (m for m in moves if m.number < number and m.version_number == before)
        earlier = next(same, None)
        number, before = (earlier.number, earlier.before) if earlier else (0, None)
    return before
