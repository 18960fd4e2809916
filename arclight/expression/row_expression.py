"""A row expression as a value: compiled once, evaluated over batches, sent between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from arclight.expression.compiler import Program

if TYPE_CHECKING:
    from collections.abc import Callable


class Evaluated(NamedTuple):
    """What an expression gave for a batch.

    `values` has one value a row. `invalid` is true in the rows in which Spark, with ANSI on, would
    have raised (division by zero, overflow, a failed cast, ...); their value is null. It is None
    when there is no such row.
    """

    values: pa.Array
    invalid: pa.BooleanArray | None


@dataclass(frozen=True)
class Expression:
    """A compiled row expression; build one with `compile_expression`.

    `columns` are the columns it reads in the order of first use, `type` is the type of its values.
    """

    text: str
    columns: tuple[str, ...]
    type: pa.DataType
    schema: pa.Schema = field(repr=False)
    program: Program = field(repr=False, compare=False)

    def evaluate(self, batch: pa.RecordBatch) -> Evaluated:
        """Evaluate the expression for each row of a batch.

        Args:
            batch: Rows with at least the expression's columns, in any order, with the types they
                had in the schema the expression was compiled for.

        Raises:
            DataError: a column is missing or has another type.
        """
        return Evaluated(*self.program.run(batch))

    def __reduce__(self) -> tuple[Callable[[str, pa.Schema], Expression], tuple[str, pa.Schema]]:
        return compile_expression, (self.text, self.schema)


def compile_expression(text: str, schema: pa.Schema) -> Expression:
    """Compile a row expression for batches of a schema.

    Args:
        text: One expression in Spark SQL; docs/expressions.md says what it may hold.
        schema: The columns it may use, with their types.

    Raises:
        SpecError: the text is no supported expression, names a column that is not in the schema
            (the nearest one is suggested), or gives a function a type it does not take.
    """
    program = Program(text, schema)
    return Expression(
        text=text,
        columns=program.columns,
        type=program.type,
        schema=pa.schema(program.fields),
        program=program,
    )
