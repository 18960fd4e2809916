"""Samplers that evolve what was good: each answer from the known trials and a stream of its own.

Trials are places in the unit cube, one axis a parameter, with a figure each, in the order in which
they ended: whoever goes on with a search answers as one that was never disturbed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from arclight.errors import SpecError
from ray_apps.lean import lean_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = npt.NDArray[np.float64]
POPULATION, RIVALS = 30, 5
"""Trials that may have offspring, and those of them that compete for one."""
STEP = 0.15
"""Of a mutation, on an axis of length 1."""
BEGIN_STEP = 0.25
"""Of CMA-ES at first."""


def offspring(
    known: Sequence[tuple[Place, float]], is_choice: Sequence[bool], rng: np.random.Generator
) -> Place:
    """Return a mutation of a good one of the newest trials.

    Aging evolution: Real et al., Regularized Evolution for Image Classifier Architecture Search
    (2019), with steps along an axis where values have an order.

    Args:
        known: places, and figures of which higher ones are better.
        is_choice: of each axis, whether its values have no order; such a one is drawn anew.
        rng: of this answer.
    """
    alive = known[-POPULATION:]
    rivals = rng.choice(len(alive), min(RIVALS, len(alive)), replace=False)
    parent, _ = max((alive[i] for i in sorted(rivals)), key=lambda one: one[1])
    axes = len(parent)
    moves = rng.random(axes) < 1 / axes
    moves[rng.integers(axes)] = True
    steps, anew = rng.normal(0.0, STEP, axes), rng.random(axes)
    moved = np.where(np.asarray(is_choice, bool), anew, _folded(parent + steps))
    return np.where(moves, moved, parent)


class CmaEs:
    """Covariance matrix adaptation; generations are the known trials, so many at a time.

    Hansen, The CMA Evolution Strategy: A Tutorial (2016), by the library `cmaes`.
    """

    def __init__(self) -> None:
        self._strategy: Any = None
        self._told: list[Place] = []

    def answer(
        self,
        known: Sequence[tuple[Place, float]],
        startup: int,
        seed: int,
        rng: np.random.Generator,
    ) -> Place:
        """Return a place, [axes].

        Args:
            known: places, and figures of which higher ones are better; the first ones were drawn
                by chance, and it begins at the best of them.
            startup: how many those are.
            seed: of the search.
            rng: of this answer.
        """
        places = [place for place, _ in known]
        pairs = zip(places, self._told, strict=False)
        is_same = len(places) >= len(self._told) and all(np.array_equal(a, b) for a, b in pairs)
        if self._strategy is None or not is_same:
            begin, _ = max(known[:startup], key=lambda one: one[1])
            axes = len(begin)
            self._strategy = _library().CMA(
                mean=begin, sigma=BEGIN_STEP, bounds=np.array([[0.0, 1.0]] * axes), seed=seed
            )
            self._told = places[:startup]
        each = self._strategy.population_size
        while len(known) - len(self._told) >= each:
            generation = known[len(self._told) :][:each]
            self._strategy.tell([(place, -figure) for place, figure in generation])
            self._told += [place for place, _ in generation]
        self._strategy.reseed_rng(int(rng.integers(2**31)))
        found: Place = self._strategy.ask()
        return np.clip(found, 0.0, np.nextafter(1.0, 0.0))


def check_cma_es() -> None:
    """Refuse CMA-ES where its library is not there.

    Raises:
        SpecError: it names the way out.
    """
    _library()


# --------------------------------------------------------------------------------- inside


def _folded(place: Place) -> Place:
    """Return places that left the cube as if its walls threw them back."""
    within = np.abs(place) % 2
    return np.minimum(np.where(within > 1, 2 - within, within), np.nextafter(1.0, 0.0))


def _library() -> Any:
    try:
        with lean_imports():
            import cmaes  # noqa: PLC0415 -- other samplers need none
    except ImportError as error:
        raise SpecError(
            "tune.sampler: cma_es needs the package cmaes; run `pip install 'arclight[tune]'`, or "
            "use tpe."
        ) from error
    return cmaes
