"""What a head leaves in its folder, and whether it still runs; Ray is not imported to know it.

A head holds its record as a file is held, so that another machine or container with the same home
knows that it runs, though its process is not to be seen there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from arclight.contract import Contract
from arclight.store import is_held

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START = 19
"""Place of a process's start among the fields behind its name (proc(5), field 22)."""
HEAD, REQUEST, TOKEN, LOG = "head.json", "request.json", "token", "head.log"
OWN_URL = "http://127.0.0.1:"
"""How the address of every head begins."""
PROFILE = "attached.yaml"
"""The profile that leads to a head."""


class HeadRequest(Contract):
    """What a head is asked to be."""

    kind: ClassVar[str] = "ray-head-request"

    cores: int
    object_store_bytes: int
    dashboard_port: int
    temp_folder: str
    """Short folder of Ray's sockets, in a private one that goes when the head is stopped."""


class Head(Contract):
    """A head that runs, as its folder records it."""

    kind: ClassVar[str] = "ray-head"

    pid: int
    birth: str = ""
    """Which start of the machine, and when in it the process began; a reused pid differs."""
    started: float | None = None
    """What records of older releases have for it, by the clock."""
    host: str = ""
    """Name of its machine or container; older releases did not hold their records, and have none.
    """
    address: str
    jobs_url: str
    temp_folder: str


def find_head(folder: Path) -> Head | None:
    """Return the head of a folder if its process still runs here."""
    head = _read(folder)
    return head if head is not None and _is_here(head) else None


def head_elsewhere(folder: Path) -> Head | None:
    """Return the head of a folder if it runs on another machine, or in another container."""
    head = _read(folder)
    if head is None or not head.host or _is_here(head):
        return None
    return head if is_held(folder / HEAD) else None


def _read(folder: Path) -> Head | None:
    try:
        return Head.from_json((folder / HEAD).read_bytes(), source=str(folder / HEAD))
    except FileNotFoundError:
        return None


def _is_here(head: Head) -> bool:
    """Return whether the process of a record runs, as far as this machine and container see."""
    if head.started is not None and not head.birth:
        with suppress(psutil.NoSuchProcess):
            return abs(psutil.Process(head.pid).create_time() - head.started) < 1
        return False
    return birth_of(head.pid) == head.birth


def birth_of(pid: int) -> str | None:
    """Return when a process began, in a form that setting the clock does not change.

    None where there is no such process, or one that has ended and was not waited for.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        machine = BOOT_ID.read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return None if state == "Z" else f"{machine} {fields[_START - 1]}"


def is_gone(folder: Path, jobs_url: str) -> bool:
    """Return whether a head that answered at an address was started from a folder and has ended.

    A folder where no head was ever started, such as that of another cluster's token, tells
    nothing. The log stays when a head is stopped, so it tells where heads were. An address that
    no head has by itself may be a proxy's, before the one that runs.
    """
    if not (folder / LOG).exists():
        return False
    head = find_head(folder) or head_elsewhere(folder)
    return head is None or (head.jobs_url != jobs_url and jobs_url.startswith(OWN_URL))
