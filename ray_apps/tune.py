"""A search over a space: a study's trials, made where a training would be."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from arclight.bundle import SearchResult
from arclight.errors import RefusedError, SpecError
from arclight.search_space import Choice
from arclight.store import discard, make_folder, open_private
from arclight.study import Study, Trials, trials_path
from arclight.workers import bounds_of
from ray_apps.crews import first_crew
from ray_apps.losses import go_on_after_losses
from ray_apps.train import fit_request
from ray_apps.trainers import TrainJob, load_trainer
from ray_apps.tuning.ask import check_sampler
from ray_apps.tuning.worker import REQUEST, SearchRequest, run_search

if TYPE_CHECKING:
    from pathlib import Path

    from arclight.catalog import Catalog
    from arclight.manifest import DatasetManifest
    from arclight.progress import Tell, Tick
    from arclight.search_space import Range
    from arclight.spec import Spec
    from arclight.study import Param
    from cluster.profiles import Profile


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
        RefusedError: no trial gave a figure; the first reason is told.
        LostWorkerError: the worker was lost again and again; the same command goes on.
    """
    # one worker, with all cores of a node, however many will train the model
    one = spec.train.model_copy(update={"workers": 0 if spec.train.workers == 0 else 1})
    crew = first_crew(one, manifest, profile, run_folder)
    threads = crew.threads
    at_once = _at_once(spec, threads)
    request = SearchRequest(
        study=study,
        fit=fit_request(catalog, manifest, spec, crew),
        at_once=at_once,
        since=time.time(),
    )
    path = trials_path(catalog.store, study)

    def attempt(_: int) -> None:
        work = run_folder / "search" / uuid.uuid4().hex[:8]
        make_folder(work)
        try:
            with open_private(work / REQUEST) as stream:
                stream.write(request.to_json().encode())
            if spec.train.workers == 0:
                run_search(work, tick)
            else:
                from ray_apps.ray_task import search_in_task  # noqa: PLC0415 -- needs Ray

                search_in_task(work, tick, threads=threads)
        finally:
            discard(work)

    go_on_after_losses(attempt, _Progress(path), tell, unit="trial")
    trials = Trials.read(path)
    found = result_of(study, trials)
    trials.close(study.tune)
    return found


def result_of(study: Study, trials: Trials) -> SearchResult:
    """Return the best trial of a study.

    Raises:
        RefusedError: no trial gave a figure; the first reason is told.
    """
    best = trials.best(study.metric)
    if best is None:
        first = next((t.reason for _, t in sorted(trials.ended.items()) if t.reason), "none ended")
        raise RefusedError(
            f"tune: of {len(trials.ended):,} trials of study {study.ref} none gave a figure; the "
            f"first one: {first}"
        )
    return SearchResult(
        study=study.ref,
        trial=best.number,
        value=best.value or 0.0,
        params=dict(best.params),
        trials=len(trials.ended),
        stopped=sum(t.state == "stopped" for t in trials.ended.values()),
        failed=sum(t.state == "failed" for t in trials.ended.values()),
    )


def check_space(spec: Spec) -> None:
    """Refuse parameters that the trainer would not use, before anything starts.

    Every parameter is tried at both ends of its range, or with each of its choices, beside the
    train section's own; and all of them together at their first and their last values.

    Raises:
        SpecError: the trainer refuses one; it is named.
    """
    assert spec.tune is not None
    check_sampler(spec.tune)
    trainer, space = load_trainer(spec.train.trainer), spec.tune.space
    alone = [(f".{n}", {n: value}) for n, one in space.items() for value in _ends(one)]
    together = [("", {n: _ends(one)[place] for n, one in space.items()}) for place in (0, -1)]
    for where, params in (*alone, *together):
        try:
            trainer.check_params(plain_job(spec, params))
        except SpecError as error:
            text = error.message.removeprefix("train.params: ")
            raise SpecError(f"tune.space{where}: {text}") from error


def plain_job(spec: Spec, params: dict[str, Param]) -> TrainJob:
    """Return a spec's job as far as it is known without data."""
    bounds = bounds_of(spec.train.workers)
    return TrainJob(
        task=spec.task,
        categorical=(),
        metric=spec.metric,
        classes=2,
        params={**spec.train.params, **params},
        imbalance=spec.train.imbalance,
        seed=spec.train.seed,
        workers=bounds.most or bounds.least,
    )


# --------------------------------------------------------------------------------- inside


class _Progress:
    """How far a study is, for whoever decides whether a lost worker is worth another try."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def progress(self) -> tuple[int, int]:
        """Return how many trials ended, and nothing besides."""
        return len(Trials.read(self._path).ended), 0


def _at_once(spec: Spec, threads: int) -> int:
    """Return how many trials run at the same time: one a core, each with one thread.

    Networks one after another with all threads: they draw from one generator in a process.
    """
    assert spec.tune is not None
    if spec.train.trainer == "torch":
        return 1
    return min(spec.tune.at_once or threads, threads)


def _ends(values: Range) -> tuple[Param, ...]:
    return values.choice if isinstance(values, Choice) else values.bounds
