"""A feature that gives the label away, as a model that has learned it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arclight.errors import printable
from arclight.metrics import METRICS

if TYPE_CHECKING:
    from arclight.bundle import ModelBundle

ALONE = 0.95
"""The part of what a model uses above which one feature stands for all."""
NEARLY_RIGHT, NEARLY_SURE = 0.995, 0.03
"""A figure (of 1) above which, and a log loss below which, nearly all of valid is told right."""


def leak_told(bundle: ModelBundle) -> str:
    """Return a sentence about the feature that alone tells nearly every label; else nothing.

    A dataset's profile knows a number that the label follows in a line; a threshold of one, or
    levels, are only seen once a model has learned them. The errors of a regression in the label's
    own unit say nothing of it: of those R² alone is looked at.
    """
    value, part = bundle.train_metrics.get("valid"), max(bundle.importance, default=0.0)
    if value is None or part < ALONE:
        return ""
    if bundle.metric == "log_loss":
        is_told = value <= NEARLY_SURE
    else:
        is_told = METRICS[bundle.metric].higher_is_better and value >= NEARLY_RIGHT
    if not is_told:
        return ""
    name = bundle.plan.features[bundle.importance.index(part)].name
    return (
        f"'{printable(name)}' alone tells nearly every label ({bundle.metric} on valid "
        f"{value:.4f}, {part:.0%} of what the model uses); if it is made from the label, or known "
        "only after it, name it in etl.drop"
    )
