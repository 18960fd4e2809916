"""`arclight score`: predictions for a folder of raw rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arclight.ledger import name_reasons
from cluster.machine import look_at_machine
from cluster.profiles import load_profile
from cluster.sizing import plan_sizes
from jobs.runs import known_store
from jobs.say import answer, progress, say
from ray_apps.score import MANIFEST, score_folder
from ray_apps.unusual import told

if TYPE_CHECKING:
    from collections.abc import Sequence


def score_command(  # noqa: PLR0913 -- model, input, output, and how, by keyword
    model: str,
    source: Path,
    output: Path,
    *,
    keep: Sequence[str] | None = None,
    store: str | None,
    profile: str,
    as_json: bool,
) -> None:
    """Score every row and write the predictions beside their keys, or the columns to keep."""
    catalog = known_store(store, Path.cwd())
    bundle = catalog.model(model)
    threads = plan_sizes(load_profile(profile), look_at_machine(catalog.store.root)).cores
    with progress("score") as tick:
        result = score_folder(
            catalog, bundle, source, output, threads=threads, tick=tick, keep=keep
        )
    rejected = f", {result.rows_rejected:,} rejected ({name_reasons(result.reasons)})"
    say(
        f"score: {result.rows_scored:,} rows by {bundle.ref} in {output}"
        f"{rejected if result.rows_rejected else ''}."
    )
    unlike = told(result.unusual)
    if unlike:
        say(f"scored, but rare or new to the model: {unlike}; see '{output / MANIFEST}'.")
    body = {
        "model": bundle.ref,
        "rows": result.rows_scored,
        "rejected": result.rows_rejected,
        "reasons": result.reasons,
        "unusual": result.unusual,
        "output": str(output),
    }
    answer(body, as_json=as_json)
