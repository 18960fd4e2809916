"""The append-only, hash-chained record of a run: what resume and people read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from arclight.contract import OWN, Contract, canonical_json, sealed, unseal
from arclight.errors import ArclightError, ConflictError, IntegrityError
from arclight.store import is_held, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOOKS, _LOOK_S = 5, 0.01
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
    """The digest that the line before holds of itself, empty on the first."""


@dataclass
class Journal:
    """A run's journal; opened by one process at a time."""

    path: Path
    clock: Callable[[], float] = time.time
    entries: list[Entry] = field(default_factory=list)
    torn: bool = False
    """Whether a half-written last line was dropped when the journal was opened."""
    _last: str = ""
    """The digest of the last line."""
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
        if not _lock(stream):
            os.close(stream)
            raise ConflictError(
                f"run '{folder.name}' is being run by another process; wait for it or stop it."
            )
        journal._stream = stream
        try:
            journal._load()
        except BaseException:
            journal.close()
            raise
        return journal

    def _load(self) -> None:
        os.fchmod(self._stream, 0o600)
        text = self.path.read_bytes()
        keep = text.rfind(b"\n") + 1
        self.entries, self._last = read_entries(text[:keep], str(self.path))
        if keep != len(text):
            self.torn = True
            os.ftruncate(self._stream, keep)

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
            detail=detail.encode(errors="backslashreplace").decode(),
            before=self._last,
        )
        line = sealed(entry.model_dump(mode="json"))
        self._append(canonical_json(line) + b"\n")
        self.entries.append(entry)
        self._last = line[OWN]
        return entry

    def _append(self, line: bytes) -> None:
        """Write a whole line or none, so that a full disk leaves no half line in the middle.

        Nor does an interrupt leave one that is whole: the next line would not follow from it.
        """
        size = os.fstat(self._stream).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._stream, rest) :]
            os.fsync(self._stream)
        except BaseException as error:
            os.ftruncate(self._stream, size)
            if isinstance(error, OSError):
                raise ArclightError(
                    f"journal '{self.path}' must take a line, but {error.strerror}; free space or "
                    "mend its rights, and run the same command again."
                ) from error
            raise

    def close(self) -> None:
        """Let go of the journal."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1


def _lock(stream: int) -> bool:
    """Take a journal for this process; whoever asks `is_open` has it for an instant."""
    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOOK_S)
    return False


def is_open(folder: Path) -> bool:
    """Return whether a process holds a run's journal open right now: whether the run is alive."""
    return is_held(folder / "journal.jsonl")


def read_entries(text: bytes, source: str) -> tuple[list[Entry], str]:
    """Parse complete lines and check their chain.

    Returns:
        The entries, and the digest of the last line.

    Raises:
        IntegrityError: a line was changed, or does not follow from the one before.
    """
    entries: list[Entry] = []
    last = ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            body = json.loads(line)
            own = body.get(OWN, "")
            is_whole = bool(own) and unseal(body)
            entry = Entry.model_validate_json(json.dumps(body))
        except (AttributeError, RecursionError, ValueError) as error:
            raise IntegrityError(
                f"{source}:{number}: not a journal line, so it was edited; restore the file or "
                "start a new run."
            ) from error
        if not is_whole:
            raise IntegrityError(
                f"{source}:{number}: this line was changed; restore the file or start a new run."
            )
        if entry.before != last or entry.seq != number:
            raise IntegrityError(
                f"{source}:{number}: this line does not follow from the one before, so a line was "
                "removed or moved; restore the file or start a new run."
            )
        entries.append(entry)
        last = own
    return entries, last
