"""Reading a spec from YAML: strict, bounded, and every error with its line."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from arclight.errors import MissingError, SpecError, nearest, printable
from arclight.spec import Spec

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_ALIASES = 20


@dataclass(frozen=True)
class LoadedSpec:
    """A spec, the file it came from, and the folder its relative paths start from."""

    spec: Spec
    file: Path
    sql: str

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the spec are relative to."""
        return self.file.parent

    def resolve(self, path: str) -> str:
        """Return a source's path as an absolute path; a URI stays as it is."""
        return path if "://" in path else str((self.folder / path).resolve())


def load_spec(file: Path) -> LoadedSpec:
    """Read and check a spec file.

    Raises:
        MissingError: there is no such file.
        SpecError: the file is too large, not plain YAML, or breaks a rule of the spec.
    """
    text = _read(file, "spec")
    root = _compose(text, file)
    body = _plain(root, file)
    try:
        spec = Spec.model_validate_json(json.dumps(body, default=_iso))
    except ValidationError as error:
        raise SpecError(_explain(error, root, file)) from error
    return LoadedSpec(spec=spec, file=file.resolve(), sql=_sql(spec, file))


def _read(file: Path, what: str) -> str:
    if not file.is_file():
        raise MissingError(f"{what} '{file}' does not exist; give the path of a file.")
    if file.stat().st_size > MAX_BYTES:
        raise SpecError(f"{what} '{file}' must be at most {MAX_BYTES:,} bytes; shorten it.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{what} '{file}' must be UTF-8 text ({error.reason}).") from error


def _sql(spec: Spec, file: Path) -> str:
    if spec.etl.sql_file is not None:
        return _read(file.parent / spec.etl.sql_file, "etl.sql_file")
    return spec.etl.sql or "SELECT * FROM " + next(iter(spec.sources))


def _compose(text: str, file: Path) -> yaml.Node:
    """Parse to nodes after the events were found harmless: bounded depth, few aliases, no tags."""
    try:
        depth = aliases = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > MAX_DEPTH:
                raise SpecError(f"{file}:{line}: a spec must nest at most {MAX_DEPTH} deep.")
            if aliases > MAX_ALIASES:
                raise SpecError(
                    f"{file}:{line}: a spec must use at most {MAX_ALIASES} aliases; "
                    "write the values out."
                )
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise SpecError(
                    f"{file}:{line}: a spec must be plain YAML, got the tag '{printable(tag)}'; "
                    "remove it."
                )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(f"{where}: not valid YAML: {printable(problem)}.") from error
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(f"{file}:1: a spec must be a mapping that starts with its name.")
    return root


def _plain(root: yaml.Node, file: Path) -> Any:
    """Return nodes as values, refusing duplicate keys and an expansion past the size limit."""
    return _Builder(file).build(root)


class _Builder:
    """Turns nodes into values one by one, so that a refusal knows its line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._scalars = yaml.SafeLoader("")
        self._budget = MAX_BYTES

    def build(self, node: yaml.Node) -> Any:
        self._budget -= 1
        if self._budget < 0:
            raise SpecError(f"{self._file}: aliases must not expand past {MAX_BYTES:,} values.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item) for item in node.value]
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise SpecError(
                f"{self._file}:{node.start_mark.line + 1}: '{printable(node.value)}' cannot be "
                f"read ({printable(error)}); quote it if it is text."
            ) from error

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for key, value in node.value:
            where = f"{self._file}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                raise SpecError(f"{where}: a field's name must be plain text.")
            if key.value in body:
                raise SpecError(f"{where}: field '{printable(key.value)}' stands twice.")
            body[key.value] = self.build(value)
        return body


def _iso(value: Any) -> str:
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    raise SpecError(f"'{printable(value)}' must be text, a number, true or false; quote it.")


def _explain(error: ValidationError, root: yaml.Node, file: Path) -> str:
    """Turn the first problem into one sentence with its line; the others are counted."""
    problems = error.errors()
    first = problems[0]
    path, line = _locate(root, first["loc"])
    dotted = ".".join(path) or "the spec"
    if first["type"] == "extra_forbidden":
        known = _fields_at(path[:-1])
        text = f"'{dotted}' is not a field of a spec.{nearest(path[-1], known)}"
        if known:
            text += f" Known here: {', '.join(known)}."
    elif first["type"] == "missing":
        text = f"'{dotted}' must be given."
    elif first["type"] == "value_error":
        text = f"{dotted}: {first['ctx']['error']}"
    else:
        got = "" if isinstance(first["input"], dict | list) else f", got {first['input']!r}"
        text = f"'{dotted}' is wrong: {first['msg']}{printable(got)}."
    more = f" ({len(problems) - 1} more after this one.)" if len(problems) > 1 else ""
    return f"{file}:{line}: {text}{more}"


def _locate(root: yaml.Node, loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], int]:
    """Follow an error's location through the nodes; parts that name no node are union tags."""
    node, line, path = root, root.start_mark.line + 1, []
    for index, part in enumerate(loc):
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = (node.value[part], node.value[part]) if part < len(node.value) else None
        if found is not None:
            line, node = found[0].start_mark.line + 1, found[1]
            path.append(str(part))
        elif index == len(loc) - 1 and isinstance(part, str):
            path.append(part)
    return tuple(path), line


def _fields_at(path: tuple[str, ...]) -> list[str]:
    """Return the field names a spec knows at a path, empty where any name goes."""
    model: Any = Spec
    for part in path:
        fields = getattr(model, "model_fields", {})
        field = next((f for n, f in fields.items() if part in (n, f.alias)), None)
        model = _model_in(field.annotation) if field is not None else model
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `dict[str, Source]` or `Tune | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
