"""Where a stored thing came from: inputs, code and libraries, by digest and version."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

from arclight.contract import Contract

LIBRARIES = (
    "arclight", "pyarrow", "numpy", "pyspark", "ray", "xgboost-cpu", "xgboost", "lightgbm",
    "torch", "sqlglot", "pydantic",
)  # fmt: skip


class Lineage(Contract):
    """What made a dataset or a model, enough to make it again."""

    made_at: str
    """ISO time in UTC; for people, never part of a digest that decides anything."""
    spec_digest: str
    code_digest: str
    inputs: dict[str, str] = {}
    """Name of an input -> digest of what it was."""
    libraries: dict[str, str] = {}
    python: str = ""


@functools.cache
def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that can change a number."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def python_version() -> str:
    """Return the interpreter's version, such as 3.11.7."""
    return platform.python_version()


@functools.cache
def processor_name() -> str:
    """Return the kind of processor, such as `x86_64 AMD EPYC`."""
    names = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([platform.machine(), *names[:1]])


@functools.cache
def code_digest(packages: tuple[str, ...]) -> str:
    """Return the SHA-256 over the source files of some of our packages, as installed beside us.

    Args:
        packages: such as ("arclight", "spark").
    """
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
