"""`arclight sweep`: what killed commands left, listed, and removed when told."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import MissingError, RefusedError, SpecError, printable
from arclight.spec_field import parse_duration_s
from arclight.sweep import find_leftovers, remove
from jobs.runs import known_store
from jobs.say import answer, say, say_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.sweep import Findings


def sweep_command(
    outputs: Sequence[Path], *, delete: bool, older_than: str, store: str | None, as_json: bool
) -> None:
    """List leftovers, or remove those that nothing names, nobody uses and no one touched lately.

    Raises:
        SpecError: the grace period is none.
        MissingError: a folder to look into is not there.
        RefusedError: a record cannot be read, so what it names is unknown; the rest is done.
    """
    try:
        grace_s = parse_duration_s(older_than)
    except ValueError as error:
        raise SpecError(f"--older-than: {error}") from error
    for folder in outputs:
        if not folder.is_dir():
            raise MissingError(f"folder '{printable(folder)}' does not exist; give one that does.")
    held = known_store(store, Path.cwd()).store
    found = find_leftovers(
        held,
        clock=time.time(),
        grace_s=grace_s,
        outputs=outputs,
        temp=Path(tempfile.gettempdir()),
    )
    if delete:
        for leftover in found.removable:
            remove(leftover)
    _say(found, delete=delete)
    body = {
        "deleted": delete,
        "bytes": sum(left.size_bytes for left in found.removable),
        "folders": [str(left.path) for left in found.removable if not left.is_file],
        "files": [str(left.path) for left in found.removable if left.is_file],
        "kept": {str(left.path): left.kept for left in found.leftovers if left.kept},
        "refused": list(found.refused),
    }
    answer(body, as_json=as_json)
    if found.refused:
        raise RefusedError(
            f"sweep: {'; '.join(found.refused)} Until then nothing of that name is removed."
        )


def _say(found: Findings, *, delete: bool) -> None:
    if found.leftovers:
        rows = [
            (left.path, f"{left.size_bytes:,}", left.kept or ("removed" if delete else "may go"))
            for left in found.leftovers
        ]
        say_table("left over", ("place", "bytes", "state"), rows)
    size = sum(left.size_bytes for left in found.removable)
    count, files = len(found.removable), sum(left.is_file for left in found.removable)
    said = f"{size:,} bytes in {_counted(count - files, 'folder')}"
    if files:
        said += f" and {_counted(files, 'file')} that a record was written to"
    if delete:
        say(f"sweep: {said} removed.")
    else:
        say(f"sweep: {said} may go{'; add --delete to remove them' if count else ''}.")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
