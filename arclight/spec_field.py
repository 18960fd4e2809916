"""What the parts of a spec are made of, whichever part it is."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from arclight.alias_moves import ALIAS
from arclight.contract import NAME

Text = Annotated[str, Field(min_length=1)]
TrainerName = Literal["xgboost", "lightgbm", "torch"]
Params = dict[str, str | int | float | bool]
"""A library's own parameters."""

_DURATION = re.compile(r"([0-9]{1,9})\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_instant(text: str) -> dt.datetime:
    """Read an ISO date or time as an instant in UTC; a time without a zone is UTC.

    Raises:
        ValueError: the text is not an ISO date or time.
    """
    try:
        instant = dt.datetime.fromisoformat(text)
        if instant.tzinfo is None:
            return instant.replace(tzinfo=dt.UTC)
        return instant.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"'{text}' must be an ISO date or time such as 2013-11-01 or 2013-11-01T06:00:00Z."
        ) from error


def parse_duration_s(text: str) -> int:
    """Read a duration such as 36h or 1d as seconds.

    Raises:
        ValueError: the text is not a whole number and one of s, m, h, d, w.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' must be a duration such as 30m, 36h, 1d or 2w.")
    return int(match[1]) * _SECONDS[match[2]]


class FieldError(ValueError):
    """A broken rule between fields; `path` leads to the field it shows at."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path = path


def _model(text: str) -> str:
    name, _, version = text.partition("@")
    is_version = bool(re.fullmatch(r"[1-9][0-9]{0,8}", version)) or bool(ALIAS.match(version))
    if not NAME.match(name) or not is_version:
        raise ValueError(f"'{text}' must be NAME@NUMBER or NAME@ALIAS of a registered model.")
    return text


def _instant(text: str) -> str:
    parse_instant(text)
    return text


def _duration(text: str) -> str:
    parse_duration_s(text)
    return text


Instant = Annotated[str, AfterValidator(_instant)]
Duration = Annotated[str, AfterValidator(_duration)]
ModelRef = Annotated[str, AfterValidator(_model)]
