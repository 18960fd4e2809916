"""What of a spec decides about its dataset, and whether a dataset was built from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.contract import digest_of
from arclight.errors import RefusedError

if TYPE_CHECKING:
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.spec_file import LoadedSpec


def asked_of(loaded: LoadedSpec) -> dict[str, str]:
    """Return field -> digest of its value, of the fields that decide what rows and columns are.

    Not where the sources lie: the same tables may be found under another path or URL.
    """
    spec = loaded.spec
    etl = spec.etl.model_dump(mode="json", exclude={"sql_file"})  # wherever the SQL stands
    features = spec.features.model_dump(mode="json")
    read = {name: source.model_dump(mode="json") for name, source in spec.sources.items()}
    for source in read.values():
        del source["path"]
        source["options"].pop("url", None)
    values = {
        "task": spec.task,
        "sources": sorted(read),
        **{f"sources.{n}.{field}": v for n, source in read.items() for field, v in source.items()},
        **{f"etl.{name}": value for name, value in etl.items()},
        "etl.sql": loaded.sql,
        **{f"features.{name}": value for name, value in features.items()},
    }
    return {name: digest_of([value]) for name, value in values.items()}


def dataset_of(catalog: Catalog, loaded: LoadedSpec) -> DatasetManifest:
    """Return the newest version of the spec's dataset that was built from this spec.

    What an older release did not record is not known to differ: the newest is taken as it is, one
    before it must be known to be the spec's.

    Raises:
        MissingError: there is no dataset of this name.
        RefusedError: all are another spec's, with the first field in which the newest differs.
    """
    newest, now = catalog.dataset(loaded.spec.name), asked_of(loaded)
    try:
        check_built_from(newest, loaded)
    except RefusedError:
        for manifest in catalog.datasets(newest.name):
            if all(manifest.asked.get(name) == value for name, value in now.items()):
                return manifest
        raise
    return newest


def check_built_from(manifest: DatasetManifest, loaded: LoadedSpec) -> None:
    """Refuse a dataset that was built from another spec than this one.

    What an older release did not record is not known to differ, and taken as it is.

    Raises:
        RefusedError: with the first field that differs.
    """
    was, now = manifest.asked, asked_of(loaded)
    differs = next((name for name in now if was.get(name, now[name]) != now[name]), None)
    if differs is not None:
        raise RefusedError(
            f"dataset '{manifest.ref}' was built from another spec: {differs} is not what it was "
            f"then; run `arclight run` or `arclight etl` with this one, or take the change back."
        )
