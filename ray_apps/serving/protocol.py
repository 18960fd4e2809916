"""`{"rows": [{column: value}, …]}` in, predictions out: decoding and encoding, no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from arclight.errors import nearest, printable
from ray_apps.json_values import JSON_NAMES, WRONG_VALUE, rules_for
from ray_apps.serving.problem import Problem
from ray_apps.serving.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from arclight.bundle import ModelBundle
    from arclight.schema import Column
    from ray_apps.json_values import Rule

MAX_ERRORS = 100
MAX_HINTS = 3
"""Names that a request is told the nearest column of: each costs a look at all columns."""
_BLOCK_ROWS = 100
_SENTENCES = {
    "derive": (
        "derived feature '{}' has no value for this row: its expression cannot be computed from "
        "these values, as in a division by zero or an overflow."
    ),
    "infinite": "feature '{}' is infinite for this row: give a finite number, or null.",
    "not_utf8": "feature '{}' is no text for this row: its bytes are not UTF-8.",
}
"""What the reasons of a `FeatureBuilder` say to a caller."""


class Hints:
    """The nearest column, for the first few wrong names of a request."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)
        self._left = MAX_HINTS

    def __call__(self, name: str) -> str:
        """Return ` Did you mean 'x'?`, or an empty string."""
        if not self._left:
            return ""
        self._left -= 1
        return nearest(name, self._known)


class RowDecoder:
    """Turns a request's rows into a record batch by a model's signature."""

    def __init__(self, columns: Sequence[Column], *, max_rows: int) -> None:
        self._rules = rules_for(columns)
        self._names = [rule.name for rule in self._rules]
        self._max_rows = max_rows

    def decode(self, body: bytes) -> pa.RecordBatch:
        """Return the rows of a JSON document.

        Raises:
            Problem: `not-json`; `too-large` for too many rows; `fields` with every wrong field.
        """
        return self.batch(rows_of(parse_json(body)))

    def check_count(self, rows: int) -> None:
        """Refuse no rows, and more than a request may have, before they are made.

        Raises:
            Problem: `too-large` or `fields`.
        """
        check_row_count(rows, self._max_rows)

    def batch(self, rows: Sequence[Any]) -> pa.RecordBatch:
        """Return rows as a record batch; a row is an object of exactly the model's columns.

        Raises:
            Problem: `too-large` or `fields`.
        """
        self.check_count(len(rows))
        width = len(self._names)
        if all(type(row) is dict and len(row) == width for row in rows):
            try:
                arrays = [rule.column([row[rule.name] for row in rows]) for rule in self._rules]
                return pa.RecordBatch.from_arrays(arrays, names=self._names)
            except (KeyError, *WRONG_VALUE):
                pass  # explained below, field by field
        raise _refusal(self._complaints(rows))

    def _complaints(self, rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
        hints = Hints(self._names)
        for first in range(0, len(rows), _BLOCK_ROWS):
            block = rows[first : first + _BLOCK_ROWS]
            # value by value takes far longer than a column at once: only where something is wrong
            wrong = [rule for rule in self._rules if not _holds(rule, block)]
            yield from self._of_block(block, first, wrong, hints)

    def _of_block(
        self, rows: Sequence[Any], first: int, wrong: Sequence[Rule], hints: Hints
    ) -> Iterator[dict[str, Any]]:
        known = set(self._names)
        for place, row in enumerate(rows, first):
            if type(row) is not dict:
                got = JSON_NAMES.get(type(row), "something else")
                yield {"row": place, "field": None, "detail": f"must be an object, got {got}."}
                continue
            for rule in wrong if row.keys() == known else self._rules:
                if rule.name not in row:
                    text: str | None = "is missing; give null where it is unknown."
                else:
                    text = rule.complaint(row[rule.name])
                if text is not None:
                    yield {"row": place, "field": rule.name, "detail": text}
            for name in row:
                if name not in known:
                    text = f"is not a column of this model.{hints(name)}"
                    yield {"row": place, "field": printable(name), "detail": text}


def _holds(rule: Rule, rows: Sequence[Any]) -> bool:
    """Say whether a column takes its values of all rows that have one."""
    try:
        rule.column([row[rule.name] for row in rows if type(row) is dict and rule.name in row])
    except WRONG_VALUE:
        return False
    return True


def rows_of(document: Any) -> list[Any]:
    """Return the rows of a parsed request: `{"rows": [...]}`, `{"rows": {...}}` or one object.

    Raises:
        Problem: `fields`, the document is none of these.
    """
    if type(document) is not dict:
        got = JSON_NAMES.get(type(document), "something else")
        raise Problem("fields", f'The body must be an object with "rows", got {got}.')
    rows = document.get("rows")
    if type(rows) is list and len(document) == 1:
        return rows
    if type(rows) is dict and len(document) == 1:
        return [rows]
    if type(rows) in (list, dict):
        extra = next(name for name in document if name != "rows")
        raise Problem("fields", f"'{printable(extra)}' must not stand beside \"rows\".")
    if list(document) == ["rows"]:
        got = JSON_NAMES.get(type(rows), "something else")
        raise Problem("fields", f'"rows" must be an array of objects or one object, got {got}.')
    return [document]


def check_row_count(count: int, most: int) -> None:
    """Refuse a request without rows or with too many.

    Raises:
        Problem: `fields` or `too-large`.
    """
    if count == 0:
        raise Problem("fields", "A request must hold at least one row.")
    if count > most:
        raise Problem(
            "too-large",
            f"A request must hold at most {most:,} rows, got {count:,}; send several, or score "
            "the file with `arclight score`.",
        )


def _refusal(complaints: Iterator[dict[str, Any]]) -> Problem:
    errors: list[dict[str, Any]] = []
    for complaint in complaints:
        if len(errors) == MAX_ERRORS:
            return Problem(
                "fields", f"The first {MAX_ERRORS} wrong fields are listed.", errors=tuple(errors)
            )
        errors.append(complaint)
    one = len(errors) == 1
    text = f"{len(errors)} field{'' if one else 's'} {'is' if one else 'are'} wrong."
    return Problem("fields", text, errors=tuple(errors))


def refuse_rejected(rejected: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    """Refuse rows the plan cannot score.

    Args:
        rejected: reason -> rows, as the predictor gives it.

    Raises:
        Problem: `rows`, with the row and the reason of each.
    """
    found = sorted(
        (int(row), reason) for reason, mask in rejected.items() for row in mask.nonzero()[0]
    )
    if found:
        rows = {row for row, _ in found}
        errors = tuple(
            {
                "row": row,
                "field": printable(name),
                "detail": _SENTENCES[kind].format(printable(name)),
            }
            for row, (kind, _, name) in ((r, why.partition(":")) for r, why in found[:MAX_ERRORS])
        )
        one = len(rows) == 1
        raise Problem(
            "rows",
            f"{len(rows)} row{'' if one else 's'} cannot be scored: a derived feature has no "
            "value there, or a number is infinite.",
            errors=errors,
        )


@dataclass(frozen=True)
class Outcome:
    """Scores as columns, named as every answer names them.

    Attributes:
        names: `score` and perhaps `label`; of several classes `label` and `score_CLASS` each.
        columns: the values, a list each.
    """

    names: tuple[str, ...]
    columns: tuple[list[Any], ...]


def outcome(bundle: ModelBundle, scores: npt.NDArray[np.float64]) -> Outcome:
    """Return scores in the shape of the model's task.

    Args:
        bundle: the model.
        scores: finite, [rows] or, of several classes, [rows, classes].
    """
    if bundle.task == "multiclass":
        classes = bundle.plan.classes
        labels = [classes[place] for place in scores.argmax(axis=1).tolist()]
        names = tuple(f"score_{name}" for name in classes)
        return Outcome(("label", *names), (labels, *scores.T.tolist()))
    if bundle.task == "binary" and bundle.threshold is not None:
        labels = (scores >= bundle.threshold).tolist()
        return Outcome(("score", "label"), (scores.tolist(), labels))
    return Outcome(("score",), (scores.tolist(),))


def predictions(bundle: ModelBundle, found: Outcome) -> list[dict[str, Any]]:
    """Return the `predictions` of a JSON answer, an object a row.

    Binary: `{"score": p, "label": bool}`. Regression: `{"score": y}`. Several classes:
    `{"label": c, "scores": {c: p, …}}`.
    """
    if bundle.task != "multiclass":
        return [
            dict(zip(found.names, row, strict=True)) for row in zip(*found.columns, strict=True)
        ]
    labels, *each = found.columns
    return [
        {"label": label, "scores": dict(zip(bundle.plan.classes, row, strict=True))}
        for label, row in zip(labels, zip(*each, strict=True), strict=True)
    ]
