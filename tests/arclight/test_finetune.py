"""Whether splits show that rows are new to a model, and how far apart two models are."""

from __future__ import annotations

import numpy as np
import pytest

from arclight.errors import SpecError
from arclight.finetune import difference, is_unseen, new_levels
from arclight.spec import Train
from tests.ray_apps.make_dataset import make_dataset

HASHED = {"train": 0.8, "valid": 0.1, "test": 0.1, "seed": 0.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("s") / "store", rows=(60, 20, 20)).manifest


def split(manifest, *, rows: str = "other", columns=(), **proof):
    """Return a record of other data with another proof."""
    found = manifest.model_copy(
        update={
            "proof": manifest.proof.model_copy(update=proof),
            "files": tuple(f.model_copy(update={"sha256": rows}) for f in manifest.files),
        }
    )
    return found.model_copy(update={"key_columns": columns}) if columns else found


def by_time(train, valid, test):
    return {"train": train, "valid": valid, "test": test}


EARLY = by_time(
    ("2024-01-01", "2024-01-31"), ("2024-02-01", "2024-02-28"), ("2024-03-01", "2024-03-31")
)
NEXT = by_time(
    ("2024-01-01", "2024-02-28"), ("2024-03-01", "2024-03-31"), ("2024-04-01", "2024-04-30")
)


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        ({"hashed": HASHED}, {"hashed": HASHED}, True),
        ({"hashed": HASHED}, {"hashed": {**HASHED, "seed": 1.0}}, False),
        ({"hashed": HASHED}, {"hashed": {**HASHED, "train": 0.7, "test": 0.2}}, False),
        ({"hashed": HASHED}, {"hashed": HASHED, "group_columns": ("shop",)}, False),
        ({"hashed": HASHED}, {"hashed": HASHED, "columns": ("shop",)}, False),
        ({}, {}, False),  # of an older release
        ({"hashed": HASHED}, {"bounds": EARLY}, False),
        ({"bounds": NEXT}, {"bounds": EARLY}, True),
        ({"bounds": EARLY}, {"bounds": NEXT}, False),
        ({"bounds": EARLY}, {"bounds": EARLY}, True),
    ],
)
def test_splits_show_it_or_do_not(manifest, ours, theirs, shown):
    mine, other = split(manifest, rows="mine", **ours), split(manifest, **theirs)
    assert is_unseen(mine, [other]) is shown
    assert is_unseen(mine, [other, None]) is False
    assert is_unseen(mine, [mine]) is True


def test_of_two_the_same_rows_are_drawn():
    rng = np.random.default_rng(0)
    label = (rng.random(3000) < 0.4).astype(float)
    good = np.clip(label * 0.3 + rng.random(3000) * 0.7, 0, 1)
    worse = np.clip(good + 0.3 * rng.standard_normal(3000), 0, 1)
    assert difference("binary", "auc", label, (good, good), seed=1) == (0.0, 0.0)
    low, high = difference("binary", "auc", label, (good, worse), seed=1)
    assert 0 < low < high
    back = difference("binary", "auc", label, (worse, good), seed=1)
    assert back == pytest.approx((-high, -low))
    assert difference("binary", "auc", np.ones(9), (np.ones(9), np.ones(9)), seed=1) is None


def test_many_rows_give_as_narrow_an_interval_as_they_should():
    rng = np.random.default_rng(0)
    widths = []
    for rows in (20_000, 80_000):
        label = rng.standard_normal(rows)
        pair = tuple(label + rng.standard_normal(rows) * s for s in (0.5, 0.6))
        low, high = difference("regression", "rmse", label, pair, seed=1)
        assert low < -0.1 < high or low < -0.09
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.25)


def test_levels_a_plan_does_not_know_are_counted(manifest):
    plan = manifest.plan
    less = [
        f.model_copy(update={"levels": f.levels[:1]}) if f.name == "color" else f
        for f in plan.features
    ]
    known = next(len(f.levels) for f in plan.features if f.name == "color")
    found = new_levels(plan.model_copy(update={"features": tuple(less)}), manifest)
    assert found == ({"color": known - 1} if known > 1 else {})


def test_a_name_is_enough():
    assert Train(init="flights@3").init.model == "flights@3"
    assert Train(init={"model": "flights@champion"}).init.freeze == 0


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"init": "flights"}, "NAME@NUMBER or NAME@ALIAS"),
        ({"init": "a@0"}, "NAME@NUMBER"),
        ({"init": "../a@1"}, "NAME@NUMBER"),
        ({"init": "a@1", "folds": 3}, "leave folds or init out"),
        ({"init": {"model": "a@1", "freeze": 1}}, "freeze is for a network"),
        ({"init": {"model": "a@1", "head": "new"}}, "head is for a network"),
        ({"init": {"model": "a@1", "head_learning_rate": 0.1}}, "is for a network"),
        ({"init": {"model": "a@1", "thaw": 1}}, "thaw"),
    ],
)
def test_what_no_training_can_start_from(section, told):
    with pytest.raises(ValueError, match=told):
        Train(**section)
    assert issubclass(SpecError, Exception)
