"""What a head leaves in its folder, and whether it still runs; Ray is not imported to know it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from arclight.contract import Contract

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START = 19
"""Place of a process's start among the fields behind its name (proc(5), field 22)."""
HEAD, REQUEST, TOKEN, LOG = "head.json", "request.json", "token", "head.log"


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
    address: str
    jobs_url: str
    temp_folder: str


def find_head(folder: Path) -> Head | None:
    """Return the head of a folder if its process still runs."""
    try:
        head = Head.from_json((folder / HEAD).read_bytes(), source=str(folder / HEAD))
    except FileNotFoundError:
        return None
    if head.started is not None and not head.birth:
        with suppress(psutil.NoSuchProcess):
            is_same = abs(psutil.Process(head.pid).create_time() - head.started) < 1
            return head if is_same else None
        return None
    return head if birth_of(head.pid) == head.birth else None


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
    nothing. The log stays when a head is stopped, so it tells where heads were.
    """
    if not (folder / LOG).exists():
        return False
    head = find_head(folder)
    return head is None or head.jobs_url != jobs_url
