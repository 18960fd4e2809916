"""`arclight tune`, and the second step of a run with a tune section: a search and its model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from arclight.errors import SpecError
from arclight.spec_file import load_spec
from arclight.study import Trials, open_study, trials_path, with_params
from cluster.profiles import load_profile
from jobs.check import check_without_running
from jobs.runs import Context, open_run, store_for
from jobs.say import answer, progress, say, say_table
from jobs.train import train_step, workers
from ray_apps.tune import result_of, search

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import ModelBundle, SearchResult
    from arclight.manifest import DatasetManifest
    from arclight.study import Study

SHOWN = 5


def tune_command(
    spec_file: Path, *, store: str | None, profile: str, new_study: bool, as_json: bool
) -> None:
    """Search on the newest version of the spec's dataset, and train with the best parameters.

    Raises:
        SpecError: the spec has no tune section.
    """
    loaded = load_spec(spec_file)
    if loaded.spec.tune is None:
        raise SpecError(
            f"{loaded.where('tune')}: 'tune' must say what is searched; see docs/spec.md, or "
            "train without a search: arclight train."
        )
    place = load_profile(profile)
    check_without_running(loaded, place)
    with open_run(store_for(store, loaded.folder, signs=True), loaded) as run:
        manifest = run.catalog.dataset(loaded.spec.name)
        context = Context(run=run, loaded=loaded, profile=place)
        bundle, found = tune_step(context, manifest, new_study=new_study)
    body = {"model": bundle.ref, "digest": bundle.model_digest, "metrics": bundle.train_metrics}
    answer({**body, "search": found.model_dump(mode="json")}, as_json=as_json)


def tune_step(
    context: Context, manifest: DatasetManifest, *, new_study: bool = False
) -> tuple[ModelBundle, SearchResult]:
    """Return the model of the best trial's parameters, trained as the spec says, and that trial.

    Args:
        context: what every step needs; its spec has a tune section.
        manifest: the dataset.
        new_study: begin another study, whatever there is.

    Raises:
        RefusedError: the newest study is not over and is another one, or no trial gave a figure.
    """
    run, spec = context.run, context.loaded.spec
    study, trials = open_study(run.catalog.store, manifest, spec, new=new_study)
    if trials.is_over_for(study.tune):
        found = result_of(study, trials)
        run.skip("tune", key=study.key, result=study.ref)
        say(f"tune: study {study.ref} is over: {found}.")
    else:
        if trials.ended:
            say(f"tune: going on with study {study.ref}: {len(trials.ended):,} trials ended.")
        with run.step("tune", key=study.key) as note, progress("tune") as tick, workers(context):
            found = search(
                run.catalog,
                manifest,
                spec,
                study,
                profile=context.profile,
                run_folder=run.folder,
                tick=tick,
                tell=lambda sentence: say(f"tune: {sentence}", style="yellow"),
            )
            note.result = study.ref
        _say_best(study, Trials.read(trials_path(run.catalog.store, study)))
        say(f"tune: {found}.")
    train = with_params(spec.train, found.params)
    told = replace(context.loaded, spec=spec.model_copy(update={"train": train}))
    return train_step(replace(context, loaded=told), manifest, found), found


def _say_best(study: Study, trials: Trials) -> None:
    """Print the best trials, the best first."""
    ranked = trials.ranked(study.metric)[:SHOWN]
    names = list(study.tune.space)
    lines = [
        (
            trial.number,
            "none" if trial.value is None else f"{trial.value:.5f}",
            f"{trial.rounds:,}",
            trial.state,
            *(f"{v:.4g}" if isinstance(v, float) else v for v in map(trial.params.get, names)),
        )
        for trial in ranked
    ]
    say_table(f"study {study.ref}", ("trial", study.metric, "rounds", "state", *names), lines)
