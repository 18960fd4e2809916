"""The record that a reader could not parse, found among the causes of a Spark failure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError

from arclight.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 80
DEEPEST = 10
RECORD = re.compile(
    r"Malformed records are detected in record parsing: (.*?)\.?\s*Parse Mode", re.S
)


def bad_record(error: BaseException) -> str:
    """Return what to add to a message about a file: the record, short and printable, or nothing.

    Spark says which file failed in one exception and which record in a cause of it, as the values
    it could read, with null where it could not.
    """
    for text in _texts(error):
        found = RECORD.search(text)
        if found:
            return (
                f" The first bad record reads '{printable(found[1].strip(), LONGEST)}' (null: "
                "could not be read as its type); mend it, or read the column as a string."
            )
    return ""


def _texts(error: BaseException) -> Iterator[str]:
    yield str(error)
    java: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    try:
        for _ in range(DEEPEST):
            if java is None:
                return
            yield str(java.toString())
            java = java.getCause()
    except Py4JError:  # the JVM is gone: what was said is all there is
        return
