"""What is wrong with a spec, as one sentence and a line: from pydantic's errors to people's."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from arclight.errors import nearest, printable
from arclight.spec import Spec
from arclight.spec_field import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MAX_TEXT = 1000
_SENTENCES = {
    "missing": "'{field}' must be given.",
    "range": "'{field}' must have one of the fields int, float or choice.",
    "workers": "'{field}' must be auto, a whole number from 0, or {{min: N, max: N}}.",
    "union_tag_invalid": "'{field}.by' must be {expected}, got '{tag}'.",
    "union_tag_not_found": "'{field}' must say by which of them it goes: by: time, or by: hash.",
    "string_too_short": "'{field}' must not be empty.",
}


class _Place(NamedTuple):
    """Where an error lies: the fields that lead there, its line, and the fields known there."""

    path: tuple[str, ...]
    line: int
    known: tuple[str, ...]


def explain(error: ValidationError, root: yaml.Node) -> tuple[str, int]:
    """Return one sentence on the first problem, the others counted, and its line.

    Args:
        error: what the spec's validation raised.
        root: the YAML the spec was read from.
    """
    problems = error.errors()
    first = _mistyped(problems) or problems[0]
    place = _locate(root, (*first["loc"], *_own_path(first)))
    paths = {_locate(root, (*p["loc"], *_own_path(p))).path for p in problems} - {place.path}
    more = f" ({len(paths)} more after this one.)" if paths else ""
    return printable(_sentence(first, place) + more, _MAX_TEXT), place.line


def _mistyped(problems: Sequence[ErrorDetails]) -> ErrorDetails | None:
    """Return the unknown field that most likely is the first missing one, misspelt."""
    first = problems[0]
    if first["type"] != "missing":
        return None
    *above, name = first["loc"]
    beside = [p for p in problems if p["type"] == "extra_forbidden" and [*p["loc"][:-1]] == above]
    return next((p for p in beside if nearest(str(p["loc"][-1]), (str(name),))), None)


def line_of(root: yaml.Node, path: Sequence[str]) -> int:
    """Return the line of a field, or of the nearest one above it that was given."""
    node: yaml.Node | None = root
    line = root.start_mark.line + 1
    for part in path:
        found = _child(node, int(part) if part.isdigit() else part)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _own_path(problem: ErrorDetails) -> tuple[str, ...]:
    cause = problem.get("ctx", {}).get("error")
    return cause.path if isinstance(cause, FieldError) else ()


def _sentence(problem: ErrorDetails, place: _Place) -> str:
    field = ".".join(place.path) or "the spec"
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        known = f" Known here: {', '.join(place.known)}." if place.known else ""
        return f"'{field}' is not a field of a spec.{nearest(place.path[-1], place.known)}{known}"
    if kind in _SENTENCES:
        words = {name: printable(value) for name, value in problem.get("ctx", {}).items()}
        expected = words.get("expected_tags", "").replace("', '", "' or '")
        return _SENTENCES[kind].format(field=field, expected=expected, tag=words.get("tag"))
    if kind == "value_error":
        return f"{field}: {problem['ctx']['error']}"
    if kind in ("too_long", "tuple_type") and place.path[-1] in ("int", "float"):
        return f"'{field}' must be the lowest and the highest number of a range: [LOW, HIGH]."
    got = "" if isinstance(value, dict | list) else f", got {printable(repr(value))}"
    return f"'{field}' is wrong: {_rule(problem)}{got}."


def _rule(problem: ErrorDetails) -> str:
    """Return pydantic's rule, or ours where a field takes several scalar types."""
    if problem["loc"] and str(problem["loc"][-1]) in ("str", "int", "float", "bool"):
        return "it must be text, a whole number, a number, true or false; quote it if it is text"
    return problem["msg"].replace("Input should", "it should", 1)


def _locate(root: yaml.Node, loc: Sequence[int | str]) -> _Place:
    """Follow a location through the YAML and the types; parts that are union tags lead nowhere."""
    node: yaml.Node | None = root
    line, path = root.start_mark.line + 1, []
    kind: Any = Spec
    known: tuple[str, ...] = ()
    for part in (p for p in loc if p != "[key]"):
        members = _members(kind)
        if len(members) > 1:
            kind = next((m for m in members if str(part) in _tags(m)), None)
            continue
        kind = members[0] if members else None
        known = _fields(kind)
        path.append(str(part))
        kind = _inside(kind, part)
        found = _child(node, part)
        node = found[1] if found else None
        line = found[0].start_mark.line + 1 if found else line
    return _Place(tuple(path), line, known)


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the node that names a part (for its line) and the node that holds it."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the types a value may have, without None and what only annotates."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(m for arg in get_args(kind) for m in _members(arg) if m is not type(None))
    return () if kind is None else (kind,)


def _tags(kind: Any) -> Iterable[str]:
    """Return the parts of a location that say which member of a union was meant."""
    if not _is_model(kind):
        return (getattr(kind, "__name__", ""),)
    literals = [f.annotation for f in kind.model_fields.values()]
    return [
        *_fields(kind)[:1],
        *(v for literal in literals if get_origin(literal) is Literal for v in get_args(literal)),
    ]


def _fields(kind: Any) -> tuple[str, ...]:
    if not _is_model(kind):
        return ()
    return tuple(field.alias or name for name, field in kind.model_fields.items())


def _inside(kind: Any, part: int | str) -> Any:
    """Return the type of a field, a mapping's value or a sequence's item."""
    if _is_model(kind):
        fields = kind.model_fields.items()
        return next((f.annotation for name, f in fields if part in (name, f.alias)), None)
    arguments = get_args(kind)
    if not arguments:
        return None
    if get_origin(kind) is tuple and isinstance(part, int) and arguments[-1] is not Ellipsis:
        return arguments[part] if part < len(arguments) else None
    return arguments[1] if get_origin(kind) is dict else arguments[0]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
