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
    is_rollback: bool = False
    """Whether it leaves a version for the one before; older records do not say."""


def versions_behind(moves: Sequence[AliasRecord]) -> tuple[int, ...]:
    """Return where an alias stands, and behind it where rollbacks go one after another.

    A rollback takes the version away that it leaves; so what follows it goes back further. A move
    to where the alias stood, as older releases wrote, counts as none.

    Args:
        moves: of the alias, oldest first; damaged ones left out.
    """
    stack: list[int] = []
    for move in moves:
        top = stack[-1] if stack else None
        version = move.version_number
        if version == top:
            continue
        if version in stack and (move.is_rollback or move.before != top):
            while stack[-1] != version:
                stack.pop()
            continue
        if move.before not in (None, top):  # whose own record is damaged
            stack.append(move.before)
        stack.append(version)
    return tuple(reversed(stack))
