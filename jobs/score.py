"""`arclight score`: predictions for a folder of raw rows."""

from __future__ import annotations

from pathlib import Path

from ray_apps.score import score_folder

from cluster.profiles import load_profile
from cluster.sizing import usable_cores
from jobs.runs import store_for
from jobs.say import answer, progress, say


def score_command(
    model: str, source: Path, output: Path, *, store: str | None, profile: str, as_json: bool
) -> None:
    """Score every row and write the predictions beside their keys."""
    catalog = store_for(store, Path.cwd())
    bundle = catalog.model(model)
    threads = usable_cores(load_profile(profile))
    with progress("score") as tick:
        result = score_folder(catalog, bundle, source, output, threads=threads, tick=tick)
    say(
        f"score: {result.rows:,} rows by {bundle.ref} in {output}"
        + (f", {result.rejected:,} rejected." if result.rejected else ".")
    )
    body = {
        "model": bundle.ref,
        "rows": result.rows,
        "rejected": result.rejected,
        "output": str(output),
    }
    answer(body, as_json=as_json)
