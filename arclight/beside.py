"""What lies beside the versions of a name: evaluations, moves of aliases, openings of test.

Each reader gives the number of a record and its value, newest first, or in place of the value what
is wrong with it: a record that was written for another place is none here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from arclight.alias_moves import AliasRecord
from arclight.bundle import Evaluation
from arclight.contract import Contract
from arclight.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arclight.store import Store

_NUMBER = re.compile(r"[1-9][0-9]{0,17}\Z")
Beside = TypeVar("Beside", bound=Contract)


class Opening(Contract):
    """The test split of a dataset was opened: by what, for which model, when."""

    kind: ClassVar[str] = "test-opening"

    dataset: str
    number: int
    model: str
    model_digest: str
    run: str
    at: str


def openings_of(
    store: Store, name: str, version: int
) -> Iterator[tuple[int, Opening | IntegrityError]]:
    """Yield the openings of the test split of a dataset's version."""

    def is_own(opening: Opening, number: int) -> bool:
        return (opening.dataset, opening.number) == (f"{name}@{version}", number)

    return _read_each(store, Opening, is_own, "datasets", name, "openings", str(version))


def evaluations_of(
    store: Store, name: str, version: int | str
) -> Iterator[tuple[int, Evaluation | IntegrityError]]:
    """Yield the evaluations of a model's version."""

    def is_own(found: Evaluation, _: int) -> bool:
        return found.model == f"{name}@{version}"

    return _read_each(store, Evaluation, is_own, "models", name, "evaluations", str(version))


def moves_of(
    store: Store, model: str, alias: str
) -> Iterator[tuple[int, AliasRecord | IntegrityError]]:
    """Yield the moves of an alias."""

    def is_own(move: AliasRecord, number: int) -> bool:
        return (move.model, move.alias, move.number) == (model, alias, number)

    return _read_each(store, AliasRecord, is_own, "models", model, "aliases", alias)


def damaged_beside(store: Store, model: str, version: int | None = None) -> dict[str, str]:
    """Return what is wrong with records beside a model's versions, or beside one of them.

    Moves of aliases and evaluations: an alias whose newest move cannot be read stands nowhere; of
    evaluations one that cannot be read is passed over.
    """
    evaluated = folders_in(store, "models", model, "evaluations")
    versions = [v for v in evaluated if version is None or v == str(version)]
    aliases = folders_in(store, "models", model, "aliases")
    moves = {f"{model}@{a}, move": moves_of(store, model, a) for a in aliases}
    given = {f"{model}@{v}, evaluation": evaluations_of(store, model, v) for v in versions}
    return {
        f"{what} {number}": found.message
        for what, records in (moves | given).items()
        for number, found in records
        if isinstance(found, IntegrityError)
    }


def told_of(store: Store, shelf: Literal["datasets", "models"], name: str) -> int:
    """Return the highest version that other records speak of, be its own taken away or not.

    Another version with its number would take over its alias, evaluations and openings.
    """
    if shelf == "datasets":
        return highest_in(store, "datasets", name, "openings")
    aliases = folders_in(store, "models", name, "aliases")
    moves = (move for alias in aliases for _, move in moves_of(store, name, alias))
    stood = [move.version_number for move in moves if isinstance(move, AliasRecord)]
    return max(highest_in(store, "models", name, "evaluations"), *stood, 0)


def folders_in(store: Store, *parts: str) -> list[str]:
    """Return the names in a folder, sorted; none where there is no such folder."""
    folder = store.path(*parts)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def highest_in(store: Store, *parts: str) -> int:
    """Return the highest number that is a name in a folder; 0 where there is none."""
    return max((int(n) for n in folders_in(store, *parts) if _NUMBER.match(n)), default=0)


def _read_each(
    store: Store, kind: type[Beside], is_own: Callable[[Beside, int], bool], *parts: str
) -> Iterator[tuple[int, Beside | IntegrityError]]:
    for number in reversed(store.numbers(*parts)):
        try:
            record = store.record(number, *parts)
            found = kind.from_json(record.text, source=record.path)
            if not is_own(found, number):
                raise IntegrityError(
                    f"'{record.path}' must have been written for this place, but was copied by "
                    "hand from another; remove it, or restore it from a backup."
                )
            yield number, found
        except IntegrityError as error:
            yield number, error
