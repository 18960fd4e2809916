"""The append-only, hash-chained record of a run: what resume and people read."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from arclight.contract import Contract, canonical_json
from arclight.errors import ConflictError, IntegrityError
from arclight.store import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

State = Literal["started", "done", "skipped", "failed", "interrupted"]


class Entry(Contract):
    """One line: a step of a run changed its state."""

    seq: int
    at: float
    """Seconds since 1970; for people only, order is by `seq`."""
    step: str
    attempt: int
    state: State
    key: str = ""
    result: str = ""
    seconds: float | None = None
    detail: str = ""
    before: str
    """SHA-256 of the line before, empty on the first."""


@dataclass
class Journal:
    """A run's journal; opened by one process at a time."""

    path: Path
    clock: Callable[[], float] = time.time
    entries: list[Entry] = field(default_factory=list)
    torn: bool = False
    """Whether a half-written last line was dropped when the journal was opened."""
    _last: str = ""
    _stream: int = -1

    @classmethod
    def open(cls, folder: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open a run's journal for appending, after its chain was checked.

        Raises:
            ConflictError: another process runs this run.
            IntegrityError: a line was changed or removed.
        """
        make_folder(folder)
        journal = cls(path=folder / "journal.jsonl", clock=clock)
        stream = os.open(journal.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(stream)
            raise ConflictError(
                f"run '{folder.name}' is being run by another process; wait for it or stop it."
            ) from error
        journal._stream = stream
        os.fchmod(stream, 0o600)
        text = journal.path.read_bytes()
        keep = text.rfind(b"\n") + 1
        if keep != len(text):
            journal.torn = True
            os.ftruncate(stream, keep)
        journal.entries, journal._last = read_entries(text[:keep], str(journal.path))
        return journal

    def note(
        self,
        step: str,
        state: State,
        *,
        key: str = "",
        result: str = "",
        seconds: float | None = None,
        detail: str = "",
    ) -> Entry:
        """Append one line and flush it to disk before returning."""
        attempts = [e.attempt for e in self.entries if e.step == step and e.state == "started"]
        entry = Entry(
            seq=len(self.entries) + 1,
            at=self.clock(),
            step=step,
            attempt=len(attempts) + (state == "started"),
            state=state,
            key=key,
            result=result,
            seconds=seconds,
            detail=detail,
            before=self._last,
        )
        line = canonical_json(entry.model_dump(mode="json"))
        os.write(self._stream, line + b"\n")
        os.fsync(self._stream)
        self._last = hashlib.sha256(line).hexdigest()
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Let go of the journal."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1


def read_entries(text: bytes, source: str) -> tuple[list[Entry], str]:
    """Parse complete lines and check their chain.

    Returns:
        The entries, and the hash of the last line.

    Raises:
        IntegrityError: a line does not follow from the one before.
    """
    entries: list[Entry] = []
    last = ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = Entry.model_validate_json(line)
        except ValueError as error:
            raise IntegrityError(
                f"{source}:{number}: not a journal line; it was edited."
            ) from error
        if entry.before != last or entry.seq != number:
            raise IntegrityError(
                f"{source}:{number}: this line does not follow from the one before; a line was "
                "changed or removed."
            )
        entries.append(entry)
        last = hashlib.sha256(line).hexdigest()
    return entries, last
