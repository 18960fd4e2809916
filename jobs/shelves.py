"""`arclight models`, `datasets` and `runs`: list, and show one."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from arclight.errors import MissingError, nearest
from arclight.journal import is_open
from jobs.records import aliases_on, say_dataset, say_model
from jobs.runs import known_store, read_journal, run_ids
from jobs.say import answer, say, say_table

if TYPE_CHECKING:
    from arclight.catalog import Catalog
    from arclight.journal import Entry

Shelf = Literal["models", "datasets"]


def list_models(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List models and their aliases, a model's versions, or show one version."""
    catalog = known_store(store, Path.cwd())
    if name is not None and "@" in name:
        shown = catalog.model(name)
        answer(json.loads(shown.to_json()), as_json=as_json)
        if not as_json:
            say_model(catalog, shown)
        return
    names = (name,) if name else catalog.names("models")
    if name:
        catalog.model(name)  # names what there is, when it is not there
    rows = []
    for one in names:
        aliases = catalog.aliases(one)
        for bundle in catalog.models(one):
            valid = bundle.train_metrics.get("valid")
            rows.append(
                {
                    "model": bundle.ref,
                    "aliases": aliases_on(bundle, aliases),
                    "trainer": bundle.trainer,
                    "metric": bundle.metric,
                    "valid": valid,
                    "dataset": bundle.dataset,
                    "made_at": bundle.lineage.made_at,
                    "digest": bundle.model_digest,
                }
            )
    _list("models", rows, as_json=as_json)


def list_datasets(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List datasets, a dataset's versions, or show one version."""
    catalog = known_store(store, Path.cwd())
    if name is not None and "@" in name:
        shown = catalog.dataset(name)
        answer(json.loads(shown.to_json()), as_json=as_json)
        if not as_json:
            say_dataset(catalog, shown)
        return
    if name:
        catalog.dataset(name)
    rows = [
        {
            "dataset": manifest.ref,
            **{part: manifest.rows[part] for part in ("train", "valid", "test", "quarantine")},
            "test openings": sum(1 for _ in catalog.openings(manifest)),
            "made_at": manifest.lineage.made_at,
            "digest": manifest.content_digest,
        }
        for one in ((name,) if name else catalog.names("datasets"))
        for manifest in catalog.datasets(one)
    ]
    _list("datasets", rows, as_json=as_json)


def list_runs(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List runs, or show the journal of one."""
    catalog = known_store(store, Path.cwd())
    known = run_ids(catalog.store)
    if name in known:
        rows = [
            {
                "step": entry.step,
                "state": entry.state,
                "at": _time(entry.at),
                "seconds": entry.seconds,
                "result": entry.result or entry.detail,
            }
            for entry in read_journal(catalog.store, str(name))
        ]
    else:
        mine = run_ids(catalog.store, name or "")
        if name and not mine:
            raise MissingError(f"there is no run '{name}'.{nearest(name, known)}")
        rows = [_run_row(catalog, run_id) for run_id in mine]
    _list("runs", rows, as_json=as_json)


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


def _list(what: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    answer({what: rows}, as_json=as_json)
    if as_json:
        return
    if not rows:
        say(f"there are no {what} in this store yet.")
        return
    columns = [column for column in rows[0] if column != "digest"]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    say_table(what, columns, cells)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(value) if isinstance(value, list) else str(value)
