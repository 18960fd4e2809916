"""How commands speak: people on standard error, machines on standard output."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from arclight.errors import printable
from arclight.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arclight.progress import Tick


MAX_WIDTH = 20_000


def console() -> Console:
    """Return a console on standard error as it is now."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, *, style: str = "") -> None:
    """Print a line for people; the text is taken literally."""
    console().print(escape(printable(text, limit=4000)), style=style or None)


def say_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people; a cell is never cut, since an id or a path is there to be copied.

    A terminal folds what is too long for it; a file or a pipe gets lines as long as they are.
    """
    out = console()
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell, limit=4000)) for cell in row))
    if not out.is_terminal:
        natural = Measurement.get(out, out.options.update(max_width=MAX_WIDTH), table).maximum
        out.width = max(out.width, natural)
    out.print(table, soft_wrap=False)


def answer(body: dict[str, Any], *, as_json: bool) -> None:
    """Print the one JSON object of a command, when it was asked for.

    It is ASCII: no terminal acts on it, and it can be written whatever the locale.
    """
    if as_json:
        sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")
        sys.stdout.flush()


@contextmanager
def progress(title: str) -> Iterator[Tick]:
    """Show a step's progress: a bar on a terminal, one line elsewhere."""
    out = console()
    if not out.is_terminal:
        say(f"{title}: begun.")
        yield silent
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=out,
        transient=True,
    ) as bar:
        task = bar.add_task(escape(title), total=None, note="")

        def tick(done: int, total: int | None, note: str) -> None:
            bar.update(task, completed=done, total=total, note=escape(printable(note, limit=60)))

        yield tick
