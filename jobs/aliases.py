"""`arclight promote` and `rollback`: where an alias stands."""

from __future__ import annotations

from pathlib import Path

from arclight.errors import SpecError, printable
from jobs.runs import known_store
from jobs.say import answer, say


def promote_command(ref: str, alias: str, *, store: str | None, as_json: bool) -> None:
    """Point an alias at a model's version; where it stands already, nothing is moved."""
    catalog = known_store(store, Path.cwd())
    bundle = catalog.model(ref)
    held = catalog.last_move(bundle.name, alias)
    record = catalog.move_alias(bundle, alias, reason="promoted by hand", seen=held)
    if record == held:
        say(f"{bundle.name}@{alias} stands on version {bundle.number} already; nothing was moved.")
    else:
        say(f"{bundle.name}@{alias} stands on version {record.version_number} now.")
    answer(record.model_dump(mode="json"), as_json=as_json)


def rollback_command(name: str, alias: str, *, store: str | None, as_json: bool) -> None:
    """Point an alias back at the version it stood on before.

    Raises:
        SpecError: the name comes with a version or an alias.
    """
    model, at, said = name.partition("@")
    if at:
        other = alias if not said or said.isdigit() else said
        raise SpecError(
            f"'{printable(name)}' must be the model's name alone: "
            f"arclight rollback {printable(model)} --alias {printable(other)}"
        )
    record = known_store(store, Path.cwd()).rollback(name, alias)
    say(f"{name}@{alias} stands on version {record.version_number} again.")
    answer(record.model_dump(mode="json"), as_json=as_json)
