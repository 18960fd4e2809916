"""A process that only trains or scores imports its library without what that can do without.

XGBoost and LightGBM import pandas, scikit-learn and others to know their types: over a second.
"""

from __future__ import annotations

import sys

UNUSED = ("pandas", "sklearn", "matplotlib", "dask", "polars")


def leave_out_unused() -> None:
    """Make packages that this process has not imported yet look as if they were not installed."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
