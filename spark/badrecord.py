"""What a reader met that is no row of its source, found among the causes of a Spark failure."""

from __future__ import annotations

import errno
import os
import re

from arclight.disk import disk_full
from arclight.errors import ArclightError, DataError, SchemaError, printable
from cluster.spark_errors import describe_spark_error, texts_of, told_by_worker

LONGEST = 80
FULL = re.compile(r"No space left on device(?:: '([^'\n]+)')?")
UNREAD_FILE = re.compile(
    r"(FAILED_READ_FILE\.\w+): Encountered error while reading file (\S+?)\.?$"
)
# what Spark says of a subquery that failed, whatever the reason
WAITED = "Exception thrown in awaitResult"
CONDITION = re.compile(r"[A-Z][A-Z0-9_.]+: ")
RECORD = re.compile(
    r"Malformed records are detected in record parsing: (.*?)\.?\s*Parse Mode", re.S
)
# said of a line whose fields are not as many as the columns, and of nothing else
LINE = re.compile(r"\[MALFORMED_CSV_RECORD\] Malformed CSV record: (.*?)(?:\s*SQLSTATE|$)", re.S)
QUOTE = re.compile(
    r"Unescaped quote character .*? inside quoted value.*?content parsed=(.*?)(?:\nParser|$)", re.S
)
HEADER_FILE = re.compile(r"\nCSV file: (\S+)")
HEADER_NAMES = re.compile(
    r"CSV header does not conform to the schema\.\s*Header: (.*)\s*Schema: (.*)\s*"
    r"Expected: (.*) but found: (.*)"
)
HEADER_LENGTHS = re.compile(r"Number of column in CSV header .*\s*Header length: (\d+), .*: (\d+)")
_BETWEEN = "options.sep is the sign between fields (a comma, unless it is said)"
_WITHIN = (
    "options.escape is the sign before a quote in a quoted text (a quote, unless it is said), and "
    "multiLine: true lets it go over several lines."
)
QUOTING = f"mend it, or say how it is written: {_WITHIN}"
FIELDS = f"mend it, or say how it is written: {_BETWEEN}, {_WITHIN}"
HEADER_WAY_OUT = (
    "a CSV with a header must have the schema's columns, or those of the source's first file, in "
    "the same order: name them so in the source's schema, and choose or rename them in etl.sql."
)


def explain_rows(error: BaseException, what: str) -> ArclightError:
    """Return the error of ours for rows that could not be read or computed.

    Args:
        error: what a Spark job raised.
        what: what failed, to begin the sentence with.
    """
    told = told_by_worker(error) or wrong_header(error) or full_disk(error)
    return told or DataError(f"{what}: {describe_bad_rows(error)}")


def full_disk(error: BaseException) -> ArclightError | None:
    """Return what tells of a full disk that a worker or the JVM met; None for another failure."""
    for text in texts_of(error):
        found = FULL.search(text)
        if found is not None and found[1]:
            return disk_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), found[1]))
        if found is not None:
            return ArclightError(
                "the disk of the store, or the one on which Spark sorts (TMPDIR), has no room "
                f"({os.strerror(errno.ENOSPC)}); nothing was published: free space, and run the "
                "same command again."
            )
    return None


def wrong_header(error: BaseException) -> SchemaError | None:
    """Return what refuses a file whose header is not the schema; None for another failure."""
    for text in texts_of(error):
        names, lengths = HEADER_NAMES.search(text), HEADER_LENGTHS.search(text)
        if names is None and lengths is None:
            continue
        file = HEADER_FILE.search(text)
        begin = f"the file '{printable(file[1])}'" if file else "a CSV file"
        if names is not None:
            header, schema, expected, found = (printable(part.strip()) for part in names.groups())
            what = f"has '{found}' in its header where the schema has '{expected}'"
            return SchemaError(
                f"{begin} {what} (header: {header}; schema: {schema}); {HEADER_WAY_OUT}"
            )
        if lengths is not None:
            what = f"has {lengths[1]} columns in its header, but the schema has {lengths[2]}"
            hint = f" ({_BETWEEN})" if lengths[1] == "1" else ""
            return SchemaError(f"{begin} {what}{hint}; {HEADER_WAY_OUT}")
    return None


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
    causes = (describe_spark_error(RuntimeError(said)) for said in texts_of(error))
    return next((cause for cause in causes if CONDITION.match(cause)), text)


def bad_record(error: BaseException) -> str:
    """Return what to add to a message about a file: the record, short and printable, or nothing.

    Spark says which file failed in one exception and which record in a cause of it: the line as
    it stands when its fields are too many or too few, else the values it could read, with null
    where it could not.
    """
    texts = list(texts_of(error))
    for found in filter(None, map(LINE.search, texts)):
        return (
            f" The first bad record reads '{printable(found[1].strip(), LONGEST)}', which has "
            f"more or fewer fields than there are columns; {FIELDS}"
        )
    for found in filter(None, map(QUOTE.search, texts)):
        return (
            f" The first bad record reads '…{printable(found[1].strip(), LONGEST)}' where a quote "
            f"in a quoted text is neither its end nor written as one; {QUOTING}"
        )
    for found in filter(None, map(RECORD.search, texts)):
        return (
            f" The first bad record reads '{printable(found[1].strip(), LONGEST)}' (null: "
            "could not be read as its type); mend it, or read the column as a string."
        )
    return ""
