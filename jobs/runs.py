"""A run: its folder, its journal and its steps; opened again where an earlier one stopped."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import shlex
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.catalog import Catalog
from arclight.errors import (
    ArclightError,
    ConflictError,
    IntegrityError,
    MissingError,
    printable,
)
from arclight.journal import Journal, read_entries
from arclight.store import Store, discard, find_store, make_folder, open_store, replace_file
from jobs.say import say
from jobs.signing import signer_here, trust_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arclight.journal import Entry
    from arclight.spec_file import LoadedSpec
    from cluster.profiles import Profile

OVER = ("done", "failed")
SPEC = "spec.json"
"""File in a run's folder with the spec as it was when the run began."""


@dataclass
class Run:
    """An open run.

    Attributes:
        id: NAME-TIME-RANDOM; also the folder's name.
        folder: journal, logs, reports and scratch of this run.
        seconds: step -> seconds it took, or None for a step that was skipped.
    """

    id: str
    folder: Path
    catalog: Catalog
    journal: Journal
    resumed: bool
    seconds: dict[str, float | None] = field(default_factory=dict)

    @property
    def logs(self) -> Path:
        """The folder of the run's logs."""
        return self.folder / "logs"

    def skip(self, step: str, *, key: str, result: str) -> None:
        """Note that a step's result is published already."""
        self.journal.note(step, "skipped", key=key, result=result)
        self.seconds[step] = None

    @contextmanager
    def step(self, name: str, *, key: str = "") -> Iterator[StepNote]:
        """Note a step's start and how it ended; errors pass through after they are noted."""
        self.journal.note(name, "started", key=key)
        note = StepNote()
        begun = time.monotonic()
        try:
            yield note
        except KeyboardInterrupt:
            self.journal.note(name, "interrupted", key=key)
            raise
        except ArclightError as error:
            self.log_traceback()
            self.journal.note(name, "failed", key=key, detail=printable(error.message, limit=2000))
            raise
        except Exception as error:
            self.log_traceback()
            self.journal.note(name, "failed", key=key, detail=printable(repr(error), limit=2000))
            raise
        self.seconds[name] = time.monotonic() - begun
        self.journal.note(
            name, "done", key=key, result=note.result, seconds=round(self.seconds[name] or 0.0, 3)
        )

    def log_traceback(self) -> None:
        """Append the exception being handled to the run's log."""
        with (self.logs / "run.log").open("a", encoding="utf-8") as log:
            log.write(f"{dt.datetime.now(dt.UTC).isoformat()}\n{traceback.format_exc()}\n")


@dataclass
class StepNote:
    """What a step says of itself: the ref or digest of its result."""

    result: str = ""


@dataclass(frozen=True)
class Context:
    """What every step of a run needs."""

    run: Run
    loaded: LoadedSpec
    profile: Profile


@contextmanager
def open_run(catalog: Catalog, loaded: LoadedSpec) -> Iterator[Run]:
    """Open a run of a spec: the latest one that has not ended, else a new one.

    The latest is passed over where another process runs it right now, or its journal is damaged.
    """
    run = _resume(catalog, loaded) or _begin(catalog, loaded)
    make_folder(run.logs)
    logging.getLogger("arclight").addHandler(logging.NullHandler())
    try:
        yield run
    except KeyboardInterrupt:
        run.journal.note("run", "interrupted")
        raise
    except BaseException:
        run.journal.note("run", "failed")
        raise
    else:
        run.journal.note("run", "done")
    finally:
        run.journal.close()


@contextmanager
def or_another(way: str) -> Iterator[None]:
    """Say of what is damaged, and would stand for its inputs, how another one is made.

    Raises:
        IntegrityError: as it came, with the way behind it.
    """
    try:
        yield
    except IntegrityError as error:
        raise IntegrityError(f"{error.message} {way}.") from error


def read_journal(store: Store, run_id: str) -> list[Entry]:
    """Return a run's journal entries without opening it for writing."""
    path = store.path("runs", run_id, "journal.jsonl")
    text = path.read_bytes() if path.is_file() else b""
    return read_entries(text[: text.rfind(b"\n") + 1], str(path))[0]


def run_ids(store: Store, name: str = "") -> list[str]:
    """Return the ids of a spec's runs, or of all, newest first."""
    folder = store.path("runs")
    found = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    mine = [n for n in found if not name or n.rsplit("-", 3)[0] == name]
    return sorted(mine, key=lambda n: n.rsplit("-", 3)[1:], reverse=True)


def store_for(store: str | None, beside: Path, *, signs: bool = False) -> Catalog:
    """Open the store that was asked for, or `.arclight` in a folder, and make it if it is new.

    Args:
        store: the store's folder.
        beside: where the default store is.
        signs: whether models are published here, so that the signing key is needed.
    """
    opened = open_store(_place(store, beside))
    return Catalog(opened, trust=trust_here(), signer=signer_here() if signs else None)


def known_store(store: str | None, beside: Path) -> Catalog:
    """Open the store that was asked for, or `.arclight` in a folder, if it is there.

    Raises:
        MissingError: there is none.
    """
    return Catalog(find_store(_place(store, beside)), trust=trust_here())


def store_root(store: str | None, beside: Path) -> Path:
    """Return where the store is or would be, and make nothing.

    Raises:
        SpecError: the address is not a folder.
    """
    place = _place(store, beside)
    try:
        return find_store(place).root
    except MissingError:
        return Path(str(place).removeprefix("file://")).absolute()


def store_words(store: str | None, root: Path) -> str:
    """Return what a command typed in this folder needs behind it to find a store.

    Args:
        store: what was given for it.
        root: where it is.
    """
    is_default = store is None and (Path.cwd() / ".arclight").resolve() == root.resolve()
    return "" if is_default else f" --store {shlex.quote(str(root))}"


def _place(store: str | None, beside: Path) -> str | Path:
    return store if store is not None else beside / ".arclight"


def _resume(catalog: Catalog, loaded: LoadedSpec) -> Run | None:
    newest = next(iter(run_ids(catalog.store, loaded.spec.name)), None)
    if newest is None:
        return None
    folder = catalog.store.path("runs", newest)
    spec = folder / "spec.digest"
    if not spec.is_file() or spec.read_text() != loaded.spec.digest:
        return None
    try:
        journal = Journal.open(folder)
    except ConflictError:
        return None  # it is running: this call is a run of its own
    except IntegrityError as error:
        say(f"run: {error.message} A new one begins; what is published stands.", style="yellow")
        return None
    if any(e.step == "run" and e.state in OVER for e in journal.entries):
        journal.close()
        return None
    return Run(id=newest, folder=folder, catalog=catalog, journal=journal, resumed=True)


def _begin(catalog: Catalog, loaded: LoadedSpec) -> Run:
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    run_id = f"{loaded.spec.name}-{stamp}-{secrets.token_hex(3)}"
    folder = catalog.store.path("runs", run_id)
    # the digest, by which a run is known again, when the spec that it goes on by is there
    texts = {SPEC: loaded.spec.to_json(), "spec.digest": loaded.spec.digest}
    try:
        make_folder(folder)
        for name, text in texts.items():
            replace_file(folder / name, text.encode())
        journal = Journal.open(folder)
    except OSError as error:
        discard(folder)
        raise ArclightError(
            f"run folder '{folder}' must be written, but {error.strerror}; free space or mend "
            "its rights, and run the same command again."
        ) from error
    return Run(id=run_id, folder=folder, catalog=catalog, journal=journal, resumed=False)
