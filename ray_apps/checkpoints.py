"""Checkpoints of a training, by the store's commit rule: where the same command goes on."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from arclight.bundle import BundleFile, FoldFigure, Resumed
from arclight.contract import Contract, InnerPath
from arclight.errors import ArclightError
from arclight.store import (
    check_file,
    discard,
    flush_tree,
    held,
    make_folder,
    open_private,
    replace_file,
    sha256_file,
)
from arclight.sweep import CHECKPOINTS
from ray_apps.trainers.boosting import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from arclight.store import Store

KEPT = 2
"""The newest may turn out damaged: then the one before it serves."""
MODEL, HISTORY = "model", "history.f64"
FOLDS = "folds.json"


class CheckpointRecord(Contract):
    """A training after some rounds; its number in the store is how many."""

    kind: ClassVar[str] = "fit-checkpoint"

    rounds: int
    workers: int
    threads: int
    device: Literal["cpu", "cuda"] = "cpu"
    bins: Literal["memory", "disk"] = "memory"
    processor: str = ""
    """Records of older releases have none, and then it is another one."""
    resumed: tuple[Resumed, ...]
    """How this training had gone on before."""
    folder: InnerPath
    files: tuple[BundleFile, ...]


class FoldsRecord(Contract):
    """The first folds of a cross-validation."""

    kind: ClassVar[str] = "fit-folds"

    rounds: int
    """Of each fold's model."""
    workers: int
    folds: tuple[FoldFigure, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read back, its files checked."""

    record: CheckpointRecord
    snapshot: Snapshot


class Checkpoints:
    """The checkpoints of one model: of one key, whoever trains it.

    Args:
        store: where they lie, under `checkpoints/NAME/KEY`.
        name: of the model.
        key: what decides about the model (`ray_apps.train.model_key`).
    """

    def __init__(self, store: Store, name: str, key: str) -> None:
        self._store, self._parts = store, (CHECKPOINTS, name, key)

    def rounds(self) -> int:
        """Return the rounds of the newest checkpoint that is whole; 0 when there is none."""
        found = self.newest()
        return found.record.rounds if found else 0

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; damaged ones are passed over."""
        return next(self._whole(), None)

    def write(self, snapshot: Snapshot, record: CheckpointRecord) -> None:
        """Publish a checkpoint and let older ones go.

        Args:
            snapshot: the model and the metric after each round.
            record: how it came about; folder and files are filled in here.

        Raises:
            ArclightError: it cannot be written; what was there before is still there.
        """
        try:
            self._make_room(record.rounds)
            self._publish(snapshot, record)
        except OSError as error:
            raise ArclightError(
                f"a checkpoint after round {record.rounds} must be written, but "
                f"{error.strerror}; free space in the store, or mend its rights."
            ) from error
        self._prune()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `arclight sweep` away for the length of a block."""
        folder = self._store.path(*self._parts)
        make_folder(folder)
        try:
            with held(folder):
                yield
        finally:
            for empty in (folder, folder.parent):
                with contextlib.suppress(OSError):
                    empty.rmdir()

    def clear(self) -> None:
        """Remove all of them: the model is published."""
        discard(self._store.path(*self._parts))
        with contextlib.suppress(OSError):  # others of this name are there
            self._store.path(*self._parts[:2]).rmdir()

    def progress(self) -> tuple[int, int]:
        """Return the rounds of the newest whole checkpoint, and how many folds are done."""
        found = self._folds()
        return self.rounds(), len(found.folds) if found else 0

    def folds(self, rounds: int, workers: int) -> tuple[FoldFigure, ...]:
        """Return the folds that are done already, of models of so many rounds and workers."""
        found = self._folds()
        same = found is not None and (found.rounds, found.workers) == (rounds, workers)
        return found.folds if found is not None and same else ()

    def write_folds(self, rounds: int, workers: int, folds: tuple[FoldFigure, ...]) -> None:
        """Leave the folds that are done for a training that goes on; without them it does again.

        Raises:
            OSError: it cannot be written.
        """
        record = FoldsRecord(rounds=rounds, workers=workers, folds=folds)
        folder = self._store.path(*self._parts)
        make_folder(folder)
        replace_file(folder / FOLDS, record.to_json().encode())

    def _folds(self) -> FoldsRecord | None:
        with contextlib.suppress(ArclightError, OSError):
            return FoldsRecord.from_json(self._store.path(*self._parts, FOLDS).read_bytes())
        return None

    def _publish(self, snapshot: Snapshot, record: CheckpointRecord) -> None:
        folder = self._store.stage(*self._parts)
        is_ours = False
        try:
            history = np.asarray(snapshot.history, np.float64).tobytes()
            files = [
                _file(folder / name, content)
                for name, content in ((MODEL, snapshot.model), (HISTORY, history))
            ]
            flush_tree(folder)
            place = folder.relative_to(self._store.root).as_posix()
            made = record.model_copy(update={"folder": place, "files": tuple(files)})
            is_ours = self._store.publish(record.rounds, made.to_json(), *self._parts)
        finally:
            if not is_ours:  # it failed, or another command that trains the same was first
                discard(folder)

    def _whole(self) -> Iterator[Checkpoint]:
        for number in reversed(self._store.numbers(*self._parts)):
            with contextlib.suppress(ArclightError, OSError):
                yield self._read(number)

    def _make_room(self, number: int) -> None:
        """Remove a damaged checkpoint whose number is needed."""
        if number in self._store.numbers(*self._parts):
            try:
                self._read(number)
            except (ArclightError, OSError):
                self._remove(number)

    def _read(self, number: int) -> Checkpoint:
        stored = self._store.record(number, *self._parts)
        record = CheckpointRecord.from_json(stored.text, source=stored.path)
        for file in record.files:
            check_file(self._at(record, file), size_bytes=file.size_bytes, sha256=file.sha256)
        model, history = (self._at(record, file).read_bytes() for file in record.files)
        values = tuple(np.frombuffer(history, np.float64).tolist())
        if not len(values) == record.rounds == number:
            raise ArclightError(f"'{stored.path}' must have {number} rounds, got {len(values)}.")
        return Checkpoint(record, Snapshot(model, values))

    def _at(self, record: CheckpointRecord, file: BundleFile) -> Path:
        return self._store.root / record.folder / file.path

    def _prune(self) -> None:
        """Let go of all but the newest whole ones."""
        kept = {found.record.rounds for found, _ in zip(self._whole(), range(KEPT), strict=False)}
        for number in self._store.numbers(*self._parts):
            if number not in kept:
                self._remove(number)

    def _remove(self, number: int) -> None:
        """Remove a checkpoint, its record first; what its files are is lost with a damaged one."""
        with contextlib.suppress(OSError):
            path = self._store.path(*self._parts, f"{number}.json")
            text = path.read_bytes()
            path.unlink()
            with contextlib.suppress(ArclightError):
                discard(self._store.root / CheckpointRecord.from_json(text).folder)


def _file(path: Path, content: bytes) -> BundleFile:
    """Write a file and return what a record says of it."""
    with open_private(path) as stream:
        stream.write(content)
    return BundleFile(path=path.name, size_bytes=len(content), sha256=sha256_file(path))


class Keeper:
    """Writes a checkpoint whenever enough time has gone since the last one.

    Args:
        checkpoints: where they go.
        template: the record of a checkpoint of this training.
        every_s: seconds between two of them.

    Attributes:
        trouble: why the last one could not be written, nothing when it could; the training goes
            on without it.
    """

    def __init__(
        self, checkpoints: Checkpoints, template: CheckpointRecord, *, every_s: float
    ) -> None:
        self._checkpoints, self._template, self._every_s = checkpoints, template, every_s
        self._last_s = time.monotonic()
        self._took_s = 0.0
        self.trouble = ""

    def offer(self, history: Sequence[float], model: Callable[[], bytes] | None) -> None:
        """Write a checkpoint if it is time, and if the training may go on from here.

        One that takes long is written less often, so that nine tenths of the time are the
        training's; unless one is wanted after every round.
        """
        wait_s = max(self._every_s, 9 * self._took_s) if self._every_s else 0.0
        if model is not None and time.monotonic() - self._last_s >= wait_s:
            self.keep(history, model)

    def keep(self, history: Sequence[float], model: Callable[[], bytes]) -> None:
        """Write a checkpoint now."""
        begun = time.monotonic()
        record = self._template.model_copy(update={"rounds": len(history)})
        try:
            self._checkpoints.write(Snapshot(model(), tuple(history)), record)
            self.trouble = ""
        except ArclightError as error:
            self.trouble = error.message
        self._last_s = time.monotonic()
        self._took_s = self._last_s - begun
