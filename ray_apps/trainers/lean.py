"""A process that only trains or scores imports its library without what that can do without.

XGBoost and LightGBM import pandas, scikit-learn and others to know their types: over a second.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

UNUSED = ("pandas", "sklearn", "matplotlib", "dask", "polars")


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within a block, make packages not yet imported look as if they were not installed."""
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
