"""The boundary of a process: what went wrong inside becomes one sentence and an exit status."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import typer

from arclight.disk import closed_file, disk_full, long_name, odd_name
from arclight.errors import ArclightError, printable
from jobs.say import say

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130

# typer may carry a copy of click of its own, and exports only the subclasses
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def guarded(work: Callable[[], object]) -> int:
    """Do some work and return its exit status; what went wrong is said in one sentence."""
    try:
        done = work()
    except ArclightError as error:
        say(f"arclight: {printable(error.message, limit=4000)}", style="red")
        return error.exit_status
    except UsageError as error:
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        say(f"arclight: {message}; see 'arclight --help'.", style="red")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:  # noqa: BLE001 -- the boundary of the process
        # Python wraps what comes while a class is made, as imports do for a second
        was_interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        return _interrupted() if was_interrupted else _unforeseen(error)
    # typer gives an interruption back as its status instead of raising it
    if done == INTERRUPTED:
        return _interrupted()
    return done if type(done) is int else 0


def _unforeseen(error: Exception) -> int:
    """Say what nothing below had a sentence for; what a disk does not take may meet any of it."""
    known = disk_full(error) or closed_file(error) or long_name(error) or odd_name(error)
    if known is not None:
        say(f"arclight: {known.message}", style="red")
        return known.exit_status
    # what an exception quotes may hold what a terminal would obey
    for line in traceback.format_exc().splitlines():
        sys.stderr.write(f"{printable(line, limit=1000)}\n")
    say(f"arclight: {type(error).__name__}: {_words(error)}; please report it.", style="red")
    return 1


def _words(error: Exception) -> str:
    """Return what an error says; one that asks an engine for its words may outlive the engine."""
    try:
        return printable(error)
    except Exception:  # noqa: BLE001 -- whatever it is, the command must end with a sentence
        return "its words are lost"


def _interrupted() -> int:
    say("arclight: interrupted; the same command goes on.", style="yellow")
    return INTERRUPTED
