"""A search over a space: a study's trials, made where a training would be."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import TYPE_CHECKING

from arclight.bundle import SearchResult
from arclight.errors import ArclightError, LostWorkerError, RefusedError, SpecError
from arclight.folds import fold_rule
from arclight.search_space import Choice
from arclight.store import discard, make_folder, open_private
from arclight.study import Study, alone, candidates_of, leg_in, trial_lines, with_params
from arclight.trials import Trials
from arclight.tune_section import TRAINER
from arclight.workers import bounds_of
from ray_apps.crews import first_crew, search_crew
from ray_apps.losses import go_on_after_losses
from ray_apps.train import check_workers, fit_request
from ray_apps.trainers import TrainJob, load_trainer
from ray_apps.tuning.ask import check_sampler
from ray_apps.tuning.networks import Networks
from ray_apps.tuning.worker import REQUEST, SearchRequest, run_search
from ray_apps.versions import versions_that_count

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.plan import FeaturePlan
    from arclight.progress import Tell, Tick
    from arclight.search_space import Param, Range
    from arclight.spec import Spec
    from arclight.train_section import Train
    from arclight.trials import TrialLines
    from cluster.profiles import Profile
    from cluster.sizing import Crew

LET_GO_S = 10.0
"""After which a server has noticed that a process of a machine which answers has ended."""


def search(  # noqa: PLR0913 -- what of what, where, and who is told
    catalog: Catalog,
    manifest: DatasetManifest,
    spec: Spec,
    study: Study,
    *,
    profile: Profile,
    run_folder: Path,
    tick: Tick,
    tell: Tell,
) -> SearchResult:
    """Make a study's trials and return the best one.

    With workers Ray must be connected; `train.workers: 0` searches here.

    Raises:
        SpecError, RefusedError: the model could not be trained afterwards, on the nodes there are;
            or no trial gave a figure, and the first reason is told.
        LostWorkerError: workers were lost again and again; the same command goes on.
    """
    assert spec.tune is not None
    _check_model(manifest, spec, profile, run_folder)
    lines, since = trial_lines(catalog.store, study), time.time()

    # networks come one after another anyway
    is_asked = spec.tune.at_once or set(candidates_of(spec.train, spec.tune)) == {"torch"}

    def attempt(losses: int) -> None:
        assert spec.tune is not None
        before = Trials.read(lines).attempts
        # all cores of each node, however many will train the model
        crew, room = search_crew(spec.train, spec.tune, manifest, profile, run_folder)
        if not losses and room.at_once < crew.threads and not is_asked:
            tell(
                f"{room.at_once:,} trials at the same time, not {crew.threads:,}: memory has no "
                "room for more beside the rows that are binned."
            )
        request = SearchRequest(
            study=study,
            fit=fit_request(catalog, manifest, spec, crew),
            room=room,
            folds=fold_rule(spec, manifest, "tune"),
            versions={name: versions_that_count(name) for name in study.candidates},
            since=since,
            losses=losses,
        )
        work = run_folder / "search" / uuid.uuid4().hex[:8]
        make_folder(work)
        try:
            with open_private(work / REQUEST) as stream:
                stream.write(request.to_json().encode())
            _search_with(work, crew, tick, tell, here=spec.train.workers == 0)
        except LostWorkerError as error:
            _note(lines, study, before, error.message)
            raise
        finally:
            discard(work)

    try:
        go_on_after_losses(attempt, _Progress(lines), tell, unit="trial")
    except KeyboardInterrupt:
        _leave(lines, study)
        raise
    trials = Trials.read(lines)
    found = result_of(study, trials)
    trials.close(study.tune)
    if study.tune.population is not None and len(trials.ended) >= study.tune.trials:
        Networks(catalog.store, study).clear()
    return found


def result_of(study: Study, trials: Trials) -> SearchResult:
    """Return the best trial of a study.

    Raises:
        ArclightError: no trial ended.
        RefusedError: no trial gave a figure; the first reason is told.
    """
    best = study.best(trials)
    if best is None and not trials.ended:
        limit = study.tune.time_limit_s
        within = "" if limit is None else f" within tune.time_limit_s ({limit:,} s)"
        raise ArclightError(
            f"tune: no trial of study {study.ref} ended{within}; allow more, the same command "
            "goes on."
        )
    if best is None:
        first = next((t.reason for _, t in sorted(trials.ended.items()) if t.reason), "none ended")
        raise RefusedError(
            f"tune: of {len(trials.ended):,} trials of study {study.ref} none gave a figure; the "
            f"first one: {first.rstrip('.')}. None of them is made again: once that is mended, "
            "begin another study with --new-study."
        )
    leg = leg_in(study, trials, best)
    return SearchResult(
        study=study.ref,
        trial=best.number,
        value=best.value or 0.0,
        params=leg.params,
        params_after=leg.params_after or None,
        folds=study.tune.folds,
        trials=len(trials.ended),
        stopped=sum(t.state == "stopped" for t in trials.ended.values()),
        failed=sum(t.state == "failed" for t in trials.ended.values()),
    )


def check_space(spec: Spec, plan: FeaturePlan | None = None, *, workers: int = 0) -> None:
    """Refuse parameters that the trainer would not use, before anything starts.

    Every parameter is tried at both ends of its range, or with each of its choices, beside the
    train section's own, or beside the others' first values where it needs one of them; and all of
    them together at their first and their last values.

    Args:
        spec: with a tune section.
        plan: of the dataset; None where there is none yet.
        workers: that will train the model; 0: as many as the spec asks for at least.

    Raises:
        SpecError: the trainer refuses one; it is named.
    """
    assert spec.tune is not None
    check_sampler(spec.tune)
    for trainer, one in candidates_of(spec.train, spec.tune).items():
        ends = {name: _ends(values) for name, values in one.space.items()}
        alone = [(f".{name}", {name: value}) for name, tried in ends.items() for value in tried]
        together = [
            ("", {name: tried[place] for name, tried in ends.items()}) for place in (0, -1)
        ]
        path = f"tune.trainers.{trainer}.space" if spec.tune.among else "tune.space"
        for where, own in (*alone, *together):
            error = _refusal(spec, trainer, own, plan, workers)
            beside = {**together[0][1], **own}
            if error is None or _refusal(spec, trainer, beside, plan, workers) is None:
                continue
            text = error.message.removeprefix("train.params: ")
            if spec.tune.trainers == "auto":  # whose spaces no line of the spec has
                raise SpecError(
                    f"tune.trainers: train.params do not go beside what auto tries with "
                    f"{trainer}: {text} Leave it out of train.params."
                ) from error
            raise SpecError(f"{path}{where}: {text}") from error


def plain_job(
    spec: Spec, train: Train, plan: FeaturePlan | None = None, *, workers: int = 0
) -> TrainJob:
    """Return the job of a train section as far as it is known without data, or by a plan.

    Workers are so many, or, for 0, as many as the section asks for at least.
    """
    bounds = bounds_of(train.workers)
    return TrainJob(
        task=spec.task,
        categorical=plan.categorical if plan else (),
        features=len(plan.features) if plan else 0,
        metric=spec.metric,
        classes=2,
        params=dict(train.params),
        params_after=dict(train.params_after),
        imbalance=train.imbalance,
        seed=train.seed,
        workers=workers or bounds.most or bounds.least,
    )


# --------------------------------------------------------------------------------- inside


def _check_model(manifest: DatasetManifest, spec: Spec, profile: Profile, folder: Path) -> None:
    """Refuse what the training of the best trial would be refused for, before one is made."""
    assert spec.tune is not None
    for trainer in candidates_of(spec.train, spec.tune):
        train = with_params(spec.train, spec.tune, {TRAINER: trainer} if spec.tune.among else {})
        crew = first_crew(train, manifest, profile, folder)
        check_workers(manifest, crew.workers)
        check_space(spec, manifest.plan, workers=crew.workers)


def _refusal(
    spec: Spec, trainer: str, own: dict[str, Param], plan: FeaturePlan | None, workers: int
) -> SpecError | None:
    """Return why a trainer would not use the parameters of a trial; None where it would."""
    assert spec.tune is not None
    params = {TRAINER: trainer, **own} if spec.tune.among else own
    train = with_params(spec.train, spec.tune, params)
    try:
        load_trainer(trainer).check_params(plain_job(spec, train, plan, workers=workers))
    except SpecError as error:
        return error
    return None


def _search_with(folder: Path, crew: Crew, tick: Tick, tell: Tell, *, here: bool) -> None:
    """Make the trials in this process, in a worker of Ray, or on several nodes."""
    if here:
        run_search(folder, tick)
    elif crew.workers == 1:
        from ray_apps.ray_task import search_in_task  # noqa: PLC0415 -- needs Ray

        search_in_task(folder, tick, crew)
    else:
        from ray_apps.ray_search import search_on_nodes  # noqa: PLC0415 -- needs Ray

        search_on_nodes(folder, tick, tell, crew)


def _leave(lines: TrialLines, study: Study) -> None:
    """Note that trials which an interrupt ended, with their process, are not to blame."""
    with contextlib.suppress(ArclightError), alone(lines, study, LET_GO_S):
        trials = Trials.read(lines)
        for number in list(trials.begun):
            trials.leave(number)


def _note(lines: TrialLines, study: Study, before: dict[int, int], why: str) -> None:
    """Note why trials are gone with their process, where nobody knew better before it was.

    Args:
        lines: of the trials.
        study: that they are of.
        before: number -> attempts, before that process was there.
        why: it is gone.
    """
    with contextlib.suppress(ArclightError), alone(lines, study, LET_GO_S):
        trials = Trials.read(lines)
        for number in set(trials.begun) - set(trials.why_gone):
            if trials.attempts[number] > before.get(number, 0):
                trials.gone(number, why)


class _Progress:
    """How far a study is, for whoever decides whether a lost worker is worth another try."""

    def __init__(self, lines: TrialLines) -> None:
        self._lines = lines

    def progress(self) -> tuple[int, int]:
        """Return how many trials ended, and nothing besides."""
        return len(Trials.read(self._lines).ended), 0


def _ends(values: Range) -> tuple[Param, ...]:
    return values.choice if isinstance(values, Choice) else values.bounds
