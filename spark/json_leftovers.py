"""JSON that Spark reads by half: more behind a first value, and keys in another case."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyspark.sql import functions as F

from arclight.errors import DataError, SchemaError, printable
from cluster.spark_errors import JVM_ERRORS
from spark.badrecord import LONGEST, explain_rows
from spark.inarrow import map_in_arrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pyspark.sql import DataFrame

LOOKED_AT_BYTES = 1 << 16
"""Of a line that may hold more than one value, and of a file that must hold one."""
_VALUES = "coalesce(json_array_length(concat('[', {}, ']')), 2)"
# what Spark's parser counts otherwise is looked at again; a comma at the end takes no row away
_MAY_HOLD_MORE = (
    f"{_VALUES.format('value')} > 1 AND "
    + _VALUES.format(r"regexp_replace(value, r',\s*$', '')")
    + " > 1"
)
VARIANT = "one"
"""The column of rows that are read as one variant each."""
_LOOKED_AT = 1000
_OBJECT = "MAP<STRING, VARIANT>"
_KEYS = (
    f"explode(transform(coalesce(try_cast({VARIANT} AS ARRAY<{_OBJECT}>), "
    f"array(try_cast({VARIANT} AS {_OBJECT}))), o -> map_keys(o)))"
)
_BLANK = "\ufeff \t\r\n"


def refuse_more_in_a_line(name: str, lines: DataFrame) -> None:
    """Refuse a line with more behind its first value: Spark would pass over it without a word.

    Args:
        name: of the source.
        lines: all of it, as text.

    Raises:
        DataError: there is one, or a file cannot be read.
    """
    start = F.substring(F.col("value").cast("binary"), 1, LOOKED_AT_BYTES)
    suspect = lines.where(_MAY_HOLD_MORE).select("_metadata.file_path", start.alias("start"))
    try:
        found = map_in_arrow(suspect, _with_more, "file string, start string").take(1)
    except JVM_ERRORS as error:
        raise explain_rows(error, f"source '{name}' cannot be read") from error
    for file, line in found:
        raise DataError(
            f"source '{name}': '{printable(unquote(urlsplit(file).path))}' must have one JSON "
            "object or array in a line, but has a line with more behind it, which Spark would "
            f"pass over: it begins '{printable(line, LONGEST)}'; write each on a line of its own."
        )


def refuse_more_in_a_file(name: str, files: Iterable[Path]) -> None:
    """Refuse a file with more behind its first value, where that one is not long.

    Raises:
        DataError: there is one.
    """
    for file in files:
        try:
            with pa.input_stream(str(file), compression="detect") as stream:
                start = stream.read(LOOKED_AT_BYTES)
        except (OSError, pa.ArrowException):  # it is the reader's to say what is wrong with it
            continue
        if _has_more(start):
            raise DataError(
                f"source '{name}': '{printable(file)}' must be one JSON array or object, as "
                "multiLine: true says, but has more behind it, which Spark would pass over; take "
                "multiLine out if each line is an object, or write one array."
            )


def refuse_other_case(name: str, objects: DataFrame, columns: Iterable[str]) -> None:
    """Refuse keys that differ from a declared column by case alone: Spark reads null for them.

    Args:
        name: of the source.
        objects: its rows, each as a variant.
        columns: as the source's schema names them.

    Raises:
        SchemaError: one of the first objects has such a key, and none of the column's name.
    """
    try:
        found = objects.limit(_LOOKED_AT).selectExpr(_KEYS).distinct().collect()
    except JVM_ERRORS:  # it is the reader's to say what is wrong with it
        return
    declared = {column.lower(): column for column in columns}
    for keys in (row[0] or () for row in found):
        for key in keys:
            column = declared.get(key.lower(), key)
            if column not in keys:
                raise SchemaError(
                    f"source '{name}': sources.{name}.schema names the column "
                    f"'{printable(column)}', but an object has the key '{printable(key)}', and "
                    "of keys in another case Spark reads nothing; write it in the schema as it "
                    "is there."
                )


def _with_more(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        files, starts = (column.to_pylist() for column in batch.columns)
        found = [
            (file, start.decode(errors="replace"))
            for file, start in zip(files, starts, strict=True)
            if _has_more(start)
        ]
        yield pa.record_batch(
            {
                "file": pa.array([file for file, _ in found], pa.string()),
                "start": pa.array([start for _, start in found], pa.string()),
            }
        )


def _has_more(start: bytes) -> bool:
    """Whether text goes on behind its first value; not where that one is cut, or read as none."""
    text = start.decode(errors="replace").lstrip(_BLANK)
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return bool(text[end:].strip(_BLANK + ","))
