"""How commands speak: people on standard error, machines on standard output."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from arclight.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

    from arclight.progress import Tick


MAX_WIDTH = 20_000
SAID_EVERY_S = 30.0


def console() -> Console:
    """Return a console on standard error as it is now."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def say(text: str, *, style: str = "") -> None:
    """Print a line for people; the text is taken literally."""
    console().print(escape(printable(text, limit=4000)), style=style or None)


def say_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people; a cell is never cut, since an id or a path is there to be copied.

    A terminal folds what is too long for it; a file or a pipe gets lines as long as they are.
    """
    out, table = console(), table_of(title, columns, rows)
    if not out.is_terminal:
        natural = Measurement.get(out, out.options.update(max_width=MAX_WIDTH), table).maximum
        out.width = max(out.width, natural)
    out.print(table, soft_wrap=False)


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table for people; its texts are taken literally."""
    name = escape(printable(title))
    table = Table(title=name, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        table.add_column(escape(printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell, limit=4000)) for cell in row))
    return table


def answer(body: dict[str, Any], *, as_json: bool) -> None:
    """Print the one JSON object of a command, when it was asked for.

    It is ASCII: no terminal acts on it, and it can be written whatever the locale.
    """
    if as_json:
        sys.stdout.write(json.dumps(body, allow_nan=False) + "\n")
        sys.stdout.flush()


class _NowAndThen:
    """Says how far a long step is where no bar can be drawn."""

    def __init__(self, title: str) -> None:
        self._title, self._said_s = title, time.monotonic()

    def __call__(self, done: int, total: int | None, note: str) -> None:
        if time.monotonic() - self._said_s < SAID_EVERY_S:
            return
        self._said_s = time.monotonic()
        of = "" if total is None else f" of {total:,}"
        say(f"{self._title}: {done:,}{of}{', ' if note else ''}{note}")


@contextmanager
def progress(title: str, below: Callable[[], RenderableType] | None = None) -> Iterator[Tick]:
    """Show a step's progress: a bar on a terminal, elsewhere a line now and then.

    Args:
        title: the step.
        below: draws what is shown below the bar, twice a second.
    """
    out = console()
    if not out.is_terminal:
        say(f"{title}: begun.")
        yield _NowAndThen(title)
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )

    def whole() -> RenderableType:
        return bar if below is None else Group(bar, below())

    with Live(get_renderable=whole, console=out, transient=True, refresh_per_second=2):
        task = bar.add_task(escape(title), total=None, note="")

        def tick(done: int, total: int | None, note: str) -> None:
            bar.update(task, completed=done, total=total, note=escape(printable(note, limit=60)))

        yield tick
