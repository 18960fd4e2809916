"""Test rows that a model knows: counted where splits do not show that there are none."""

from __future__ import annotations

import pytest

from arclight.progress import silent
from ray_apps import seen_rows
from ray_apps.seen_rows import seen_test_rows
from ray_apps.shards import Reader
from tests.ray_apps.make_dataset import make_dataset


@pytest.fixture
def model(own):
    """A dataset whose rows 0 to 2999 are train and valid, and a model that was made of them."""
    return own("binary", "lightgbm")


def count(model, rows, *used):
    """How many test rows some datasets have, of one whose rows are numbered through its splits."""
    made, bundle = model
    mine = make_dataset(made.catalog.store.root, rows=rows, seed=7).manifest
    opening = made.catalog.open_test(mine, bundle, run="run-1")
    return seen_test_rows(made.catalog, opening, mine, used, reader=Reader(threads=1), tick=silent)


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        ((60, 20, 20), 20),  # 80 to 99 are of its train
        ((2900, 80, 40), 20),  # 2980 to 2999 are the last ones of its valid
        ((3500, 80, 50), 0),  # what was test there was not learned from
    ],
)
def test_rows_are_known_by_their_keys(model, rows, seen):
    assert count(model, rows, model[0].manifest) == seen


def test_rows_of_several_datasets_count_once(model):
    own = model[0].manifest
    assert count(model, (2900, 80, 40), own, own) == 20


def test_what_cannot_be_counted_is_none_unless_some_were_found(model):
    own = model[0].manifest
    assert count(model, (3500, 80, 50), own, None) is None
    assert count(model, (60, 20, 20), own, None) == 20
    assert count(model, (3500, 80, 50), None) is None


def test_a_key_of_other_columns_tells_nothing(model):
    other = model[0].manifest.model_copy(update={"key_columns": ("shop", "id")})
    assert count(model, (60, 20, 20), other) is None


def test_a_digest_of_all_columns_shows_rows_that_are_there_and_none_that_are_not(
    model, monkeypatch
):
    monkeypatch.setattr(seen_rows, "ROW_KEY", "id")
    own = model[0].manifest
    assert count(model, (60, 20, 20), own) == 20
    assert count(model, (3500, 80, 50), own) is None


def test_a_dataset_whose_rows_are_lost_does_not_end_an_evaluation(model):
    made = model[0]
    for file in made.manifest.files_of("valid"):
        (made.catalog.folder(made.manifest) / file.path).unlink()
    assert count(model, (3500, 80, 50), made.manifest) is None
    assert count(model, (60, 20, 20), made.manifest) == 20
