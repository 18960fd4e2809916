"""Trials that are weighed by several figures."""

from __future__ import annotations

import pytest

from arclight.pareto import figures_of, front
from arclight.trials import Trial
from tests.arclight.pages.made_up_study import made_up_study


def trial(number: int, value: float | None, **others: float) -> Trial:
    return Trial(number=number, params={}, state="complete", value=value, others=others)


def study(*also: str):
    made = made_up_study()
    tune = made.tune.model_copy(update={"also": also})
    return made.model_copy(update={"tune": tune, "metric": "auc"})


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([(0.9, 100), (0.8, 50), (0.7, 60)], [0, 1]),
        ([(0.9, 100), (0.9, 100), (0.9, 120)], [0, 1]),  # equal ones are both on it
        ([(0.5, 1), (0.6, 2), (0.7, 3)], [2, 1, 0]),
        ([(0.5, 3), (0.6, 2), (0.7, 1)], [2]),
        ([(0.9, None), (0.8, 50), (None, 1)], [1]),
    ],
)
def test_what_no_other_one_beats(figures, kept):
    trials = [
        trial(n, value, **({} if size is None else {"model_bytes": float(size)}))
        for n, (value, size) in enumerate(figures)
    ]
    assert [one.number for one in front(study("model_bytes"), trials)] == kept


def test_every_figure_has_its_own_direction():
    trials = [
        trial(0, 0.9, log_loss=0.5, accuracy=0.8),
        trial(1, 0.8, log_loss=0.4, accuracy=0.8),
        trial(2, 0.8, log_loss=0.6, accuracy=0.7),  # beaten by both
    ]
    found = study("log_loss", "accuracy")
    assert [one.number for one in front(found, trials)] == [0, 1]
    assert figures_of(found, trials[0]) == (0.9, 0.5, 0.8)
