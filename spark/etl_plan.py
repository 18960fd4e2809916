"""What an ETL will do and the key of its result, known before any engine starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.contract import digest_of
from arclight.errors import DataError
from arclight.inputs import SourceFiles, is_unchanged, look_at, refuse_half_carried
from arclight.layout import segments_to_carry
from arclight.lineage import code_digest, library_versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arclight.spec_file import LoadedSpec


CODE = ("arclight", "cluster", "spark")
"""Packages that decide what rows come out; Spark's settings stand in `cluster`."""
LIBRARIES = ("pyspark", "pyarrow", "numpy", "sqlglot")


@dataclass(frozen=True)
class EtlPlan:
    """A dataset build as known before any engine starts.

    Attributes:
        loaded: the spec.
        files: source -> its files.
        key: what identifies the result; None when a source's state cannot be known.
    """

    loaded: LoadedSpec
    files: Mapping[str, SourceFiles]
    key: str | None


def refuse_changed(plan: EtlPlan) -> None:
    """Refuse rows of files that changed since the plan was made: no digest says what they are.

    Raises:
        DataError: a source is not what it was.
    """
    for name, source in plan.loaded.spec.sources.items():
        if not is_unchanged(plan.files[name], name, source, plan.loaded):
            raise DataError(
                f"source '{name}' ('{source.path}') must not change while it is read, but did; "
                "nothing was published: run again when it is written."
            )


def plan_etl(loaded: LoadedSpec) -> EtlPlan:
    """Look at the sources and compute the build's key, without an engine.

    Raises:
        MissingError, DataError: a source is not there, holds nothing, or has files that would be
            passed over.
    """
    spec = loaded.spec
    files = {name: look_at(name, source, loaded) for name, source in spec.sources.items()}
    for name, found in files.items():
        refuse_half_carried(name, found)
    digests = {name: found.digest for name, found in files.items()}
    body = {
        "name": spec.name,
        "task": spec.task,
        # where they lie, however that is written: a submitted spec says it otherwise
        "sources": {
            name: {**source.model_dump(mode="json"), "path": loaded.resolve(source.path or "")}
            for name, source in spec.sources.items()
        },
        "sql": loaded.sql,
        "etl": spec.etl.model_dump(mode="json", exclude={"sql", "sql_file"}),
        "features": spec.features.model_dump(mode="json"),
        "segments": segments_to_carry(spec),
        "files": digests,
        "code": code_digest(CODE),
        "libraries": {name: library_versions().get(name) for name in LIBRARIES},
    }
    known = all(digest is not None for digest in digests.values())
    return EtlPlan(loaded=loaded, files=files, key=digest_of(body) if known else None)
