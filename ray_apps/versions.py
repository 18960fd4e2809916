"""What decides a model beside data and parameters: our own code, and the library's release."""

from __future__ import annotations

from arclight.lineage import code_digest, library_versions, python_version

CODE = ("arclight", "ray_apps")
"""The packages whose code decides what a model is."""
LIBRARY = {"xgboost": ("xgboost-cpu", "xgboost"), "lightgbm": ("lightgbm",), "torch": ("torch",)}
"""Trainer -> the packages of its library."""
NUMBERS = ("numpy", "pyarrow")
"""Packages that make the numbers a library gets."""


def versions_of_code() -> dict[str, str]:
    """Return the versions of Python and of our own code here."""
    return {"Python": python_version(), "Arclight's code": code_digest(CODE)[:12]}


def versions_that_count(trainer: str) -> dict[str, str]:
    """Return the versions here that decide what a trainer's models are.

    A library's packages for cores and for GPUs are of one release: a command may stand where there
    is no GPU.
    """
    found = library_versions()
    kept = {name: found[name] for name in NUMBERS if name in found}
    for name in LIBRARY[trainer]:
        if name in found:
            kept[trainer] = found[name].partition("+")[0]
    return {**versions_of_code(), **kept}
