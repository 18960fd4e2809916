"""XGBoost and LightGBM are imported without what Arclight never hands to them.

They import pandas, scikit-learn and others to know their types: 1.5 to 2 s of a process's start.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

UNUSED = ("pandas", "sklearn", "matplotlib", "dask", "polars")


class _Absent(MetaPathFinder):
    """Says of packages that they are not installed.

    Not None in `sys.modules`: compiled code, such as pyarrow's, takes that for the module.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 -- the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> None:
        """Find nothing, and stop the search for the packages that are hidden."""
        if fullname.partition(".")[0] in UNUSED:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within a block, make packages not yet imported look as if they were not installed.

    A library imported inside stays so for the process: it does not know pandas' types any more.
    """
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)


@contextmanager
def all_imports() -> Iterator[None]:
    """Within a block, let packages be found again: torch's compiler asks for each by name."""
    hidden = [one for one in sys.meta_path if isinstance(one, _Absent)]
    for one in hidden:
        sys.meta_path.remove(one)
    try:
        yield
    finally:
        sys.meta_path[:0] = hidden
