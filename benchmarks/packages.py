"""Packages that only a peer needs, in a folder of their own: the project's are not touched."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from arclight.contract import digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def installed(folder: Path, packages: Sequence[str]) -> Path:
    """Return a folder with some packages and nothing of what they need besides.

    Args:
        folder: kept for the next run.
        packages: as pip takes them.

    Raises:
        CalledProcessError: pip says no.
    """
    place = folder / digest_of(list(packages))[:12]
    if not place.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        part = place.with_name(f"{place.name}.part")
        subprocess.run([*pip, "--target", str(part), *packages], check=True, stdout=sys.stderr)
        part.rename(place)
    return place
