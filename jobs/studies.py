"""`arclight studies`: list searches, show one, and the table that is shown while one runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arclight.errors import ArclightError, MissingError, nearest
from arclight.pages.study_page import study_page
from arclight.pareto import front
from arclight.store import make_folder, replace_file
from arclight.study import find_study, studies_of, study_folder, trained_by, trial_lines
from arclight.trials import Trials, seconds_of
from jobs.listing import Listing
from jobs.runs import known_store
from jobs.say import answer, say, say_table, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from arclight.search_space import Param
    from arclight.store import Store
    from arclight.study import Study
    from arclight.trials import Trial

PAGE = "study.html"
SHOWN = 5
LISTED = 20


def list_studies(name: str | None, *, store: str | None, as_json: bool) -> None:
    """List studies, those of a name, or show one and write its page.

    Raises:
        MissingError: there is no such study.
        IntegrityError: a study's record or trials are damaged; the others are listed.
        ArclightError: the server that has the trials of one is not there.
    """
    catalog = known_store(store, Path.cwd())
    held = catalog.store
    if name is not None and "@" in name:
        _show(held, find_study(held, name), as_json=as_json)
        return
    names = catalog.names("studies")
    if name is not None and name not in names:
        raise MissingError(f"there is no study '{name}'.{nearest(name, names)}")
    listing = Listing("studies", "study")
    for one in names if name is None else (name,):
        for number in studies_of(held, one):
            with listing.reading(f"{one}@{number}"):
                study = find_study(held, f"{one}@{number}")
                listing.rows.append(_row(study, Trials.read(trial_lines(held, study))))
    listing.end(as_json=as_json)


def write_study_page(store: Store, study: Study) -> Path:
    """Write the page of a study beside its trials and return its path."""
    from ray_apps.tuning.importance import importance_of  # noqa: PLC0415 -- may need Optuna

    folder, trials = study_folder(store, study), Trials.read(trial_lines(store, study))
    make_folder(folder)  # there is none before the first trial
    page = study_page(study, trials, importance_of(study, trials))
    replace_file(folder / PAGE, page.encode())
    return folder / PAGE


def say_best(study: Study, trials: Trials, limit: int = SHOWN) -> None:
    """Print the best trials of a study, the best first."""
    ranked = study.ranked(trials)
    lines = [_line(study, trial) for trial in ranked[:limit]]
    # some that were stopped have no figure
    what = f"the best {len(lines):,} of {len(trials.ended):,} trials"
    say_table(f"study {study.ref}, {what}", _columns(study), lines)
    if why := study.why_ranked(trials):
        say(why)
    if study.tune.also:
        best = [_line(study, trial) for trial in front(study, list(trials.ended.values()))]
        say_table("no other trial beats these in every figure", _columns(study), best[:limit])


class LiveTable:
    """Draws a study as it is now: its best trials, and those that run."""

    def __init__(self, store: Store, study: Study) -> None:
        self._study, self._trials = study, Trials(trial_lines(store, study))

    def __call__(self) -> Table:
        """Return the table; of the lines what is new is read, if they can be read just now."""
        with contextlib.suppress(ArclightError):  # the search itself tells
            self._trials.read_on()
        study, trials = self._study, self._trials
        lines = [_line(study, trial) for trial in study.ranked(trials)[:SHOWN]]
        lines += [
            (number, "", *("" for _ in study.tune.also), "", "running", *_values(study, params))
            for number, params in sorted(trials.begun.items())[-SHOWN:]
        ]
        return table_of(f"study {study.ref}", _columns(study), lines)


# --------------------------------------------------------------------------------- inside


def _show(store: Store, study: Study, *, as_json: bool) -> None:
    trials = Trials.read(trial_lines(store, study))
    body = _row(study, trials)
    if as_json:
        ended = [trials.ended[n].model_dump(mode="json") for n in sorted(trials.ended)]
        answer({**body, "trials": ended, "begun": sorted(trials.begun)}, as_json=True)
        return
    say_best(study, trials, LISTED)
    spent = seconds_of(trials)
    say(
        f"{body['state']}: {len(trials.ended):,} of {body['asked']:,} trials ended, "
        f"{len(trials.begun):,} begun and not ended, "
        f"{body['stopped']:,} stopped early, {body['failed']:,} failed; {spent.training:.1f} s "
        f"of training, {spent.judging:.1f} s of judging, {spent.binning:.1f} s of binning, "
        f"{spent.queue:.1f} s of waiting."
    )
    try:
        say(f"page: {write_study_page(store, study)}")
    except OSError as error:
        say(f"page: not written, the store takes no file from you ({error.strerror}).")


def _row(study: Study, trials: Trials) -> dict[str, Any]:
    best = study.best(trials)
    ended = trials.ended.values()
    return {
        "study": study.ref,
        "dataset": study.dataset,
        "trainer": ", ".join(study.candidates),
        "sampler": study.tune.sampler,
        "scheduler": study.tune.scheduler,
        "trials": len(trials.ended),
        "asked": (trials.budget or {}).get("trials", study.tune.trials),
        "stopped": sum(t.state == "stopped" for t in ended),
        "failed": sum(t.state == "failed" for t in ended),
        "metric": study.metric,
        "best": None if best is None else best.value,
        "state": "open" if trials.over is None else "over",
    }


def _columns(study: Study) -> Sequence[str]:
    own = ("trainer", "parameters") if study.tune.among else study.names
    return ("trial", study.metric, *study.tune.also, "rounds trained", "state", *own)


def _line(study: Study, trial: Trial) -> tuple[object, ...]:
    value = "none" if trial.value is None else f"{trial.value:.5f}"
    others = [_other(trial.others[n]) if n in trial.others else "none" for n in study.tune.also]
    told = (trial.number, value, *others, f"{trial.rounds:,}", trial.state)
    return *told, *_values(study, trial.params)


def _other(value: float) -> str:
    """Return a figure; sizes are whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.5g}"


def _values(study: Study, params: dict[str, Param]) -> list[object]:
    found = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in params.items()}
    if not study.tune.among:
        return [found.get(name) for name in study.names]
    trainer, own = trained_by(study.train, study.tune, params)
    return [trainer, ", ".join(f"{name} {found[name]}" for name in own)]
