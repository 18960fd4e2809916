"""`arclight models`, `datasets` and `runs`: list, and show one."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from arclight.beside import damaged_beside
from arclight.errors import IntegrityError, MissingError, nearest
from arclight.journal import is_open
from jobs.listing import Listing, tell_damaged
from jobs.records import aliases_on, say_dataset, say_model
from jobs.runs import known_store, read_journal, run_ids
from jobs.say import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arclight.alias_moves import AliasRecord
    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.journal import Entry
    from arclight.manifest import DatasetManifest

Shelf = Literal["models", "datasets"]


def list_models(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List models and their aliases, a model's versions, or show one version."""
    catalog = known_store(store, Path.cwd())
    if name is not None and "@" in name:
        shown = catalog.model(name)
        answer(json.loads(shown.to_json()), as_json=as_json)
        if not as_json:
            say_model(catalog, shown)
        tell_damaged(damaged_beside(catalog.store, shown.name, shown.number))
        return
    listing = Listing("models", "model")
    for one in _names(catalog, "models", name):
        aliases = catalog.aliases(one)
        for bundle in catalog.models(one):
            listing.rows.append(_model_row(bundle, aliases))
        listing.damaged |= catalog.damaged("models", one) | damaged_beside(catalog.store, one)
    listing.end(as_json=as_json)


def _model_row(bundle: ModelBundle, aliases: Mapping[str, AliasRecord]) -> dict[str, Any]:
    return {
        "model": bundle.ref,
        "aliases": aliases_on(bundle, aliases),
        "trainer": bundle.trainer,
        "metric": bundle.metric,
        "valid": bundle.train_metrics.get("valid"),
        "dataset": bundle.dataset,
        "made_at": bundle.lineage.made_at,
        "digest": bundle.model_digest,
    }


def list_datasets(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List datasets, a dataset's versions, or show one version."""
    catalog = known_store(store, Path.cwd())
    if name is not None and "@" in name:
        shown = catalog.dataset(name)
        answer(json.loads(shown.to_json()), as_json=as_json)
        if not as_json:
            say_dataset(catalog, shown)
        return
    listing = Listing("datasets", "dataset")
    for one in _names(catalog, "datasets", name):
        for manifest in catalog.datasets(one):
            with listing.reading(manifest.ref):
                listing.rows.append(_dataset_row(catalog, manifest))
        listing.damaged |= catalog.damaged("datasets", one)
    listing.end(as_json=as_json)


def _dataset_row(catalog: Catalog, manifest: DatasetManifest) -> dict[str, Any]:
    return {
        "dataset": manifest.ref,
        **{part: manifest.rows[part] for part in ("train", "valid", "test", "quarantine")},
        "test openings": sum(1 for _ in catalog.openings(manifest)),
        "made_at": manifest.lineage.made_at,
        "digest": manifest.content_digest,
    }


def _names(catalog: Catalog, shelf: Shelf, name: str | None) -> tuple[str, ...]:
    """Return the names to list: the one that was asked for, which must be there, or all."""
    if name is None:
        return catalog.names(shelf)
    with suppress(IntegrityError):  # a damaged version is there, and is listed as such
        catalog.model(name) if shelf == "models" else catalog.dataset(name)
    return (name,)


def list_runs(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List runs, or show the journal of one."""
    catalog = known_store(store, Path.cwd())
    known = run_ids(catalog.store)
    if name in known:
        listing = Listing("runs", "step")
        listing.rows += [_step_row(entry) for entry in read_journal(catalog.store, str(name))]
    else:
        mine = run_ids(catalog.store, name or "")
        if name and not mine:
            raise MissingError(f"there is no run '{name}'.{nearest(name, known)}")
        listing = Listing("runs", "run")
        for run_id in mine:
            with listing.reading(run_id):
                listing.rows.append(_run_row(catalog, run_id))
    listing.end(as_json=as_json)


def _step_row(entry: Entry) -> dict[str, Any]:
    return {
        "step": entry.step,
        "state": entry.state,
        "at": _time(entry.at),
        "seconds": entry.seconds,
        "result": entry.result or entry.detail,
    }


def _run_row(catalog: Catalog, run_id: str) -> dict[str, Any]:
    entries = read_journal(catalog.store, run_id)
    last = entries[-1] if entries else None
    return {
        "run": run_id,
        "state": _state(catalog, run_id, last),
        "last step": next((e.step for e in reversed(entries) if e.step != "run"), ""),
        "begun": _time(entries[0].at) if entries else "",
    }


def _state(catalog: Catalog, run_id: str, last: Entry | None) -> str:
    """Return how a run ended, or whether it lives; what was killed noted no end."""
    if last is not None and last.step == "run":
        return last.state
    if is_open(catalog.store.path("runs", run_id)):
        return "running"
    return "died" if last else "empty"


def _time(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).replace(microsecond=0).isoformat()
