"""The signing keys of this process: which it signs with and which it trusts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from arclight.errors import SpecError
from ray_apps.signing_keys import load_signer, load_trusted

if TYPE_CHECKING:
    from arclight.signing import Signer, TrustedKeys

SIGNING_KEY = "ARCLIGHT_SIGNING_KEY"
TRUSTED_KEYS = "ARCLIGHT_TRUSTED_KEYS"


def signer_here() -> Signer | None:
    """Return the key that ARCLIGHT_SIGNING_KEY names, None if it is not set."""
    file = _file_of(SIGNING_KEY)
    return None if file is None else load_signer(file)


def trust_here() -> TrustedKeys | None:
    """Return the keys that ARCLIGHT_TRUSTED_KEYS names, None if it is not set."""
    file = _file_of(TRUSTED_KEYS)
    return None if file is None else load_trusted(file)


def key_variables() -> dict[str, str]:
    """Return those of the two variables that are set, for a process that starts elsewhere."""
    files = {name: _file_of(name) for name in (SIGNING_KEY, TRUSTED_KEYS)}
    return {name: str(file.absolute()) for name, file in files.items() if file is not None}


def _file_of(variable: str) -> Path | None:
    text = os.environ.get(variable)
    if text == "":
        # `export X=$UNSET` must not switch a check off
        raise SpecError(f"variable {variable} must name a file, got an empty text; unset it.")
    return None if text is None else Path(text)
