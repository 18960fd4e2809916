"""What is listed of a store: what can be read, then what cannot and why."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arclight.errors import ArclightError, IntegrityError
from jobs.say import answer, say, say_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass
class Listing:
    """What is listed, and what would be if its record could be read.

    Attributes:
        what: the things, for a title.
        key: the first column, which names a thing.
        damaged: a thing -> what is wrong with its record.
        not_read: a thing -> why it cannot be read just now.
    """

    what: str
    key: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    not_read: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def reading(self, thing: str) -> Iterator[None]:
        """Note a thing whose record turns out to be damaged or out of reach, and go on."""
        try:
            yield
        except IntegrityError as error:
            self.damaged[thing] = error.message
        except ArclightError as error:
            self.not_read[thing] = error.message

    def end(self, *, as_json: bool) -> None:
        """Print the listing, then end as a single record that is damaged would.

        Raises:
            IntegrityError: a record is damaged; the others are listed.
            ArclightError: one cannot be read just now.
        """
        body = {self.what: self.rows, "damaged": self._reasons(self.damaged)}
        if self.not_read:
            body["not_read"] = self._reasons(self.not_read)
        answer(body, as_json=as_json)
        if not as_json:
            self._say()
        for text in self.not_read.values() if self.damaged else ():
            say(text, style="red")
        tell_damaged(self.damaged)
        if self.not_read:
            raise ArclightError(" ".join(self.not_read.values()))

    def _reasons(self, known: Mapping[str, str]) -> list[dict[str, str]]:
        return [{self.key: thing, "reason": text} for thing, text in known.items()]

    def _say(self) -> None:
        columns = [c for c in (self.rows[0] if self.rows else {self.key: ""}) if c != "digest"]
        lines = [[_cell(row[column]) for column in columns] for row in self.rows]
        failed = [f"{thing} (damaged)" for thing in sorted(self.damaged)]
        failed += [f"{thing} (not read)" for thing in sorted(self.not_read)]
        lines += [[thing, *("-" for _ in columns[1:])] for thing in failed]
        if lines:
            say_table(self.what, columns, lines)
        else:
            say(f"there are no {self.what} in this store yet.")


def tell_damaged(damaged: Mapping[str, str]) -> None:
    """Say what is wrong with records, if there are any.

    Raises:
        IntegrityError: there are; with the last of them.
    """
    *others, last = damaged.values() or [""]
    for text in others:
        say(text, style="red")
    if last:
        raise IntegrityError(last)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(value) if isinstance(value, list) else str(value)
