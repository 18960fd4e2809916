"""Processes of our own code: the code that runs here, whatever lies in the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def module_command(name: str, *arguments: str) -> list[str]:
    """Return a command that runs a module of ours, in the environment of `own_variables`.

    Without `-P`, `python -m` looks for every module in the current folder first.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def own_variables() -> dict[str, str]:
    """Return the environment with our own packages before what is on its path."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(dict.fromkeys(filter(None, [str(ROOT), *known])))
    return {**os.environ, "PYTHONPATH": path}
