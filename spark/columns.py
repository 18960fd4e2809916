"""What a spec says of the joined table's columns, held against them before any row is read.

The ETL asks with the columns Spark gives, `arclight check` with what the sources' footers tell:
one implementation, so that the second never says less than it could or other than the first.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from arclight.errors import ArclightError, SchemaError, SpecError, nearest, printable
from arclight.expression import check_syntax, compile_expression
from arclight.expression.bounds import one_line
from arclight.layout import check_names, compile_derived, lay_out
from spark.labels import check_label_type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from arclight.layout import TableLayout
    from arclight.spec import Spec
    from arclight.spec_file import LoadedSpec

PANDAS_INDEX = re.compile(r"__index_level_\d+__|Unnamed: 0(\.\d+)?")
NO_NAME, NEXT_NO_NAME = "_c0", "_c1"
"""What Spark calls the first columns without a name: of a CSV with a header one that pandas left
without, which is its index; of a CSV without one they are all called so."""
# the field that a message of ours begins with, such as `etl.checks.price_ok: `
_FIELD = re.compile(r"((?:sources|etl|features|evaluate)(?:\.[^:.]+)*): ")


def check_columns(schema: pa.Schema, loaded: LoadedSpec) -> TableLayout:
    """Hold a spec against a joined table whose raw types are all known, and lay it out.

    Raises:
        SpecError: a field names a column that is not there, or one of a type it cannot have; the
            message begins with the field's file and line.
    """
    spec = loaded.spec
    with located(loaded):
        _check_expressions({field.name: field.type for field in schema}, spec)
        layout = lay_out(schema, spec)
        _check_segments({f.name for f in layout.features.features if f.type == "number"}, spec)
        check_label_type(spec.task, spec.etl.label, schema.field(spec.etl.label).type)
        return layout


def check_known_columns(
    columns: Sequence[tuple[str, pa.DataType | None]], loaded: LoadedSpec
) -> None:
    """Hold a spec against a joined table of which some raw types are not known.

    Args:
        columns: every column with its raw type, None when the type cannot be known.
        loaded: the spec.

    Raises:
        SpecError: as `check_columns`.
        SchemaError: two columns share a name, or one is the index of a pandas frame.
    """
    spec, names = loaded.spec, [name for name, _ in columns]
    check_distinct(names)
    with located(loaded):
        check_dropped(names, spec.etl.drop)
    check_indexes(names, {*spec.etl.drop, *spec.etl.key})
    if all(kind is not None for _, kind in columns):
        check_columns(pa.schema(columns), loaded)
        return
    with located(loaded):
        check_names(names, spec)
        _check_expressions(dict(columns), spec)
        _check_segments(_numbers(columns, spec), spec)
        label = dict(columns)[spec.etl.label]
        if label is not None:
            check_label_type(spec.task, spec.etl.label, label)


@contextmanager
def located(loaded: LoadedSpec) -> Iterator[None]:
    """Let what is wrong with a field say its file and line.

    Raises:
        SpecError: as it was raised, its message behind `FILE:LINE: `.
    """
    try:
        yield
    except SpecError as error:
        where = loaded.where(*_path(error.message, loaded.spec))
        raise SpecError(f"{where}: {error.message}") from error


def _path(message: str, spec: Spec) -> tuple[str, ...]:
    """Return where the field stands that a message begins with, the ETL when it names none."""
    found = _FIELD.match(message)
    if found is None:
        return ("etl",)
    path = tuple(found[1].split("."))
    if len(path) == 3 and path[:2] == ("etl", "checks"):
        place = [check.name for check in spec.etl.checks].index(path[2])
        return ("etl", "checks", str(place), "expect")
    return ("etl", "sql_file") if path == ("etl", "sql") and spec.etl.sql_file else path


def _check_segments(numbers: Collection[str], spec: Spec) -> None:
    """Refuse to break the report down by a number: it must have levels."""
    for name in spec.evaluate.segments:
        if name in numbers:
            raise SpecError(
                f"evaluate.segments: '{printable(name)}' is a number to the model, which has no "
                "levels to report on; name it in features.categorical if it is whole, or derive "
                "text from it, as in CASE WHEN age < 40 THEN 'young' ELSE 'old' END; name that."
            )


def _numbers(columns: Sequence[tuple[str, pa.DataType | None]], spec: Spec) -> set[str]:
    """Return the columns that are certain to be numbers to the model."""
    etl, listed = spec.etl, spec.features.categorical or ()
    other = {*etl.key, *etl.drop, *listed, *spec.features.derive, etl.time}
    return {
        name
        for name, kind in columns
        if name not in other
        and kind is not None
        and (pa.types.is_floating(kind) or pa.types.is_integer(kind))
    }


def _check_expressions(columns: Mapping[str, pa.DataType | None], spec: Spec) -> None:
    for check in spec.etl.checks:
        with _named(f"etl.checks.{check.name}"):
            _check_truth(check.expect, columns)
    closed = {spec.etl.label, *spec.etl.drop}
    for name, text in spec.features.derive.items():
        allowed = {column: kind for column, kind in columns.items() if column not in closed}
        with _named(f"features.derive.{name}"):
            told = _is_told(text, allowed)
        if told:
            compile_derived(name, text, _schema(allowed), spec)


def _check_truth(text: str, columns: Mapping[str, pa.DataType | None]) -> None:
    """Refuse a check that uses what is not there, or that is neither true nor false."""
    if not _is_told(text, columns):
        return
    kind = compile_expression(text, _schema(columns)).type
    if not pa.types.is_boolean(kind):
        raise SpecError(
            f"the expression '{one_line(text)}' must be true or false, but is {kind}; compare "
            f"it with something, as in {one_line(text, 60)} > 0."
        )


def _is_told(text: str, columns: Mapping[str, pa.DataType | None]) -> bool:
    """Whether it is certain what compiling will say: all types are known, or a column is not."""
    used = check_syntax(text)
    absent = any(name not in columns for name in used)
    return absent or all(columns[name] is not None for name in used)


def _schema(columns: Mapping[str, pa.DataType | None]) -> pa.Schema:
    # a column of unknown type stands for its name alone: nothing that uses it is compiled
    return pa.schema([(name, kind or pa.null()) for name, kind in columns.items()])


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except ArclightError as error:
        raise SpecError(f"{field}: {error.message}") from error


def check_distinct(columns: Sequence[str]) -> None:
    """Refuse names that SQL cannot tell apart.

    Raises:
        SchemaError: two columns differ by case at most.
    """
    lower = [name.lower() for name in columns]
    twins = sorted({name for name in columns if lower.count(name.lower()) > 1})
    if twins:
        names = ", ".join(f"'{printable(name)}'" for name in twins)
        raise SchemaError(
            f"etl.sql gives more than one column named {names}; select the columns you want by "
            "name, or rename one with AS."
        )


def check_indexes(columns: Sequence[str], named: Collection[str]) -> None:
    """Refuse the row numbers that pandas writes: as a feature they tell the order of the rows.

    Args:
        columns: of the joined table.
        named: those that are dropped, or a key.

    Raises:
        SchemaError: another column is the index of a pandas frame.
    """
    for name in columns:
        is_left = name == NO_NAME and NEXT_NO_NAME not in columns
        if (is_left or PANDAS_INDEX.fullmatch(name)) and name not in named:
            raise SchemaError(
                f"column '{name}' is the index of a pandas frame, not data; write the file with "
                "index=False, name it in etl.drop, or give it another name in etl.sql."
            )


def check_dropped(columns: Sequence[str], drop: Collection[str]) -> None:
    """Refuse to drop what is not there.

    Raises:
        SpecError: the table has no such column.
    """
    for name in drop:
        if name not in columns:
            raise SpecError(
                f"etl.drop: the joined table has no column '{name}'.{nearest(name, columns)} "
                f"It has: {', '.join(columns)}."
            )


def nested_refused(name: str, kind: str) -> SchemaError:
    """Return what refuses a column that has no plain form."""
    return SchemaError(
        f"column '{printable(name)}' is {kind}, which is nested or has no plain form; select its "
        "parts in etl.sql or name it in etl.drop."
    )
