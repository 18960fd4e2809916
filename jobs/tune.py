"""`arclight tune`, and the second step of a run with a tune section: a search and its model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from arclight.dataset_spec import dataset_of
from arclight.errors import SpecError
from arclight.spec_file import load_spec
from arclight.study import open_study, trial_lines, with_params
from arclight.trial_table import reach
from arclight.trials import Trials
from cluster.profiles import load_profile
from jobs.check import check_without_running
from jobs.runs import Context, open_run, store_for
from jobs.say import answer, progress, say
from jobs.studies import LiveTable, say_best, write_study_page
from jobs.submissions import ASKED_BY
from jobs.train import train_step, workers
from ray_apps.tune import check_space, result_of, search
from ray_apps.tuning.ask import LEARNING, points_of
from ray_apps.tuning.learner import STARTUP

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.bundle import ModelBundle, SearchResult
    from arclight.manifest import DatasetManifest
    from arclight.spec import Spec
    from arclight.study import Study


ASKED_ANEW = {"space", "trainers"}


@dataclass(frozen=True)
class Asked:
    """How a search was asked for, beside the spec.

    Attributes:
        new_study: begin another study, whatever there is.
        auto: among all trainers that are installed, with spaces of ours; what else the tune
            section says stands.
    """

    new_study: bool = False
    auto: bool = False


def tune_command(
    spec_file: Path, asked: Asked, *, store: str | None, profile: str, as_json: bool
) -> None:
    """Search on the newest dataset that was built from the spec, and train with the best trial's.

    Raises:
        SpecError: the spec has no tune section.
    """
    try:
        loaded = load_spec(spec_file, _among_all if asked.auto else None)
    except SpecError as error:
        if not asked.auto or error.message.startswith("--auto") or _is_plain(spec_file, error):
            raise
        raise SpecError(f"with --auto: {error.message}") from error
    if loaded.spec.tune is None:
        raise SpecError(
            f"{loaded.where('tune')}: 'tune' must say what is searched; see docs/spec.md, or "
            "search among all trainers: arclight tune --auto."
        )
    place = load_profile(profile)
    check_without_running(loaded, place)
    check_storage(loaded.spec)
    with open_run(store_for(store, loaded.folder, signs=True), loaded) as run:
        manifest = dataset_of(run.catalog, loaded)
        context = Context(run=run, loaded=loaded, profile=place)
        bundle, found = tune_step(context, manifest, new_study=asked.new_study)
    body = {"model": bundle.ref, "digest": bundle.model_digest, "metrics": bundle.train_metrics}
    answer({**body, "search": found.model_dump(mode="json")}, as_json=as_json)


def check_storage(spec: Spec) -> None:
    """Refuse to begin anything for a database of trials that is not there.

    Raises:
        ArclightError: it cannot be reached.
    """
    if spec.tune is not None and spec.tune.storage is not None:
        reach(spec.tune.storage)


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
    asked_by = os.environ.get(ASKED_BY, "") if new_study else ""
    study, trials = open_study(run.catalog.store, manifest, spec, new=new_study, asked_by=asked_by)
    if len(trials.ended) > study.tune.trials:
        say(
            f"tune: study {study.ref} has {len(trials.ended):,} trials, more than tune.trials "
            f"({study.tune.trials:,}); all of them count. --new-study begins another.",
            style="yellow",
        )
    if trials.is_over_for(study.tune):
        found = result_of(study, trials)
        run.skip("tune", key=study.key, result=study.ref)
        say(f"tune: study {study.ref} is over: {found}.")
    else:
        check_space(spec, manifest.plan)
        _say_what_begins(study, trials, new_study=new_study)
        shown = progress("tune", LiveTable(run.catalog.store, study))
        with run.step("tune", key=study.key) as note, shown as tick, workers(context):
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
        say_best(study, Trials.read(trial_lines(run.catalog.store, study)))
        say(f"tune: page {write_study_page(run.catalog.store, study)}")
        say(f"tune: {found}.")
    trials = Trials.read(trial_lines(run.catalog.store, study))
    _say_what_is_left(study, trials)
    best = trials.ended[found.trial]
    if study.is_on_the_way(best):
        say(
            f"tune: no trial had all its rounds, and there is no early stopping: trial "
            f"{best.number} was the best after {best.rounds:,}, and the model, which has all of "
            "them, will have another figure.",
            style="yellow",
        )
    assert spec.tune is not None
    train = with_params(spec.train, spec.tune, found.params, found.params_after)
    told = replace(context.loaded, spec=spec.model_copy(update={"train": train}))
    return train_step(replace(context, loaded=told), manifest, found), found


def _say_what_begins(study: Study, trials: Trials, *, new_study: bool) -> None:
    """Say with what a search goes on, and where its trials are not those one would think of."""
    if trials.ended:
        say(f"tune: going on with study {study.ref}: {len(trials.ended):,} trials ended.")
    elif new_study:
        say(f"tune: study {study.ref} begins; without --new-study the same command goes on.")
    _say_whose_params(study)
    if study.tune.sampler in LEARNING and study.tune.trials <= STARTUP:
        say(
            f"tune: the first {STARTUP} trials are by chance, so that with "
            f"{study.tune.trials:,} {study.tune.sampler} does not come to its turn.",
            style="yellow",
        )
    if study.tune.sampler == "grid" and study.tune.trials < points_of(study.tune):
        say(
            f"tune: {study.tune.trials:,} of the grid's {points_of(study.tune):,} points are "
            "tried, by chance; set tune.trials for more.",
            style="yellow",
        )


def _say_whose_params(study: Study) -> None:
    """Say which of the train section's parameters trials of several trainers do not have."""
    given, own = study.train.params, study.train.trainer
    others = [name for name in study.candidates if name != own]
    if not given or not others:
        return
    say(
        f"tune: train.params ({', '.join(given)}) are those of {own}: trials of "
        f"{' and '.join(others)} are made without them.",
        style="yellow",
    )
    one = study.candidates.get(own)
    other = [n for n, value in given.items() if one is not None and one.params.get(n) != value]
    if other:
        say(
            f"tune: of train.params, {', '.join(other)} will be what the search has for {own}.",
            style="yellow",
        )


def _say_what_is_left(study: Study, trials: Trials) -> None:
    """Say how a search goes on that its time has ended."""
    tune = study.tune
    wanted = min(tune.trials, points_of(tune)) if tune.sampler == "grid" else tune.trials
    left = wanted - len(trials.ended)
    if tune.time_limit_s is not None and left > 0 and not study.has_reached(trials):
        goal = "" if tune.target is None else f" and tune.target ({tune.target:g}) is not reached"
        say(
            f"tune: {left:,} of {wanted:,} trials are left{goal}, since tune.time_limit_s "
            f"({tune.time_limit_s:,} s) was over; the same command makes them with another limit.",
            style="yellow",
        )


def _is_plain(spec_file: Path, error: SpecError) -> bool:
    """Say whether a spec is wrong in the same way without --auto."""
    try:
        load_spec(spec_file)
    except SpecError as plain:
        return plain.message == error.message
    return False


def _among_all(body: dict[str, Any]) -> None:
    """Have a spec search among all trainers, for as long as its own search would.

    Raises:
        SpecError: something else that it says stands in the way.
    """
    own = {} if body.get("tune") is None else body["tune"]
    if not isinstance(own, dict):
        return  # which is told as it is
    if own.get("population"):
        raise SpecError(
            "--auto chooses among trainers, but tune.population is of networks alone; leave out "
            "--auto, or population and its scheduler."
        )
    kept = {name: value for name, value in own.items() if name not in ASKED_ANEW}
    body["tune"] = {**kept, "trainers": "auto"}
