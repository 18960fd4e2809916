"""A trial that runs: where it is, and where its time went."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ray_apps.trainers import Spent

if TYPE_CHECKING:
    from arclight.population import Leg
    from arclight.search_space import Param


@dataclass
class Running:
    """A trial that runs."""

    number: int
    params: dict[str, Param]
    asked_s: float
    bin_s: float = 0.0
    """Seconds in which rows were made ready for it, and for those after it."""
    begun_s: float = math.nan
    """When its training began, stages before this one as if they had gone on into it; NaN while
    it waits or is made ready for."""
    spent_s: float = 0.0
    """Of training, in stages that are done."""
    spent: Spent = field(default_factory=Spent)
    points: list[tuple[int, float]] = field(default_factory=list)
    rounds: int = 0
    heard_s: float = math.nan
    """When it ended a round last, or began."""
    before: int = 0
    """Rounds of the stages before this one."""
    asked: set[int] = field(default_factory=set)
    """Rounds that somebody looks at, where not all of them are judged."""
    again_s: float = 0.0
    """Of training, in rounds that were there before, of a network that was lost."""
    best: float = math.nan
    leg: Leg | None = None
    """Of a population: what it trains."""
    values: list[float] = field(default_factory=list)
    """Of the stages that are done, where there are several."""
    others: list[dict[str, float]] = field(default_factory=list)
    """Of each stage, the figures of `tune.also`."""
    reason: str = ""
    """Why it is stopped; nothing while it is not."""

    def judged(self, seconds: float) -> None:
        """Count what figures took that were measured once a training was over."""
        self.spent_s += seconds
        self.spent.judge_s += seconds
