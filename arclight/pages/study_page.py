"""The page of a search: what came out, how it went, what decided, and where the time went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from arclight.metrics import METRICS
from arclight.pages.column_charts import Bar, ranking_chart
from arclight.pages.frame import render
from arclight.pages.study_charts import (
    LINES,
    history_chart,
    learning_chart,
    parallel_chart,
    slice_chart,
    trade_chart,
)
from arclight.pages.words import UNKNOWN, count, number
from arclight.pareto import figures_of, front
from arclight.population import line_of
from arclight.study import leg_in, trained_by, with_params
from arclight.train_section import ELSEWHERE
from arclight.trials import LAST_TIME, budget_of, seconds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from arclight.study import Study
    from arclight.trials import Trial, Trials

SLICES = 12
"""Parameters with a chart of their own, the first of the importance."""
LISTED = 500
AGAIN = 20
REASONS = 5


@dataclass(frozen=True)
class _Found:
    """What a study with at least one figure shows."""

    best: Trial
    value: str
    section: list[str]
    history: Markup
    learning: Markup
    parallel: Markup
    importance: Markup | None
    trades: list[tuple[str, Markup | None]]
    """Other figures, and how far they are weighed against the metric."""
    front: list[tuple[int, list[str]]]
    """Trials that no other one beats, and their figures."""
    slices: list[tuple[str, Markup]]
    trainer: str
    figures: int
    """Trials of that trainer that have one."""
    trainers: list[tuple[str, list[str]]]
    """Where a search chose among several: trials, best figure, seconds of each."""


def study_page(study: Study, trials: Trials, importance: Mapping[str, float] | None = None) -> str:
    """Return the page of a study as one file of HTML; it opens no file.

    Args:
        study: what was searched.
        trials: those it made, at any time of it.
        importance: parameter of the best trial's trainer -> its part of what sets the best trials
            apart, the largest first; None where there are too few trials to say it, or no Optuna.
    """
    ranked, tune = study.ranked(trials), study.tune
    found = _found(study, trials, ranked, importance) if ranked else None
    listed = [*ranked, *(t for _, t in sorted(trials.ended.items()) if t.value is None)]
    sections = [("result", "Result"), ("history", "History"), ("parameters", "Parameters")]
    return render(
        "study.html.j2",
        title=f"Study {study.ref}",
        sections=[*(sections if found else sections[:1]), ("time", "Time"), ("trials", "Trials")],
        study=study,
        why_ranked=study.why_ranked(trials),
        judged=f"on {tune.folds} folds of train" if tune.folds else "on its valid split",
        found=found,
        states=_states(trials),
        asked=_asked(study, trials),
        reasons=_reasons(trials),
        seconds=seconds_of(trials),
        names=study.names,
        lines=[_line(trial, study) for trial in listed[:LISTED]],
        all_trials=len(trials.ended),
        listed=LISTED,
        drawn=LINES,
        better="higher" if METRICS[study.metric].higher_is_better else "lower",
    )


# --------------------------------------------------------------------------------- inside


def _found(
    study: Study, trials: Trials, ranked: list[Trial], importance: Mapping[str, float] | None
) -> _Found:
    metric = study.metric
    trainer, _ = trained_by(study.train, study.tune, ranked[0].params)
    space, mine = study.candidates[trainer].space, study.trials_by(trainer, ranked)
    first = [*(importance or {}), *space]
    names = list(dict.fromkeys(name for name in first if name in space))
    bars = [Bar(name, {"train": part}) for name, part in (importance or {}).items()]
    unbeaten = front(study, ranked) if study.tune.also else []
    title = "How far each parameter sets the best trials apart"
    return _Found(
        best=ranked[0],
        value=number(ranked[0].value, 6),
        section=_section(study, trials, ranked[0]),
        history=history_chart(ranked, metric),
        learning=learning_chart(_lines(study, trials, ranked), metric, study.tune.unit),
        parallel=parallel_chart(mine, space),
        importance=ranking_chart(title, bars, as_share=True) if bars else None,
        trades=[(n, trade_chart(ranked, unbeaten, metric, n)) for n in study.tune.also],
        front=[
            (t.number, [number(f, 6) for f in figures_of(study, t) or ()])
            for t in unbeaten[:LISTED]
        ],
        slices=[(n, slice_chart(mine, metric, n, space[n])) for n in names[:SLICES]],
        trainer=trainer,
        figures=len(mine),
        trainers=_trainers(study, ranked, list(trials.ended.values())) if study.tune.among else [],
    )


def _lines(study: Study, trials: Trials, ranked: list[Trial]) -> list[Trial]:
    """Return trials with the points of their learning curves: of a population from the first."""
    if study.tune.population is None:
        return ranked
    return [t.model_copy(update={"points": line_of(t, trials.ended)}) for t in ranked]


def _section(study: Study, trials: Trials, best: Trial) -> list[str]:
    """Return the lines of a spec's section that trains the best model without a search."""
    leg = leg_in(study, trials, best)
    chosen = with_params(study.train, study.tune, leg.params, leg.params_after)
    always = {"trainer", "rounds", "seed"}
    given = chosen.model_dump(exclude_defaults=True, exclude=always | set(ELSEWHERE))
    train = {
        "trainer": chosen.trainer,
        "rounds": chosen.rounds,
        "seed": chosen.seed,
        **{name: value for name, value in given.items() if name != "params"},
        "params": chosen.params,
    }
    text = yaml.safe_dump({"train": train}, sort_keys=False, allow_unicode=True, width=1000)
    return text.splitlines()


def _trainers(
    study: Study, ranked: list[Trial], every: list[Trial]
) -> list[tuple[str, list[str]]]:
    found = []
    for name in study.candidates:
        mine = study.trials_by(name, ranked)
        best = number(mine[0].value, 6) if mine else UNKNOWN
        seconds = sum(t.train_s - t.judge_s for t in study.trials_by(name, every))
        found.append((name, [count(len(mine)), best, f"{seconds:.1f}"]))
    return found


def _states(trials: Trials) -> str:
    ended = trials.ended.values()
    counts = [(state, sum(t.state == state for t in ended)) for state in ("stopped", "failed")]
    return ", ".join(f"{count(n)} {state}" for state, n in counts if n) or "all complete"


def _asked(study: Study, trials: Trials) -> list[tuple[str, str]]:
    tune, train = study.tune, study.train
    budget = trials.budget or budget_of(tune)
    seconds = budget["time_limit_s"]
    facts = [
        *(
            ("trainer", f"{name}, at most {count(one.rounds)} rounds, seed {train.seed}")
            for name, one in study.candidates.items()
        ),
        ("sampler", tune.sampler),
        ("scheduler", _scheduler(study)),
        *([("folds", f"{tune.folds}, of train")] if tune.folds else []),
        ("trials asked for", count(budget["trials"])),
        ("seconds allowed", "no limit" if seconds is None else count(seconds)),
        ("dataset", study.dataset),
        *(
            (f"kept fixed for {name}", ", ".join(f"{k} {v}" for k, v in one.params.items()))
            for name, one in study.candidates.items()
            if one.params
        ),
    ]
    again = sorted(number for number, times in trials.attempts.items() if times > 1)
    if again:
        which = ", ".join(map(str, again[:AGAIN])) + (", …" if len(again) > AGAIN else "")
        facts.append(("begun again, since their process was gone", f"trials {which}"))
    state = "over" if trials.over is not None else f"open, {count(len(trials.begun))} begun"
    return [*facts, ("state", state)]


def _scheduler(study: Study) -> str:
    tune = study.tune
    if tune.population is not None:
        return f"population of {count(tune.population)}, {count(tune.generations)} generations"
    return "none" if tune.scheduler == "none" else f"{tune.scheduler}, looks at {tune.unit}s"


def _reasons(trials: Trials) -> list[tuple[str, int]]:
    """Return why trials failed, the most frequent first; of like ones the first one's words."""
    words: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for trial in trials.ended.values():
        if trial.state == "failed":
            alike = trial.reason.partition(LAST_TIME)[0]
            words.setdefault(alike, trial.reason)
            counts[alike] += 1
    return [(words[alike], number) for alike, number in counts.most_common(REASONS)]


def _line(trial: Trial, study: Study) -> tuple[str, Sequence[str]]:
    params = [trial.params.get(name, UNKNOWN) for name in study.names]
    return f"{trial.number}", (
        number(trial.value, 6),
        *(number(trial.others.get(name), 6) for name in study.tune.also),
        trial.state,
        count(trial.rounds),
        *(number(p) if isinstance(p, float) else f"{p}" for p in params),
        *(f"{s:.2f}" for s in (trial.queue_s, trial.bin_s, trial.train_s - trial.judge_s)),
        f"{trial.judge_s:.2f}",
        trial.reason,
    )
