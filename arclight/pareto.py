"""Trials that are weighed by several figures: those that no other one beats in all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.metrics import METRICS
from arclight.tune_section import MODEL_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arclight.study import Study
    from arclight.trials import Trial


def higher_is_better(name: str) -> bool:
    """Return the direction of a metric, or of `model_bytes`."""
    return name != MODEL_BYTES and METRICS[name].higher_is_better


def figures_of(study: Study, trial: Trial) -> tuple[float, ...] | None:
    """Return a trial's figures, the study's metric first; None where one is missing."""
    if trial.value is None or any(name not in trial.others for name in study.tune.also):
        return None
    return (trial.value, *(trial.others[name] for name in study.tune.also))


def front(study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other one beats, the best by the study's metric first.

    One beats another that is nowhere better and somewhere worse; of equal ones all are on it.
    """
    signs = [1 if higher_is_better(n) else -1 for n in (study.metric, *study.tune.also)]
    known = [
        (tuple(s * f for s, f in zip(signs, figures, strict=True)), trial)
        for trial in trials
        if (figures := figures_of(study, trial)) is not None
    ]

    def is_beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
            for other, _ in known
        )

    kept = [(figures, trial) for figures, trial in known if not is_beaten(figures)]
    kept.sort(key=lambda one: (tuple(-figure for figure in one[0]), one[1].number))
    return [trial for _, trial in kept]
