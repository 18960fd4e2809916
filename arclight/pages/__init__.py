"""Pages for people: one file of HTML each, no scripts, nothing loaded from elsewhere.

The one optional part of `arclight`: it needs the extra `report`.
"""

from __future__ import annotations

import importlib.util

from arclight.errors import SpecError

for _library in ("matplotlib", "jinja2"):
    if importlib.util.find_spec(_library) is None:
        raise SpecError(
            f"A page needs the library '{_library}', which is not installed; install it with: "
            "pip install 'arclight[report]'"
        )
