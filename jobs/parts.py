"""`arclight etl`, `train` and `evaluate`: one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.spec_file import load_spec
from cluster.profiles import load_profile
from jobs.check import check_without_running
from jobs.reports import say_figures, write_dataset_page
from jobs.runs import known_store, open_run, store_for
from jobs.say import answer, progress, say
from jobs.steps import Context, etl_step, train_step
from ray_apps.evaluate import evaluate_model

if TYPE_CHECKING:
    from pathlib import Path


def etl_command(
    spec_file: Path, *, store: str | None, profile: str, accept_schema: bool, as_json: bool
) -> None:
    """Build a dataset from raw tables."""
    loaded = load_spec(spec_file)
    check_without_running(loaded)
    place = load_profile(profile)
    with open_run(store_for(store, loaded.folder), loaded) as run:
        context = Context(run=run, loaded=loaded, profile=place)
        manifest = etl_step(context, accept_schema=accept_schema)
        page = write_dataset_page(run, manifest)
    say(f"profile: {page}")
    body = {
        "dataset": manifest.ref,
        "digest": manifest.content_digest,
        "rows": manifest.rows,
        "profile": str(page),
        "warnings": list(manifest.warnings),
    }
    answer(body, as_json=as_json)


def train_command(spec_file: Path, *, store: str | None, profile: str, as_json: bool) -> None:
    """Train on the newest version of the spec's dataset."""
    loaded = load_spec(spec_file)
    check_without_running(loaded)
    place = load_profile(profile)
    with open_run(store_for(store, loaded.folder, signs=True), loaded) as run:
        manifest = run.catalog.dataset(loaded.spec.name)
        bundle = train_step(Context(run=run, loaded=loaded, profile=place), manifest)
    body = {"model": bundle.ref, "digest": bundle.model_digest, "metrics": bundle.train_metrics}
    answer(body, as_json=as_json)


def evaluate_command(
    spec_file: Path, *, store: str | None, model: str | None, run_id: str, as_json: bool
) -> None:
    """Evaluate a model on the test split of its dataset; the opening is recorded."""
    loaded = load_spec(spec_file)
    catalog = known_store(store, loaded.folder)
    bundle = catalog.model(model or loaded.spec.name)
    manifest = catalog.dataset(bundle.dataset)
    with progress("evaluate") as tick:
        evaluation = evaluate_model(
            catalog,
            bundle,
            manifest,
            segments=loaded.spec.evaluate.segments,
            run=run_id,
            tick=tick,
        )
    say_figures(bundle, evaluation)
    body = {
        "kind": evaluation.kind,
        "version": evaluation.version,
        **evaluation.model_dump(mode="json"),
    }
    answer({"model": bundle.ref, "evaluation": body}, as_json=as_json)
