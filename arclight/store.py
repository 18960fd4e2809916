"""The only module that writes what must last: private folders, then one record, created once.

The commit rule, for datasets, models, scores and aliases:

1. write into a private folder `data/UUID/`, which nobody reads yet;
2. verify what was written, and flush files and folders to disk;
3. publish: write the record under a temporary name, flush, `link` it to `N.json`, which fails if
   `N.json` exists (that is the compare-and-swap), flush the folder;
4. read: take the highest valid N once, check size and hash before parsing. A record that is empty
   or cannot be parsed is named when it is asked for, hides no other, and its number stays taken.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from arclight.errors import (
    ArclightError,
    ConflictError,
    IntegrityError,
    MissingError,
    RefusedError,
    SpecError,
    printable,
)
from arclight.failpoint import reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RECORD = re.compile(r"([1-9][0-9]{0,17})\.json")
_CHUNK = 1 << 20
MAX_ATTEMPTS = 1000


@dataclass(frozen=True)
class Record:
    """A published record: its number and its text."""

    number: int
    text: bytes
    path: str


@dataclass(frozen=True)
class Store:
    """A folder on a local or shared POSIX file system; `link` must be atomic there."""

    root: Path

    def path(self, *parts: str) -> Path:
        """Return the path of a place in the store; parts are ids, never a user's path.

        Raises:
            SpecError: a part would leave the store.
        """
        for part in parts:
            if part in ("", ".", "..") or "/" in part or "\0" in part:
                raise SpecError(
                    f"'{printable(part)}' must be a plain name to lie in a store; take another."
                )
        return self.root.joinpath(*parts)

    def stage(self, *parts: str) -> Path:
        """Make a new private folder `…/data/UUID` and return it; only its maker knows of it."""
        folder = self.path(*parts, "data", uuid.uuid4().hex)
        make_folder(folder)
        return folder

    def records(self, *parts: str) -> Iterator[Record]:
        """Yield the records of a folder from the highest number down, read one at a time."""
        folder = self.path(*parts)
        for number in sorted(_numbers(folder), reverse=True):
            yield self.record(number, *parts)

    def record(self, number: int, *parts: str) -> Record:
        """Return one record.

        Raises:
            MissingError: there is no such number.
            IntegrityError: the record is empty, as after a power cut on a store without flush, or
                the system does not give it.
        """
        path = self.path(*parts, f"{number}.json")
        try:
            text = _read_plain(path)
        except FileNotFoundError as error:
            if not path.is_symlink():
                raise MissingError(f"record '{path}' does not exist; list what does.") from error
            raise _unreadable(path, "its link leads nowhere") from error
        except OSError as error:
            raise _unreadable(path, error.strerror) from error
        if not text.strip():
            raise IntegrityError(
                f"record '{path}' must not be empty; its number is not used again: publish a "
                "new version."
            )
        return Record(number=number, text=text, path=str(path))

    def numbers(self, *parts: str) -> tuple[int, ...]:
        """Return the record numbers of a folder, lowest first."""
        return tuple(sorted(_numbers(self.path(*parts))))

    def publish(self, number: int, text: str, *parts: str) -> bool:
        """Create record `number` if nobody has, all at once.

        Returns:
            True when this call created it, False when somebody was first.

        Raises:
            ArclightError: the folder cannot be written or is full; nothing was published.
        """
        path = self.path(*parts, f"{number}.json")
        try:
            return self._create(path, text, ".".join(parts[:1] + parts[2:3]))
        except OSError as error:
            raise ArclightError(
                f"record '{path}' must be written, but {error.strerror}; free space or mend its "
                "rights, and run the same command again."
            ) from error

    def _create(self, path: Path, text: str, point: str) -> bool:
        make_folder(path.parent)
        temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
        try:
            with open_private(temporary) as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
            reach(f"{point}.before-link")
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            reach(f"{point}.after-link")
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        flush_folder(path.parent)
        return True

    def append(
        self,
        make: Callable[[int], str],
        taken: Callable[[Record], bool],
        *parts: str,
        above: int = 0,
    ) -> Record:
        """Publish under the next free number, unless a record already holds the same thing.

        Args:
            make: gives the record's text for a number.
            taken: says whether a record somebody else published is this very thing.
            parts: the folder of the records.
            above: a number up to which none is free, though its record may have been taken away.

        Returns:
            The record that now holds the thing, ours or theirs.

        Raises:
            ConflictError: others took every number that was tried.
        """
        seen = 0
        for _ in range(MAX_ATTEMPTS):
            numbers = self.numbers(*parts)
            for number in (n for n in numbers if n > seen):
                with contextlib.suppress(IntegrityError):
                    record = self.record(number, *parts)
                    if taken(record):
                        return record
            seen = max(*numbers, above, 0)
            text = make(seen + 1)
            if self.publish(seen + 1, text, *parts):
                return self.record(seen + 1, *parts)
        raise ConflictError(
            f"'{'/'.join(parts)}' must give a free number within {MAX_ATTEMPTS} attempts; "
            "others publish without pause: run again."
        )


def open_store(uri: str | Path) -> Store:
    """Open a store to write in, making its folder when it is new.

    Raises:
        SpecError: the address is not a folder.
        ArclightError: the folder cannot be made or written.
    """
    root = _root(uri)
    try:
        make_folder(root)
        probe = root / f".{uuid.uuid4().hex}.tmp"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise ArclightError(
            f"store '{root}' must be a folder that can be written, but {error.strerror}; "
            "use --store FOLDER or mend its rights or free space."
        ) from error
    return Store(root=root)


def find_store(uri: str | Path) -> Store:
    """Open a store that is there, on a disk that may be read-only.

    Raises:
        SpecError: the address is not a folder.
        MissingError: there is no such folder.
    """
    root = _root(uri)
    if not root.is_dir():
        raise MissingError(
            f"there is no store '{printable(root)}'; use --store FOLDER, or go where the spec is."
        )
    return Store(root=root)


def _root(uri: str | Path) -> Path:
    text = str(uri)
    if not text.strip() or "\0" in text:
        raise SpecError(f"store '{printable(text)}' must be a folder; use --store FOLDER.")
    if "://" in text and not text.startswith("file://"):
        raise SpecError(
            f"store '{text}' must be a folder on a local or shared POSIX file system; object "
            "stores are not supported yet: mount one or use --store FOLDER."
        )
    return Path(text.removeprefix("file://")).absolute()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each 0700 whatever the umask."""
    missing = [folder, *folder.parents]
    for path in reversed([p for p in missing if not p.exists()]):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            path.chmod(0o700)


def open_private(path: Path) -> BinaryIO:
    """Open a new file for writing, 0600 whatever the umask; fails if it exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file all at once, 0600: a name that is there is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open_private(temporary) as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def held_file(path: Path) -> Iterator[bool]:
    """Hold a file, which is made if it is not there, for the length of a block.

    On a shared file system it is held against other machines too: NFS hands on the lock of a file
    that is open for writing, that of a folder it keeps to the machine.

    Yields:
        Whether it is held; if not, somebody else holds it.

    Raises:
        RefusedError: the file system has no locks.
        ArclightError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ArclightError(
            f"'{path}' must be a file that can be written, but {error.strerror}; free space in "
            "the store or mend its rights."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = True
        except BlockingIOError:
            is_held = False
        except OSError as error:
            raise RefusedError(
                f"'{path}' must lie on a file system with locks ({error.strerror}): nothing else "
                "keeps a second command away; mount it with them or use --store FOLDER."
            ) from error
        yield is_held
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a process holds a file right now (`held_file`); one that is not there is not.

    To look takes nothing from others who look; whoever wants to hold it may find it taken for an
    instant.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def held(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Hold a folder for the length of a block: alone, or with others that do not.

    Yields:
        Whether it is held; if not, somebody else works there, or the file system has no locks.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            is_held = True
        except OSError:
            is_held = False
        yield is_held
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: Path, *, size_bytes: int, sha256: str) -> None:
    """Check a stored file against its record, before anything parses it.

    Raises:
        IntegrityError: the file is gone, or its size or bytes are not those published.
    """
    check_size(path, size_bytes=size_bytes)
    if sha256_file(path) != sha256:
        raise IntegrityError(
            f"'{path}' must have the SHA-256 {sha256[:12]}… as published, but its bytes differ; "
            "restore it from a backup or publish a new version."
        )


def check_size(path: Path, *, size_bytes: int) -> None:
    """Check that a stored file is there and as large as its record says.

    Raises:
        IntegrityError: it is gone, or of another size.
    """
    if not path.is_file():
        raise IntegrityError(f"'{path}' is recorded but not there; restore it from a backup.")
    found = path.stat().st_size
    if found != size_bytes:
        raise IntegrityError(
            f"'{path}' must have {size_bytes:,} bytes as published, got {found:,}; "
            "restore it from a backup or publish a new version."
        )


def flush_file(path: Path) -> None:
    """Force a file's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    flush_file(folder)


def flush_tree(folder: Path) -> None:
    """Force every file and folder below, and the folder itself, to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        flush_file(path)
    flush_folder(folder)


def discard(folder: Path) -> None:
    """Remove a staged folder that will not be published."""
    shutil.rmtree(folder, ignore_errors=True)


def _read_plain(path: Path) -> bytes:
    """Return a file's bytes; whoever opens a pipe waits for somebody to write into it."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise OSError(errno.EINVAL, "it is a pipe or a device")
    return path.read_bytes()


def _unreadable(path: Path, reason: str | None) -> IntegrityError:
    return IntegrityError(
        f"record '{path}' must be a file that can be read, but {reason}; mend it or restore it "
        "from a backup."
    )


def _numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [int(match[1]) for name in names if (match := _RECORD.fullmatch(name))]
