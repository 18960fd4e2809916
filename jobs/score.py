"""`arclight score`: predictions for a folder of raw rows."""

from __future__ import annotations

from pathlib import Path

from cluster.machine import look_at_machine
from cluster.profiles import load_profile
from cluster.sizing import plan_sizes
from jobs.runs import known_store
from jobs.say import answer, progress, say
from ray_apps.score import score_folder


def score_command(
    model: str, source: Path, output: Path, *, store: str | None, profile: str, as_json: bool
) -> None:
    """Score every row and write the predictions beside their keys."""
    catalog = known_store(store, Path.cwd())
    bundle = catalog.model(model)
    threads = plan_sizes(load_profile(profile), look_at_machine(catalog.store.root)).worker_threads
    with progress("score") as tick:
        result = score_folder(catalog, bundle, source, output, threads=threads, tick=tick)
    say(
        f"score: {result.rows_scored:,} rows by {bundle.ref} in {output}"
        + (f", {result.rows_rejected:,} rejected." if result.rows_rejected else ".")
    )
    body = {
        "model": bundle.ref,
        "rows": result.rows_scored,
        "rejected": result.rows_rejected,
        "reasons": result.reasons,
        "output": str(output),
    }
    answer(body, as_json=as_json)
