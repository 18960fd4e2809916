"""The id of a request: the caller's where it has one, in the answer and in the log."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def _is_id(value: bytes) -> bool:
    """Say whether a header's value may stand in logs and answers."""
    return _ID.fullmatch(value) is not None


def new_id() -> str:
    """Return an id that nobody else has."""
    return os.urandom(16).hex()


def told_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the id that the headers give, the last one where there are several; None for none."""
    found = [value.decode() for name, value in headers if name == HEADER and _is_id(value)]
    return found[-1] if found else None
