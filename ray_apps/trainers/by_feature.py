"""Parameters that say something of each feature by its place: constraints and weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arclight.errors import SpecError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray_apps.trainers import Param, TrainJob

ONE_EACH = {
    "monotone_constraints": (re.compile(r"-1|0|1"), "-1, 0 or 1"),
    "feature_contri": (re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.I), "a number"),
}
"""By the libraries' main names: a value for every feature, such as `(1,0,-1)`."""
PLACES = "interaction_constraints"
"""Places of features that may stand together, such as `[[0,1],[2,3]]`."""
MOST_FEATURES = 100_000
_PLACE = re.compile(r"\d+", re.ASCII)
_GROUP = re.compile(r"\[\s*\d+(?:\s*,\s*\d+)*\s*\]", re.ASCII)


def features_told(params: Mapping[str, Param]) -> int:
    """Return how many features parameters speak of, at least one.

    Raises:
        SpecError: a value is none, or they speak of more than any table has.
    """
    counts = [len(_values(params, name)) for name in ONE_EACH]
    return max([1, _highest(params) + 1, *counts])


def bare(params: Mapping[str, Param]) -> dict[str, str]:
    """Return these parameters as LightGBM reads them rightly: `1,0,-1` and `[0,1],[2,3]`.

    It takes the first value behind a bracket for 0, and cannot read groups with spaces back from
    its own model file.

    Raises:
        SpecError: one is written otherwise than in brackets or without.
    """
    found = {name: ",".join(_values(params, name)) for name in ONE_EACH if name in params}
    if PLACES in params:
        found[PLACES] = ",".join(f"[{','.join(places)}]" for places in _groups(params))
    return found


def check_by_feature(params: Mapping[str, Param], job: TrainJob) -> None:
    """Refuse what does not go with the features, as far as they are known.

    The libraries find it out when rows are there, and LightGBM then ends the process.

    Args:
        params: by the libraries' main names.
        job: whose features they are of.

    Raises:
        SpecError: no values, too many or too few, one that a category cannot have, or a feature
            that is not there.
    """
    bare(params)
    if not job.features:
        return
    there = f"the model has {job.features:,} features; `arclight datasets` shows their order"
    for name in ONE_EACH:
        count = len(_values(params, name))
        if name in params and count != job.features:
            raise SpecError(
                f"train.params: {name} must have a value for each feature, got {count:,}: {there}."
            )
    if (place := _highest(params)) >= job.features:
        raise SpecError(
            f"train.params: {PLACES} '{printable(params[PLACES])}' must name places from 0 to "
            f"{job.features - 1:,}, got {place:,}: {there}."
        )
    ways = _values(params, "monotone_constraints")
    for place in job.categorical if ways else ():
        if ways[place] != "0":
            raise SpecError(
                "train.params: monotone_constraints must be 0 for a category, which has no order, "
                f"got {ways[place]} for feature {place:,}, counted from 0: {there}."
            )


def _values(params: Mapping[str, Param], name: str) -> list[str]:
    """Return the values of every feature, none where the parameter is not set.

    Raises:
        SpecError: something else stands there.
    """
    if name not in params:
        return []
    text = str(params[name]).strip()
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1].strip().removesuffix(",")
    values = [value.strip() for value in text.split(",")]
    allowed, rule = ONE_EACH[name]
    wrong = next((value for value in values if not allowed.fullmatch(value)), None)
    if wrong is not None:
        raise SpecError(
            f"train.params: {name} must be {rule} for each feature, such as '(1,0,1)', got "
            f"'{printable(wrong)}' in '{printable(params[name])}'."
        )
    return values


def _groups(params: Mapping[str, Param]) -> list[list[str]]:
    """Return the places of each group.

    Raises:
        SpecError: they are no groups of places.
    """
    text = str(params[PLACES]).strip()
    inner = text[1:-1] if re.match(r"\[\s*\[", text) and text.endswith("]") else text
    found = _GROUP.findall(inner)
    rest = re.sub(r"\s", "", _GROUP.sub("[]", inner))
    if not found or rest != ",".join(["[]"] * len(found)):
        raise SpecError(
            f"train.params: {PLACES} must be groups of places of features, such as "
            f"'[[0,1],[2,3]]', got '{printable(text)}'."
        )
    return [_PLACE.findall(group) for group in found]


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
