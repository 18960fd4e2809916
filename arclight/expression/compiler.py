"""From text and a schema to a function over batches: types are settled once, here."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from arclight.errors import DataError, SpecError, printable
from arclight.expression import (
    arithmetic,
    casts,
    comparison,
    logic,
    mathematics,
    strings,
    times,
)
from arclight.expression.bounds import one_line
from arclight.expression.columns import Column, arrow_array
from arclight.expression.convert import columns_of
from arclight.expression.kinds import ARROW, Kind
from arclight.expression.nodes import Call, Cast, Chain, Literal, Name, Node
from arclight.expression.reading import reader_of
from arclight.expression.steps import Built, Frame, Step, constant, fold, literal_step
from arclight.expression.syntax import nearest_of, parse
from arclight.utf8 import broken_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arclight.expression.steps import Builder, Run

BUILDERS: dict[str, Builder] = {
    **arithmetic.BUILDERS,
    **mathematics.BUILDERS,
    **comparison.BUILDERS,
    **logic.BUILDERS,
    **strings.BUILDERS,
    **times.BUILDERS,
    "if": comparison.BUILDERS["case"],
}

Reader = tuple[str, pa.DataType, "Callable[[pa.Array], Column]"]


class Program:
    """A compiled expression: what to read from a batch, and what to compute from it."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        """Compile a text for batches of a schema.

        Raises:
            SpecError: the text is no expression, names an unknown column, or its types do not fit.
        """
        node = parse(text)
        self.columns = columns_of(node)
        self.fields = tuple(_field(text, schema, name) for name in self.columns)
        self._readers: list[Reader] = []
        kinds: dict[str, tuple[int, Kind]] = {}
        for index, field in enumerate(self.fields):
            kind, read = _reader(field)
            self._readers.append((field.name, field.type, read))
            kinds[field.name] = (index, kind)
        step = _compile(node, kinds)
        if step.kind is Kind.NULL:
            raise SpecError(
                f"The expression '{one_line(text)}' must have a type, but it is always NULL; "
                "write CAST(… AS type)."
            )
        self._kind, self._run = step.kind, step.run
        self.type = ARROW[step.kind]

    def run(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.BooleanArray | None]:
        """Return the values and the failed rows of a batch.

        A row with text that is not UTF-8 fails, where a function of texts fails on it.
        """
        try:
            return self._evaluate(batch)
        except (pa.ArrowInvalid, UnicodeDecodeError):
            broken = _broken_rows(batch, self.columns)
            if not broken.any():
                raise
            if batch.num_rows == 1:
                return pa.nulls(1, self.type), pa.array([True])
        # each by itself: whether it fails must not hang on the rows beside it
        parts = [self.run(batch.slice(place, 1)) for place in np.flatnonzero(broken)]
        parts.append(self.run(batch.filter(pa.array(~broken))))
        order = np.argsort(np.concatenate([np.flatnonzero(broken), np.flatnonzero(~broken)]))
        none = (pa.array(np.zeros(len(values), bool)) for values, _ in parts)
        bad = [one if one is not None else no for (_, one), no in zip(parts, none, strict=True)]
        values = pa.concat_arrays([values for values, _ in parts])
        return values.take(pa.array(order)), pa.concat_arrays(bad).take(pa.array(order))

    def _evaluate(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.BooleanArray | None]:
        size = batch.num_rows
        frame = [_read(batch, *reader) for reader in self._readers]
        with np.errstate(all="ignore"):
            found = self._run(frame)
        invalid = None
        if found.bad is not None and found.bad.any() and size:
            invalid = pa.array(np.broadcast_to(found.bad, (size,)))
        return arrow_array(found, self._kind, size), invalid


def _broken_rows(batch: pa.RecordBatch, columns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return the rows with text that is not UTF-8 in some columns."""
    broken = np.zeros(batch.num_rows, dtype=np.bool_)
    for name in columns:
        values = batch.column(name)
        kind, _ = _reader(batch.schema.field(name))
        found = broken_texts(values) if kind is Kind.TEXT else None
        if found is not None:
            broken |= found
    return broken


def _field(text: str, schema: pa.Schema, name: str) -> pa.Field:
    if schema.get_field_index(name) < 0:
        known = list(dict.fromkeys(schema.names))
        raise SpecError(
            f"The expression '{one_line(text)}' must use columns that exist once, got "
            f"'{printable(name)}'; the columns are {printable(', '.join(known))}."
            f"{nearest_of(name, known)}"
        )
    return schema.field(name)


def _reader(field: pa.Field) -> tuple[Kind, Callable[[pa.Array], Column]]:
    found = reader_of(field.type)
    if found is None:
        raise SpecError(
            f"Column '{printable(field.name)}' must be a number, boolean, string, date or "
            f"timestamp to be used in an expression, got {field.type}; convert it in etl.sql."
        )
    return found


def _read(
    batch: pa.RecordBatch, name: str, expected: pa.DataType, read: Callable[[pa.Array], Column]
) -> Column:
    index = batch.schema.get_field_index(name)
    if index < 0:
        raise DataError(
            f"The batch must have column '{printable(name)}', got "
            f"{printable(', '.join(batch.schema.names))}; read it with the source's schema."
        )
    array = batch.column(index)
    if array.type != expected:
        raise DataError(
            f"Column '{printable(name)}' must be {expected} as it was compiled, got "
            f"{array.type}; cast the batch to the schema first."
        )
    return read(array)


def _compile(node: Node, kinds: dict[str, tuple[int, Kind]]) -> Step:
    match node:
        case Literal(value, kind):
            return literal_step(kind, constant(kind, value))
        case Name(column):
            index, kind = kinds[column]
            return Step(kind, operator.itemgetter(index))
        case Cast(value, to, safe):
            step = _compile(value, kinds)
            return _applied(casts.build_cast(step, to, safe=safe), (step,))
        case Call(name, args):
            steps = [_compile(arg, kinds) for arg in args]
            return _applied(BUILDERS[name](name, steps), steps)
        case Chain():
            return _compile_chain(node, kinds)


def _applied(built: Built, given: Sequence[Step]) -> Step:
    """Return the step of a function over its arguments; over constants it is a constant."""
    steps = given if built.steps is None else built.steps
    if all(step.literal is not None for step in steps):
        return literal_step(built.kind, fold(built.kind, built.apply, steps))
    return Step(built.kind, _call(built.apply, [step.run for step in steps]))


def _call(apply: Callable[..., Column], runs: list[Run]) -> Run:
    if len(runs) == 1:
        (only,) = runs
        return lambda frame: apply(only(frame))
    if len(runs) == 2:
        first, second = runs
        return lambda frame: apply(first(frame), second(frame))
    return lambda frame: apply(*[run(frame) for run in runs])


def _compile_chain(node: Chain, kinds: dict[str, tuple[int, Kind]]) -> Step:
    """Compile a run of operators to one loop, whatever its length."""
    total = _compile(node.first, kinds)
    start = total
    rest: list[tuple[Callable[..., Column], Run]] = []
    for name, operand in node.rest:
        step = _compile(operand, kinds)
        built = BUILDERS[name](name, (total, step))
        if total.literal is not None and step.literal is not None:
            total = start = _applied(built, (total, step))
        else:
            rest.append((built.apply, step.run))
            total = Step(built.kind, total.run)
    return Step(total.kind, _loop(start.run, rest)) if rest else total


def _loop(start: Run, rest: list[tuple[Callable[..., Column], Run]]) -> Run:
    if len(rest) == 1:
        ((apply, second),) = rest
        return lambda frame: apply(start(frame), second(frame))

    def run(frame: Frame) -> Column:
        total = start(frame)
        for apply, operand in rest:
            total = apply(total, operand(frame))
        return total

    return run
