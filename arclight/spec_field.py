"""What the parts of a spec are made of, whichever part it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Text = Annotated[str, Field(min_length=1)]
TrainerName = Literal["xgboost", "lightgbm", "torch"]
Params = dict[str, str | int | float | bool]
"""A library's own parameters."""


class FieldError(ValueError):
    """A broken rule between fields; `path` leads to the field it shows at."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path = path
