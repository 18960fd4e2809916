"""What a killed command left behind: found without touching it, removed only when told.

A folder `data/UUID` is left over when no record names it, no run of its name is alive, and nothing
in it has changed for a while. Every maker of such a folder is a run that holds its journal's lock
from before it makes the folder until its record is published. So the order of looking is the
proof: first the folders, then the runs, then the records. A folder that was there before no run
was alive, and that no record names after it, has no maker that could still publish it.

The checkpoints of a training that nobody goes on with, and the scratch of a run that is not alive,
have no record at all: they are left over once they are idle for long enough, and so is the file
that a record was written to, which is gone after an instant. The folder of a model that is trained
again (`verify --retrain`) has no run: who works in it holds it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.bundle import ModelBundle
from arclight.errors import ArclightError, ConflictError, IntegrityError
from arclight.journal import is_open
from arclight.manifest import DatasetManifest
from arclight.output import PRIVATE
from arclight.store import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from arclight.store import Store

SHELVES: dict[str, type[DatasetManifest | ModelBundle]] = {
    "datasets": DatasetManifest,
    "models": ModelBundle,
}
CHECKPOINTS = "checkpoints"
RETRAINED = ".retrain-"
SCRATCH = ("fit", "search", "spark")
"""What a run makes in its folder and takes away at its end."""
_STAGED = re.compile(r"[0-9a-f]{32}")
RECORD_S = 60.0
"""Time that a record has from its first byte until it is there; nobody holds its file."""
_UNLINKED = re.compile(r"\.[0-9a-f]{32}\.tmp")
_RECORDS = (*SHELVES, "studies", "submissions")
_NO_RECORDS = ("data", "trials")


@dataclass(frozen=True)
class Leftover:
    """A folder that no record names, or a file that never became a record.

    Attributes:
        idle_s: seconds since anything in it changed.
        kept: why it stays; empty when it may go.
    """

    path: Path
    size_bytes: int
    idle_s: float
    kept: str = ""
    is_file: bool = False


@dataclass(frozen=True)
class Findings:
    """What was found, and what could not be judged: a name whose records cannot all be read."""

    leftovers: tuple[Leftover, ...]
    refused: tuple[str, ...]

    @property
    def removable(self) -> tuple[Leftover, ...]:
        """What may go."""
        return tuple(left for left in self.leftovers if not left.kept)


def find_leftovers(
    store: Store,
    *,
    clock: float,
    grace_s: float,
    outputs: Iterable[Path] = (),
    temp: Path | None = None,
) -> Findings:
    """Look for what killed commands left; nothing is changed.

    Args:
        store: where to look.
        clock: the time now, as files' times are told.
        grace_s: what changed within so many seconds stays.
        outputs: folders in which batch scorings made their outputs.
        temp: folder for temporary files, where one worker trains a model again.
    """
    # the order of these three is what makes it safe: see the top of this file
    staged = [(shelf, *rest) for shelf in SHELVES for rest in _staged(store, shelf)]
    staged += [(CHECKPOINTS, *rest) for rest in _checkpoints(store)]
    staged += [("runs", *rest) for rest in _scratch(store)]
    alive = {_name_of(run) for run in _folders(store.path("runs")) if _is_alive(store, run)}
    named, refused = _read_records(store)
    found = [
        _look(path, clock=clock, grace_s=grace_s, is_alive=name in alive or _is_retraining(path))
        for shelf, name, path in staged
        if path.relative_to(store.root).as_posix() not in named and (shelf, name) not in refused
    ]
    lasting_s = max(grace_s, RECORD_S)
    found += [_look(p, clock=clock, grace_s=lasting_s, is_alive=False) for p in _unlinked(store)]
    if temp is not None:
        found += _retrained(temp, clock=clock, grace_s=grace_s)
    for folder in outputs:
        found += _of_outputs(folder, clock=clock, grace_s=grace_s)
    return Findings(tuple(left for left in found if left is not None), tuple(refused.values()))


def remove(leftover: Leftover) -> None:
    """Remove a leftover that may go.

    Raises:
        ConflictError: somebody works in it by now.
        ArclightError: it cannot be removed; what is left of it is found again.
    """
    assert not leftover.kept, leftover
    path = leftover.path
    try:
        if leftover.is_file:
            path.unlink()
            return
        with held(path, alone=True) as is_ours:
            if not is_ours:
                raise ConflictError(
                    f"'{path}' must be nobody's to be removed, but somebody holds it or its file "
                    "system has no locks; run the same command again later."
                )
            shutil.rmtree(path)
    except FileNotFoundError:
        return  # its maker has put it away
    except OSError as error:
        raise ArclightError(
            f"'{path}' must be removed, but {error.strerror}; mend its rights and run the same "
            "command again."
        ) from error


def decide(*, idle_s: float, grace_s: float, is_alive: bool) -> str:
    """Return why a folder that no record names is kept, or nothing if it may go."""
    if is_alive:
        return "in use"
    return f"changed {idle_s:,.0f} s ago" if idle_s < grace_s else ""


def _staged(store: Store, shelf: str) -> Iterator[tuple[str, Path]]:
    for name in _folders(store.path(shelf)):
        for one in _folders(store.path(shelf, name, "data")):
            if _STAGED.fullmatch(one):
                yield name, store.path(shelf, name, "data", one)


def _checkpoints(store: Store) -> Iterator[tuple[str, Path]]:
    for name in _folders(store.path(CHECKPOINTS)):
        for key in _folders(store.path(CHECKPOINTS, name)):
            yield name, store.path(CHECKPOINTS, name, key)


def _scratch(store: Store) -> Iterator[tuple[str, Path]]:
    for name in _folders(store.root):
        if name.startswith(RETRAINED):
            yield "", store.path(name)
    for run in _folders(store.path("runs")):
        for scratch in SCRATCH:
            if _folders(store.path("runs", run, scratch)):
                yield _name_of(run), store.path("runs", run, scratch)


def _unlinked(store: Store) -> Iterator[Path]:
    """Yield what a killed publication left beside the records."""
    places = [store.root.glob(".*.tmp")]
    for shelf in _RECORDS:
        for name in _folders(store.path(shelf)):
            places.append(store.path(shelf, name).glob(".*.tmp"))
            kinds = [k for k in _folders(store.path(shelf, name)) if k not in _NO_RECORDS]
            places += [store.path(shelf, name, kind).rglob(".*.tmp") for kind in kinds]
    found = sorted(itertools.chain(*places))
    return (p for p in found if _UNLINKED.fullmatch(p.name) and not p.is_dir())


def _is_alive(store: Store, run: str) -> bool:
    return is_open(store.path("runs", run))


def _is_retraining(path: Path) -> bool:
    if not path.name.startswith(RETRAINED):
        return False
    with contextlib.suppress(FileNotFoundError), held(path) as is_shared:
        return not is_shared
    return False


def _name_of(run: str) -> str:
    return run.rsplit("-", 3)[0]


def _read_records(store: Store) -> tuple[set[str], dict[tuple[str, str], str]]:
    """Return every folder that a record names, and the names with a record that is unreadable."""
    named: set[str] = set()
    refused: dict[tuple[str, str], str] = {}
    for shelf, kind in SHELVES.items():
        for name in _folders(store.path(shelf)):
            try:
                for number in store.numbers(shelf, name, "versions"):
                    record = store.record(number, shelf, name, "versions")
                    named.add(kind.from_json(record.text, source=record.path).folder)
            except IntegrityError as error:
                refused[shelf, name] = error.message
    return named, refused


def _of_outputs(folder: Path, *, clock: float, grace_s: float) -> Iterator[Leftover | None]:
    for name in _folders(folder):
        if PRIVATE.fullmatch(name):
            with held(folder / name, alone=True) as is_ours:
                yield _look(folder / name, clock=clock, grace_s=grace_s, is_alive=not is_ours)


def _retrained(temp: Path, *, clock: float, grace_s: float) -> Iterator[Leftover | None]:
    """Yield what this user's `verify --retrain` left outside of any store."""
    for name in _folders(temp):
        with contextlib.suppress(FileNotFoundError):  # its own command has just ended
            if name.startswith(RETRAINED) and (temp / name).lstat().st_uid == os.getuid():
                is_alive = _is_retraining(temp / name)
                yield _look(temp / name, clock=clock, grace_s=grace_s, is_alive=is_alive)


def _look(path: Path, *, clock: float, grace_s: float, is_alive: bool) -> Leftover | None:
    """Return what a folder is, or nothing when its maker has removed it meanwhile."""
    states = []
    for inside in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            states.append(inside.lstat())
    if not states:
        return None
    idle_s = max(0.0, clock - max(state.st_mtime for state in states))
    return Leftover(
        path=path,
        # another name of a file that stays frees nothing
        size_bytes=sum(s.st_blocks * 512 for s in states if s.st_nlink == 1 or _is_folder(s)),
        idle_s=idle_s,
        kept=decide(idle_s=idle_s, grace_s=grace_s, is_alive=is_alive),
        is_file=not _is_folder(states[0]),
    )


def _is_folder(state: os.stat_result) -> bool:
    return stat.S_ISDIR(state.st_mode)


def _folders(folder: Path) -> list[str]:
    """Return the names of the real folders in a folder; links lead out of it."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
