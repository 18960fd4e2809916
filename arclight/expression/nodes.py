"""The closed set of things a row expression is made of after parsing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from arclight.expression.kinds import Kind


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant of a known type; None is NULL."""

    value: bool | int | float | str | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class Name:
    """A column of the row."""

    column: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator over its arguments."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A conversion; a safe one (TRY_CAST) gives null where the other fails."""

    value: Node
    to: Kind
    safe: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of two arguments applied from left to right: `first op node op node ...`.

    A long sum or a long AND is one flat chain, so that its length costs no depth.
    """

    first: Node
    rest: tuple[tuple[str, Node], ...]


Node: TypeAlias = Literal | Name | Call | Cast | Chain
