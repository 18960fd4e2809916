"""Parameters that say something of each feature by its place: constraints and weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arclight.errors import SpecError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray_apps.trainers import Param, TrainJob

ONE_EACH = ("monotone_constraints", "feature_contri")
"""By the libraries' main names: a value for every feature, such as `(1,0,-1)`."""
PLACES = "interaction_constraints"
"""Places of features that may stand together, such as `[[0,1],[2,3]]`."""
MOST_FEATURES = 100_000
_ITEM, _PLACE = re.compile(r"[^\s,()\[\]]+"), re.compile(r"\d+")


def features_told(params: Mapping[str, Param]) -> int:
    """Return how many features parameters speak of, at least one.

    Raises:
        SpecError: they speak of more than any table has.
    """
    counts = [len(_ITEM.findall(str(params[name]))) for name in ONE_EACH if name in params]
    return max([1, _highest(params) + 1, *counts])


def check_by_feature(params: Mapping[str, Param], job: TrainJob) -> None:
    """Refuse what does not go with the number of features, where that is known.

    The libraries find it out when rows are there, and LightGBM then ends the process.

    Args:
        params: by the libraries' main names.
        job: whose features they are of.

    Raises:
        SpecError: too many or too few values, or a feature that is not there.
    """
    if not job.features:
        return
    there = f"the model has {job.features:,} features; `arclight datasets` shows their order"
    for name in ONE_EACH:
        count = len(_ITEM.findall(str(params.get(name, ""))))
        if name in params and count != job.features:
            raise SpecError(
                f"train.params: {name} must have a value for each feature, got {count:,}: {there}."
            )
    if (place := _highest(params)) >= job.features:
        raise SpecError(
            f"train.params: {PLACES} '{printable(params[PLACES])}' must name places from 0 to "
            f"{job.features - 1:,}, got {place:,}: {there}."
        )


def _highest(params: Mapping[str, Param]) -> int:
    """Return the highest place that is named, -1 without any.

    Raises:
        SpecError: no table has so many features.
    """
    places = _PLACE.findall(str(params.get(PLACES, "")))
    longest = max(places, key=len, default="")
    if len(longest) >= len(str(MOST_FEATURES)):
        raise SpecError(
            f"train.params: {PLACES} must name places of features under {MOST_FEATURES:,}, got "
            f"{printable(longest)}; count them from 0."
        )
    return max(map(int, places), default=-1)
