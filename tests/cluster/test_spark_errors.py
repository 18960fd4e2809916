from __future__ import annotations

import pytest
from py4j.protocol import Py4JNetworkError
from pyspark.errors import AnalysisException

from arclight.errors import DataError, SpecError
from cluster.spark_errors import MAX_CHARS, describe_spark_error, texts_of, told_by_worker

CAST = """[CAST_INVALID_INPUT] The value 'secret 4711' of the type "STRING" cannot be cast to \
"INT" because it is malformed. Use `try_cast`. SQLSTATE: 22018
== DataFrame ==
"cast" was called from
x.py:1
"""
JOB = """An error occurred while calling o61.save.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 failed: \
[DIVIDE_BY_ZERO] Division by zero. SQLSTATE: 22012
\tat org.apache.spark.Foo.bar(Foo.scala:1)
"""
WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "/x/y.py", line 25, in g
    raise ValueError("bad 'row' here")
ValueError: bad 'row' here
"""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            CAST,
            "CAST_INVALID_INPUT: The value '…' of the type \"STRING\" cannot be cast to "
            '"INT" because it is malformed. Use `try_cast`.',
        ),
        (
            '[ARITHMETIC_OVERFLOW] overflow. If necessary set "spark.sql.ansi.enabled" to "false" '
            "to bypass this error. SQLSTATE: 22003",
            "ARITHMETIC_OVERFLOW: overflow.",
        ),
        (JOB, "DIVIDE_BY_ZERO: Division by zero."),
        (WORKER, "PYTHON_EXCEPTION: ValueError: bad '…' here."),
        ("java.lang.OutOfMemoryError: Java heap space\n\tat a.b(C.java:1)", "Java heap space."),
        (
            '[CAST_OVERFLOW] The value 1E40D of the type "DOUBLE" cannot be cast',
            "CAST_OVERFLOW: The value '…' of the type \"DOUBLE\" cannot be cast.",
        ),
        ("[A.B_C] line one\nline \x1b[31mtwo\n\nmore", r"A.B_C: line one line \x1b[31mtwo."),
    ],
)
def test_sp15_an_error_is_one_sentence_without_trace_or_value(text: str, sentence: str) -> None:
    assert describe_spark_error(RuntimeError(text)) == sentence


def test_a_spark_exception_keeps_its_condition() -> None:
    error = AnalysisException(message="[TABLE_OR_VIEW_NOT_FOUND] The table `x` cannot be found.")
    assert describe_spark_error(error) == (
        "TABLE_OR_VIEW_NOT_FOUND: The table `x` cannot be found."
    )


def test_a_long_error_is_cut() -> None:
    assert len(describe_spark_error(RuntimeError("x" * 10_000))) <= MAX_CHARS + 1


@pytest.mark.parametrize("kind", [SpecError, DataError])
def test_an_error_of_ours_comes_back_from_a_worker_as_itself(kind: type[Exception]) -> None:
    name = f"arclight.errors.{kind.__name__}"
    said = f"{WORKER}\nThe above was the cause:\n{name}: no 'x'; mend it.\n"
    found = told_by_worker(RuntimeError(f"{said}\n\tat org.apache.Foo(Foo.scala:1)"))
    assert type(found) is kind
    assert str(found) == "no 'x'; mend it."


@pytest.mark.parametrize(
    "text", [WORKER, CAST, "arclight.errors.DataError: x", f"{WORKER}\narclight.errors.Nothing: x"]
)
def test_what_is_not_ours_is_not_taken_for_it(text: str) -> None:
    assert told_by_worker(RuntimeError(text)) is None


class Gone:
    """A Java exception whose JVM has ended."""

    def toString(self) -> str:
        raise Py4JNetworkError("no connection")

    __str__ = toString


def test_an_error_that_outlives_its_jvm_is_still_told() -> None:
    error = RuntimeError("x")
    error.java_exception = Gone()  # type: ignore[attr-defined]
    assert describe_spark_error(error) == "RuntimeError in a JVM that has ended."
    assert list(texts_of(error)) == ["RuntimeError in a JVM that has ended."]
