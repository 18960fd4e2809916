"""What a head leaves in its folder, and whether it still runs; Ray is not imported to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import psutil

from arclight.contract import Contract

if TYPE_CHECKING:
    from pathlib import Path

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
    started: float
    """When the process began, as the system tells it; a reused pid differs in this."""
    address: str
    jobs_url: str
    temp_folder: str


def find_head(folder: Path) -> Head | None:
    """Return the head of a folder if its process still runs."""
    try:
        head = Head.from_json((folder / HEAD).read_bytes(), source=str(folder / HEAD))
        process = psutil.Process(head.pid)
        is_same = abs(process.create_time() - head.started) < 1
        is_alive = process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return head if is_same and is_alive else None


def is_gone(folder: Path, jobs_url: str) -> bool:
    """Return whether a head that answered at an address was started from a folder and has ended.

    A folder where no head was ever started, such as that of another cluster's token, tells
    nothing. The log stays when a head is stopped, so it tells where heads were.
    """
    if not (folder / LOG).exists():
        return False
    head = find_head(folder)
    return head is None or head.jobs_url != jobs_url
