"""Reading a spec from YAML: strict, bounded, and every error with its line."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from arclight.errors import MissingError, SpecError, printable
from arclight.spec import Spec
from arclight.spec_problem import explain, line_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 256 << 10
MAX_DEPTH = 40
MAX_ALIASES = 20
MAX_VALUES = 10_000

# Plain scalars by YAML 1.2 rules, so that 007, 1:30, no and 2013-11-01 stay the text they are.
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(
    r"-?((0|[1-9][0-9]{0,40})(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?"
)


@dataclass(frozen=True)
class LoadedSpec:
    """A spec, the file it came from, and the folder its relative paths start from."""

    spec: Spec
    file: Path
    sql: str
    root: yaml.Node | None = field(default=None, repr=False, compare=False)
    """The YAML it was read from, for the lines of what turns out to be wrong later."""

    def where(self, *path: str) -> str:
        """Return `file:line` of a field, or of the nearest one above it that was given."""
        return f"{self.file}:{1 if self.root is None else line_of(self.root, path)}"

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the spec are relative to."""
        return self.file.parent

    def resolve(self, path: str) -> str:
        """Return a source's path as an absolute path; a URI stays as it is."""
        return path if "://" in path else os.path.realpath(self.folder / path)


def load_spec(file: Path, change: Callable[[dict[str, Any]], None] | None = None) -> LoadedSpec:
    """Read and check a spec file.

    Args:
        file: YAML.
        change: changes what it says before it is checked.

    Raises:
        MissingError: there is no such file.
        SpecError: the file is too large, not plain YAML, or breaks a rule of the spec.
    """
    root = _compose(_read(file, "spec"), file)
    body = _Builder(file).build(root)
    if change is not None and isinstance(body, dict):
        change(body)
    try:
        spec = Spec.model_validate_json(json.dumps(body), by_alias=True, by_name=False)
    except ValidationError as error:
        text, line = explain(error, root)
        raise SpecError(f"{file}:{line}: {text}") from error
    return LoadedSpec(spec=spec, file=file.resolve(), sql=_sql(spec, file, root), root=root)


def _read(file: Path, what: str) -> str:
    name = printable(file)
    try:
        if file.is_dir():
            raise SpecError(f"{what} '{name}' must be a file, got a folder; name a file in it.")
        if not file.is_file():
            raise MissingError(f"{what} '{name}' does not exist; give the path of a file.")
        if file.stat().st_size > MAX_BYTES:
            raise SpecError(f"{what} '{name}' must be at most {MAX_BYTES:,} bytes; shorten it.")
        return file.read_text(encoding="utf-8-sig")  # Windows puts a mark before UTF-8
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{what} '{name}' must be UTF-8 text, but byte {error.start:,} is not; save it as "
            "UTF-8."
        ) from error
    except OSError as error:
        raise MissingError(f"{what} '{name}' cannot be read: {error.strerror}.") from error


def _sql(spec: Spec, file: Path, root: yaml.Node) -> str:
    if spec.etl.sql_file is not None:
        where = f"{file}:{line_of(root, ('etl', 'sql_file'))}"
        # where a link to the spec leads, as every other path in it
        return _read(file.resolve().parent / spec.etl.sql_file, f"{where}: etl.sql_file")
    return spec.etl.sql or "SELECT * FROM " + next(iter(spec.sources))


def _compose(text: str, file: Path) -> yaml.Node:
    """Parse to nodes after the events were found harmless."""
    try:
        _check_events(text, file)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        parts = [getattr(error, "context", None), getattr(error, "problem", None)]
        problem = ", ".join(part for part in parts if part) or str(error)
        raise SpecError(
            f"{where}: not valid YAML: {printable(problem)}; mend it there."
        ) from error
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(f"{file}:1: a spec must be a mapping that starts with its name.")
    return root


def _check_events(text: str, file: Path) -> None:
    """Refuse, before any node is made, what is deep, large, aliased or tagged."""
    depth = aliases = values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        values += isinstance(event, yaml.NodeEvent)
        tag = getattr(event, "tag", None)
        problem = ""
        if depth > MAX_DEPTH:
            problem = f"a spec must nest at most {MAX_DEPTH} deep; flatten it"
        elif aliases > MAX_ALIASES:
            problem = f"a spec must use at most {MAX_ALIASES} aliases; write the values out"
        elif values > MAX_VALUES:
            problem = f"a spec must hold at most {MAX_VALUES:,} values; shorten it"
        elif tag is not None:
            problem = f"a spec must be plain YAML, got the tag '{printable(tag)}'; remove it"
        if problem:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise SpecError(f"{file}:{line}: {problem}.")


class _Builder:
    """Turns nodes into values one by one, so that a refusal knows its line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._budget = MAX_VALUES
        self._depth = 0

    def build(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            self._check_text(node)
            return _scalar(node)
        where = f"{self._file}:{node.start_mark.line + 1}"
        self._budget -= len(node.value)
        self._depth += 1
        if self._budget < 0:
            raise SpecError(
                f"{where}: aliases must not expand past {MAX_VALUES:,} values; write them out."
            )
        if self._depth > MAX_DEPTH:  # an alias inside what it stands for
            raise SpecError(f"{where}: aliases must not nest past {MAX_DEPTH}; write them out.")
        built = (
            self._mapping(node)
            if isinstance(node, yaml.MappingNode)
            else [self.build(item) for item in node.value]
        )
        self._depth -= 1
        return built

    def _check_text(self, node: yaml.ScalarNode) -> None:
        try:
            node.value.encode()
        except UnicodeEncodeError as error:
            raise SpecError(
                f"{self._file}:{node.start_mark.line + 1}: '{printable(node.value)}' must be "
                "text, but holds half a character; write it out."
            ) from error

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for key, value in node.value:
            where = f"{self._file}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{where}: a field's name must be plain text; write it as such.")
            self._check_text(key)
            if key.value == "<<" and key.style is None:
                raise SpecError(f"{where}: '<<' merges no fields here; write the fields out.")
            if key.value in body:
                raise SpecError(
                    f"{where}: field '{printable(key.value)}' stands twice; remove one."
                )
            body[key.value] = self.build(value)
        return body


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
