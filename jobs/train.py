"""`arclight train`, and the second step of a run: a dataset to a model, or the one that stands."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from arclight.bundle import measured_part
from arclight.dataset_spec import dataset_of
from arclight.errors import printable
from arclight.finetune import label_of, new_levels, plan_from
from arclight.leak import leak_told
from arclight.spec_file import load_spec
from arclight.train_section import ELSEWHERE
from cluster.profiles import load_profile
from cluster.ray_session import ray_session
from jobs.check import check_without_running
from jobs.runs import Context, open_run, or_another, store_for
from jobs.say import answer, progress, say
from ray_apps.predictor import check_bundle_files
from ray_apps.train import check_training, find_origin, model_key, train_model

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import ModelBundle, SearchResult
    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.train_section import Init


def train_command(spec_file: Path, *, store: str | None, profile: str, as_json: bool) -> None:
    """Train on the newest dataset that was built from the spec."""
    loaded = load_spec(spec_file)
    place = load_profile(profile)
    check_without_running(loaded, place)
    with open_run(store_for(store, loaded.folder, signs=True), loaded) as run:
        manifest = dataset_of(run.catalog, loaded)
        bundle = train_step(Context(run=run, loaded=loaded, profile=place), manifest)
    body = {"model": bundle.ref, "digest": bundle.model_digest, "metrics": bundle.train_metrics}
    answer(body, as_json=as_json)


def train_step(
    context: Context, manifest: DatasetManifest, found: SearchResult | None = None
) -> ModelBundle:
    """Return the model of the dataset and the train section, trained now or published before.

    Args:
        context: what every step needs.
        manifest: the dataset.
        found: the search that the train section's parameters come from.
    """
    run, spec = context.run, context.loaded.spec
    origin = find_origin(run.catalog, manifest, spec)
    key = model_key(manifest, spec, origin)
    known = run.catalog.find_model(spec.name, key)
    if known is not None:
        with or_another("Another train.seed makes another model"):
            check_bundle_files(run.catalog.folder(known), known)
        run.skip("train", key=key, result=known.ref)
        say(
            f"train: dataset, parameters and code are unchanged: model {known.ref} stands "
            f"({', '.join(ELSEWHERE)} do not count)."
        )
        return known
    check_training(run.catalog, manifest, spec, origin)
    if origin is not None and spec.train.init is not None:
        say_start(run.catalog, origin, manifest, spec.train.init)
    with run.step("train", key=key) as note, progress("train") as tick:
        with workers(context):
            bundle = train_model(
                run.catalog,
                manifest,
                spec,
                profile=context.profile,
                run_folder=run.folder,
                tick=tick,
                tell=lambda sentence: say(f"train: {sentence}", style="yellow"),
                origin=origin,
                found=found,
            )
        note.result = bundle.ref
    figures = ", ".join(
        f"{split} {value:.4f}{measured_part(split, manifest.rows)}"
        for split, value in bundle.train_metrics.items()
    )
    if bundle.metric == "f1" and spec.train.costs is not None and bundle.threshold is not None:
        # rounds and trials are judged by the best F1 there is
        figures += f", at the threshold of the least cost, {bundle.threshold:.4f}"
    say(f"train: model {bundle.ref}, {bundle.rounds} rounds, {bundle.metric}: {figures}.")
    if leak := leak_told(bundle):
        say(f"train: {leak}.", style="yellow")
    if bundle.cross_validation is not None:
        say(f"train: cross-validation, {bundle.metric}: {bundle.cross_validation}.")
    if bundle.transfer is not None:
        style = "yellow" if bundle.transfer.is_negative else ""
        say(f"train: {bundle.metric} on valid {bundle.transfer}.", style=style)
        if not bundle.transfer.is_test_new:
            say(
                f"train: nothing shows that the test rows are new to {bundle.transfer.model}: if "
                "it has seen them, figures are too good.",
                style="yellow",
            )
    return bundle


def say_start(
    catalog: Catalog, origin: ModelBundle, manifest: DatasetManifest, init: Init
) -> None:
    """Say which model a training starts from, and where that is not alike."""
    say(f"train: starting from {origin.ref} ({origin.rounds:,} rounds, dataset {origin.dataset}).")
    label = label_of(catalog, origin)
    if label not in (None, manifest.label):
        say(
            f"train: {origin.ref} predicts '{printable(label)}', and not "
            f"'{printable(manifest.label)}'.",
            style="yellow",
        )
    for name, count in new_levels(plan_from(origin, manifest, init), manifest).items():
        say(
            f"train: {origin.ref} takes {count:,} of the levels that '{printable(name)}' has now "
            "for unknown ones, which are all alike to it.",
            style="yellow",
        )


def workers(context: Context) -> AbstractContextManager[object]:
    """Return Ray for the length of a training, or nothing when it runs in this process."""
    if context.loaded.spec.train.workers == 0:
        return nullcontext()
    return ray_session(context.profile, log_folder=context.run.logs)
