"""What an ETL will do and the key of its result, known before any engine starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arclight.contract import digest_of
from arclight.inputs import SourceFiles, look_at
from arclight.lineage import code_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arclight.spec_file import LoadedSpec


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


def plan_etl(loaded: LoadedSpec) -> EtlPlan:
    """Look at the sources and compute the build's key, without an engine.

    Raises:
        MissingError, DataError: a source is not there or holds nothing.
    """
    spec = loaded.spec
    files = {name: look_at(name, source, loaded) for name, source in spec.sources.items()}
    digests = {name: found.digest for name, found in files.items()}
    body = {
        "name": spec.name,
        "task": spec.task,
        "sources": {n: s.model_dump(mode="json") for n, s in spec.sources.items()},
        "sql": loaded.sql,
        "etl": spec.etl.model_dump(mode="json"),
        "features": spec.features.model_dump(mode="json"),
        "segments": spec.evaluate.segments,
        "files": digests,
        "code": code_digest(("arclight", "spark")),
    }
    known = all(digest is not None for digest in digests.values())
    return EtlPlan(loaded=loaded, files=files, key=digest_of(body) if known else None)
