"""The record that a reader could not parse, found among the causes of a Spark failure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError

from arclight.errors import printable
from cluster.spark_errors import describe_spark_error

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 80
DEEPEST = 10
UNREAD_FILE = re.compile(
    r"(FAILED_READ_FILE\.\w+): Encountered error while reading file (\S+?)\.?$"
)
# what Spark says of a subquery that failed, whatever the reason
WAITED = "Exception thrown in awaitResult"
CONDITION = re.compile(r"[A-Z][A-Z0-9_.]+: ")
RECORD = re.compile(
    r"Malformed records are detected in record parsing: (.*?)\.?\s*Parse Mode", re.S
)


def describe_bad_rows(error: BaseException) -> str:
    """Return what to tell of rows that could not be read or computed, plain words first."""
    text, record = _describe(error), bad_record(error)
    unread = UNREAD_FILE.match(text)
    if unread is not None:
        why = "holds a record that does not fit its columns" if record else "cannot be read"
        text = f"the file '{unread[2]}' {why} ({unread[1]})."
    return f"{text}{record}"


def _describe(error: BaseException) -> str:
    """Describe a failure by its own words, or by those of the first cause that has a condition."""
    text = describe_spark_error(error)
    if not text.startswith(WAITED):
        return text
    causes = (describe_spark_error(RuntimeError(said)) for said in _texts(error))
    return next((cause for cause in causes if CONDITION.match(cause)), text)


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
