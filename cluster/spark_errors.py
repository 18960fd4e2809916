"""A Spark failure in one sentence: its class and first line, no JVM trace, no user's value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

import arclight.errors
from arclight.errors import ArclightError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

# what a call into the JVM raises: PySpark gives a class of its own to some failures only
JVM_ERRORS = (PySparkException, Py4JJavaError)
DEEPEST = 10
MAX_CHARS = 400
TRACEBACK = "Traceback (most recent call last)"
PYTHON_CONDITION = "PYTHON_EXCEPTION"
CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)\]\s*(.*)", re.DOTALL)
# values stand in single quotes, or bare after "The value"; names stand in backticks
VALUES = (
    re.compile(r"(?<=[Tt]he value )(?:'.*?'(?=\s)|\S+)", re.DOTALL),
    re.compile(r"'(?:[^']|'')*'"),
)
# where the sentence ends and the plan, the query or a trace begins; settings that would let
# wrong values through as nulls are no way out
END = re.compile(
    r"\s*(?:SQLSTATE:|If necessary set |== |\n\s*at |\nCaused by|JVM stacktrace|\n\n|;\n)"
)
PYTHON_LAST = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:: .*)?$", re.MULTILINE)
OURS = re.compile(r"^arclight\.errors\.([A-Z]\w*): (.+)$", re.MULTILINE)
JAVA_CLASS = re.compile(r"^(?:[a-z][\w$]*\.)+[A-Z][\w$]*:\s*")


def describe_spark_error(error: BaseException) -> str:
    """Return the condition and first sentence of a Spark error; the full text is in the log."""
    text = _text(error)
    found = CONDITION.search(text)
    condition, rest = found.groups() if found else ("", JAVA_CLASS.sub("", text))
    if TRACEBACK in rest:
        last = PYTHON_LAST.findall(rest)
        condition, rest = PYTHON_CONDITION, last[-1] if last else rest
    return f"{condition}: {_sentence(rest)}" if condition else _sentence(rest)


def told_by_worker(error: BaseException) -> ArclightError | None:
    """Return the error of ours that a Python worker raised, as itself; None when it was another.

    Its sentence was written for people, so nothing in it is hidden.
    """
    text = _text(error)
    found = OURS.findall(text) if TRACEBACK in text else []
    if not found:
        return None
    name, message = found[-1]
    kind: object = getattr(arclight.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ArclightError):
        return kind(message)
    return None


def texts_of(error: BaseException) -> Iterator[str]:
    """Yield what an error says, then what each of its causes in the JVM does."""
    yield _text(error)
    java: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    try:
        for _ in range(DEEPEST):
            if java is None:
                return
            yield str(java.toString())
            java = java.getCause()
    except (Py4JError, OSError):  # the JVM is gone: what was said is all there is
        return


def _text(error: BaseException) -> str:
    """Return the message with the cause inside: a failed job wraps what a task said."""
    java = getattr(error, "java_exception", None)
    is_plain = isinstance(error, PySparkException) or java is None
    try:
        return str(error if is_plain else java)
    except (Py4JError, OSError, AssertionError):  # the words are in a JVM that is gone
        return f"{type(error).__name__} in a JVM that has ended."


def _sentence(text: str) -> str:
    kept = END.split(text.strip(), maxsplit=1)[0]
    for value in VALUES:
        kept = value.sub("'…'", kept)
    flat = printable(" ".join(kept.split()), MAX_CHARS)
    return flat if flat.endswith((".", "…", "?")) else f"{flat}."
