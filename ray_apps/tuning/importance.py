"""Which parameters set the best trials of a study apart."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from arclight.errors import SpecError
from arclight.metrics import METRICS
from arclight.study import trained_by
from ray_apps.tuning.learner import known_study

if TYPE_CHECKING:
    from arclight.study import Study
    from arclight.trials import Trials

AT_LEAST = 15
"""Trials with a figure, below which nothing is said."""
BEST = 5
"""The best trials are at least so many, and a tenth of all."""


def importance_of(study: Study, trials: Trials) -> dict[str, float] | None:
    """Return each parameter's part of what sets the best trials apart, the largest first.

    Of several trainers the parameters of the best trial's.

    PED-ANOVA (Watanabe et al., IJCAI 2023) as Optuna has it. A stopped trial counts with the
    figure it was stopped at: it is among all of them, and hardly among the best.

    Returns:
        parameter -> a part of 1; None with too few trials, where nothing sets the best ones apart
        (all have the same figure), without Optuna, and of a population, where a figure is of all
        that a network had, and its parameters of the last generation.
    """
    ranked = study.ranked(trials)
    if not ranked or study.tune.population is not None:
        return None
    trainer, _ = trained_by(study.train, study.tune, ranked[0].params)
    ranked = study.trials_by(trainer, ranked)
    if len(ranked) < AT_LEAST:
        return None
    space = study.candidates[trainer].space
    tune = study.tune.model_copy(update={"space": space, "trainers": {}})
    try:
        known = known_study(tune, ranked, higher=METRICS[study.metric].higher_is_better)
    except SpecError:
        return None
    from optuna.importance import (  # noqa: PLC0415 -- `known_study` has said that it is there
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties, where all are the best
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, BEST / len(ranked)))
        # it makes like parts of nothing, if it makes them parts of 1
        found = get_param_importances(known, evaluator=evaluator, normalize=False)
    found = {name: part for name, part in found.items() if math.isfinite(part)}
    whole = sum(found.values())
    if not whole:
        return None
    return {name: part / whole for name, part in sorted(found.items(), key=_largest_first)}


# --------------------------------------------------------------------------------- inside


def _largest_first(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]
