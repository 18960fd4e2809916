"""Sources to DataFrames, each under its contract, whatever wrote them."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql.types import (
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
)

from arclight.errors import (
    ArclightError,
    DataError,
    MissingError,
    SchemaError,
    SpecError,
    printable,
)
from arclight.schema import Column, SourceContract
from cluster.spark_errors import JVM_ERRORS, describe_spark_error, texts_of
from spark.badrecord import explain_rows, wrong_header
from spark.csv_header import refuse_packed
from spark.csv_quotes import LOOKED_AT, refuse_open_quotes, refuse_other_bytes
from spark.declared import refuse_declared
from spark.footers import read_footers
from spark.json_leftovers import (
    VARIANT,
    refuse_more_in_a_file,
    refuse_more_in_a_line,
    refuse_other_case,
)
from spark.text_values import refuse_odd_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyspark.sql import DataFrame, DataFrameReader, SparkSession

    from arclight.inputs import SourceFiles
    from arclight.spec import Source
    from spark.footers import Footers

# Rows that cannot be parsed must stop the run: PERMISSIVE makes nulls of them, silently.
# A quote in a quoted text is written twice, as RFC 4180 says and pandas, Polars, DuckDB and
# spreadsheets do; Spark's own sign for it is a backslash, and what has another one stays as it is.
_STRICT = {
    "csv": {"mode": "FAILFAST", "unescapedQuoteHandling": "RAISE_ERROR"},
    "json": {"mode": "FAILFAST"},
}
_MOST_TRIED = 200  # files opened one by one to find the one that cannot be
_NO_CLASS = re.compile(r"java\.lang\.ClassNotFoundException: ([\w.$]+)")


@dataclass(frozen=True)
class SourceTable:
    """A source as Spark reads it.

    Attributes:
        name: the view's name in SQL.
        table: the rows.
        contract: columns and types, nanosecond timestamps and zone-less ones already as UTC.
        rows: from the footers, None when only the scan will tell.
        counted: the observation that counts rows during the scan, None when `rows` is known.
    """

    name: str
    table: DataFrame
    contract: SourceContract
    rows: int | None
    counted: Observation | None

    def row_count(self) -> int:
        """Return the rows read; after the scan.

        Spark leaves the scan's count out with a part of the plan that gives no row or no column;
        then the source's rows are counted by themselves.

        Raises:
            DataError, SchemaError: a row of a source that was left out cannot be read.
        """
        if self.rows is not None or self.counted is None:
            return self.rows or 0
        try:
            return int(self.counted.get["rows"])
        except JVM_ERRORS:
            pass
        try:
            return int(self.table.count())
        except JVM_ERRORS as error:
            raise explain_rows(error, f"source '{self.name}' cannot be read") from error


class _Found(NamedTuple):
    """What reads a source, with its schema, and what it gives."""

    reader: DataFrameReader
    table: DataFrame


def read_source(
    session: SparkSession, name: str, source: Source, files: SourceFiles
) -> SourceTable:
    """Open a source.

    Raises:
        DataError, SchemaError: a file is damaged, or files disagree.
        MissingError: Spark finds nothing at the path, or has no reader or driver for it.
        SpecError: Spark does not take the schema or an option.
    """
    footers = read_footers(name, source, files.files)
    if footers is not None and source.ddl is not None:
        parts = {part.partition("=")[0].lower() for f in files.files for part in f.parent.parts}
        schema = _struct(session, name, source)
        refuse_declared(name, source.format, schema, footers, parts)
    refuse_packed(name, source, files.files)
    table = _load(session, name, source, files)
    _check_files(name, table, files)
    _distinct_names(name, [field.name for field in table.schema.fields])
    table = _in_utc(table, footers)
    contract = SourceContract(
        source=name,
        columns=tuple(
            Column(name=field.name, type=field.dataType.simpleString())
            for field in table.schema.fields
        ),
    )
    counted = None
    if footers is None:
        counted = Observation(f"rows of {name}")
        table = table.observe(counted, F.count(F.lit(1)).alias("rows"))
    return SourceTable(name, table, contract, footers.rows if footers else None, counted)


def _check_files(name: str, table: DataFrame, files: SourceFiles) -> None:
    """Refuse where Spark would read other files than those that were listed and counted.

    Raises:
        DataError: one is named.
    """
    if not files.files:
        return
    read = {unquote(urlsplit(uri).path) for uri in table.inputFiles()}
    listed = {str(file) for file in files.files}
    if read != listed:
        odd = printable(min(read ^ listed))
        raise DataError(
            f"source '{name}': Spark reads {len(read):,} of its {len(listed):,} files, and not as "
            f"they are named ('{odd}' is in one list alone); rename that file."
        )


def _struct(session: SparkSession, name: str, source: Source) -> StructType:
    """Return a source's schema as Spark reads it."""
    try:
        return session.createDataFrame([], source.ddl).schema
    except JVM_ERRORS as error:
        raise SpecError(f"sources.{name}.schema: {describe_spark_error(error)}") from error


def _load(session: SparkSession, name: str, source: Source, files: SourceFiles) -> DataFrame:
    _refuse_encoding(session, name, source)
    reader = session.read.format(source.format).options(**_STRICT.get(source.format, {}))
    if source.format == "csv":
        reader = reader.option("escape", _option(source.options.get("quote", '"')))
    reader = reader.options(**{k: _option(v) for k, v in source.options.items()})
    if _is_held_to_its_header(source, files):
        reader = reader.option("enforceSchema", "false")
    if source.ddl is not None:
        try:
            reader = reader.schema(source.ddl)
        except JVM_ERRORS as error:
            raise SpecError(f"sources.{name}.schema: {describe_spark_error(error)}") from error
    try:
        table = reader.load(_paths(files))
        _ = table.schema  # what is wrong with a source shows when its columns are asked for
    except JVM_ERRORS as error:
        raise _explain(name, source, error, _culprit(reader, files.files)) from error
    if source.format == "csv":
        _refuse_odd_csv(session, name, source, files)
    if source.format == "json":
        _refuse_more_values(session, name, source, files)
    _refuse_odd_values(session, name, source, files, _Found(reader, table))
    return table


def _refuse_encoding(session: SparkSession, name: str, source: Source) -> None:
    """Refuse an encoding that Java has not: Spark says so when rows are read, of no source."""
    named = source.options.get("encoding")
    if named is None or _is_charset(session, str(named)):
        return
    try:
        known = codecs.lookup(str(named)).name  # latin-1 is a word of Python's alone
    except LookupError:
        known = ""
    hint = f" Did you mean '{known}'?" if known and _is_charset(session, known) else ""
    raise SpecError(
        f"sources.{name}.options: encoding must be one that Java knows, such as utf-8, iso-8859-1 "
        f"or windows-1252, got '{printable(named)}'.{hint}"
    )


def _is_charset(session: SparkSession, name: str) -> bool:
    try:
        return bool(session._jvm.java.nio.charset.Charset.isSupported(name))
    except JVM_ERRORS:  # a name that none can have
        return False


def _refuse_odd_csv(session: SparkSession, name: str, source: Source, files: SourceFiles) -> None:
    if _is_utf8(source):
        refuse_other_bytes(name, files.files)
    refuse_open_quotes(name, source, _first_lines(session, name, source, files))


def _refuse_more_values(
    session: SparkSession, name: str, source: Source, files: SourceFiles
) -> None:
    if _option(source.options.get("multiLine", False)).lower() == "true":
        refuse_more_in_a_file(name, files.files)
    elif _is_utf8(source):
        kept = {k: _option(v) for k, v in source.options.items() if k == "lineSep"}
        refuse_more_in_a_line(name, session.read.options(**kept).text(_paths(files)))


def _is_utf8(source: Source) -> bool:
    options = {key.lower(): str(value) for key, value in source.options.items()}
    named = options.get("encoding", options.get("charset", "utf-8"))
    return named.lower() in ("utf-8", "utf8")


def _first_lines(
    session: SparkSession, name: str, source: Source, files: SourceFiles
) -> Iterator[str]:
    """Return lines as they stand; none where they are not in UTF-8."""
    if not _is_utf8(source):
        return iter(())
    text = session.read.text(_paths(files)).limit(LOOKED_AT)
    try:
        return (row[0] for row in text.collect())
    except JVM_ERRORS as error:
        raise explain_rows(error, f"source '{name}' cannot be read") from error


def _refuse_odd_values(
    session: SparkSession, name: str, source: Source, files: SourceFiles, found: _Found
) -> None:
    """Refuse text of which Spark makes another value than it says, or none."""
    if source.format not in ("csv", "json"):
        return
    if source.format == "json" and source.ddl is not None:
        kept = {k: _option(v) for k, v in source.options.items()}
        reader = session.read.format("json").options(**kept, singleVariantColumn=VARIANT)
        refuse_other_case(name, reader.load(_paths(files)), found.table.columns)
    # all of it as text: what does not fit its type is told when the rows are read
    schema = found.table.schema
    fields = StructType([StructField(f.name, StringType()) for f in schema.fields])
    text = found.reader.option("inferSchema", "false").schema(fields).load(_paths(files))
    refuse_odd_values(name, source, text, schema)


def _is_held_to_its_header(source: Source, files: SourceFiles) -> bool:
    """Whether each file's header must be the columns: Spark goes by position without a word.

    A single file without a schema is left alone: its header is what the columns are made of, but
    a field without a name, as pandas writes for its index, gets one.
    """
    has_header = _option(source.options.get("header", False)).lower() == "true"
    return (
        source.format == "csv" and has_header and (source.ddl is not None or len(files.files) != 1)
    )


def _culprit(reader: DataFrameReader, files: Sequence[Path]) -> Path | None:
    """Return the first file that cannot be opened alone, None when each can or they are many."""
    if len(files) == 1:
        return files[0]
    for file in files if len(files) <= _MOST_TRIED else ():
        try:
            _ = reader.load([_literal(file)]).schema
        except JVM_ERRORS:
            return file
    return None


def _paths(files: SourceFiles) -> str | list[str] | None:
    """Return the listed files, so that Spark reads those and no other.

    Folders that carry values, as in `year=2013/part-0.parquet`, are left to Spark to list, since
    the values would be lost.
    """
    root = str(files.path)
    if not files.files:
        return files.path
    if files.carried:
        return _literal(Path(root)) if Path(root).exists() else root
    return [_literal(f) for f in files.files]


def _literal(path: Path) -> str:
    """Return a path as Spark takes it, to which each one is a pattern."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", str(path))


def _option(value: str | int | float | bool) -> str:  # noqa: FBT001
    return str(value).lower() if isinstance(value, bool) else str(value)


def _distinct_names(name: str, columns: list[str]) -> None:
    """Refuse names that SQL cannot tell apart, since it ignores their case."""
    seen: dict[str, str] = {}
    for column in columns:
        twin = seen.setdefault(column.lower(), column)
        if twin is not column:
            raise SchemaError(
                f"source '{name}': columns '{twin}' and '{column}' cannot be told apart in SQL, "
                "which ignores case; rename one of them where the file is written."
            )


def _in_utc(table: DataFrame, footers: Footers | None) -> DataFrame:
    """Make every instant a microsecond in UTC; times without a zone are taken as UTC."""
    nanos = set(footers.nanosecond_columns) if footers else set()
    columns = []
    for field in table.schema.fields:
        column = F.col(_quoted(field.name))
        # INT96 times are nanoseconds in the footer too, but come as timestamps
        if field.name in nanos and isinstance(field.dataType, LongType):
            q = _quoted(field.name)
            micros = F.expr(f"({q} - pmod({q}, 1000)) DIV 1000")  # floor, also before 1970
            columns.append(F.timestamp_micros(micros).alias(field.name))
        elif isinstance(field.dataType, TimestampNTZType):
            columns.append(column.cast("timestamp").alias(field.name))
        else:
            columns.append(column)
    return table.select(*columns)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _explain(
    name: str, source: Source, error: BaseException, culprit: Path | None
) -> ArclightError:
    said = "\n".join(texts_of(error))
    missing = _missing(source, said)
    if missing:
        return MissingError(f"source '{name}': {missing}")
    if "[INVALID_PARAMETER_VALUE" in said:
        return SpecError(f"sources.{name}.options: {describe_spark_error(error)}")
    what = f"{source.format} at '{source.path}'" if culprit is None else f"'{printable(culprit)}'"
    begin = f"source '{name}' ({what})"
    if source.format == "json" and "MALFORMED_RECORD" in said:
        return DataError(f"{begin} holds a line that is no JSON object; {_json_way_out(source)}.")
    if source.format == "jdbc":
        return DataError(f"source '{name}' (jdbc): {describe_spark_error(error)}")
    return wrong_header(error) or DataError(
        f"{begin} cannot be read as {source.format}: {describe_spark_error(error)} Write it "
        "again, or remove it."
    )


def _missing(source: Source, said: str) -> str:
    """Return what is not there, and the way out; empty when that was not it."""
    jar = "put its jar on the cluster (spark.jars in the profile)."
    if "[PATH_NOT_FOUND]" in said:
        return f"'{source.path}' does not exist; mend its path."
    if "[DATA_SOURCE_NOT_FOUND]" in said:
        return f"Spark has no reader for format {source.format}; {jar}"
    driver = _NO_CLASS.search(said)
    if source.format == "jdbc" and (driver or "No suitable driver" in said):
        which = f"'{driver[1]}'" if driver else "of its url"
        return f"Spark has no JDBC driver {which}; {jar}"
    return ""


def _json_way_out(source: Source) -> str:
    if _option(source.options.get("multiLine", False)).lower() == "true":
        return "mend it"
    return (
        "mend it, or set options: {multiLine: true} if the file is one array or one object over "
        "several lines"
    )
