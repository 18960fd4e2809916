"""What can go wrong for a user: one base and a few facts, each with its exit status.

A message is one sentence that names the thing, the value, the rule and the way out. Every error
survives pickling, because most of them cross a process boundary before a person reads them.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ArclightError(Exception):
    """A fact a user can act on; `exit_status` is what the command line returns for it."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type[ArclightError], tuple[str]]:
        return (type(self), (self.message,))


class SpecError(ArclightError):
    """The spec or the command is wrong; nothing was started."""

    exit_status = 2


class MissingError(ArclightError):
    """A dataset, model, version, alias, run or file that was named does not exist."""

    exit_status = 2


class DataError(ArclightError):
    """The data cannot be read as what it claims to be."""


class RefusedError(ArclightError):
    """A check, a contract, a gate or a lock said no."""

    exit_status = 3


class SchemaError(RefusedError):
    """A source's columns differ from its contract."""


class LockedError(RefusedError):
    """The test split was asked for by something that is not an evaluation."""


class ConflictError(RefusedError):
    """Somebody else published first: compare-and-swap lost."""


class IntegrityError(ArclightError):
    """Stored bytes are not the bytes that were published."""


class EngineError(ArclightError):
    """Spark, Ray or a training library failed; the traceback is in the run's log."""


class LostWorkerError(EngineError):
    """A worker's process or node is gone or silent; nothing is wrong with what it was asked."""


class DivergedError(EngineError):
    """A training came to no finite number."""


class NoMemoryError(EngineError):
    """A worker ran out of memory."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a ` Did you mean 'x'?` suffix for a mistyped name, or an empty string."""
    close = closest(name, known)
    return "" if close is None else f" Did you mean '{close}'?"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like another, whatever their case; None if none is."""
    plain = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def printable(text: object, limit: int = 200) -> str:
    """Return text safe for a terminal and a log line: control characters escaped, cut at limit."""
    raw = str(text)
    short = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
