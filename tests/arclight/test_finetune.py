"""Whether splits show that rows are new to a model, and which levels a model does not know."""

from __future__ import annotations

import pytest

from arclight.finetune import new_levels, shown_new
from arclight.schema import Column
from arclight.train_section import Train
from tests.ray_apps.make_dataset import make_dataset

HASHED = {"train": 0.8, "valid": 0.1, "test": 0.1, "seed": 0.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("s") / "store", rows=(60, 20, 20)).manifest


def split(manifest, *, rows="other", key=(), types=None, time_column="", **proof):
    """Return a record of other data with another proof."""
    columns = tuple(
        c.model_copy(update={"type": (types or {}).get(c.name, c.type)}) for c in manifest.columns
    )
    return manifest.model_copy(
        update={
            "proof": manifest.proof.model_copy(update=proof),
            "files": tuple(f.model_copy(update={"sha256": rows}) for f in manifest.files),
            "key_columns": key or manifest.key_columns,
            "time_column": time_column or manifest.time_column,
            "columns": (*columns, *(() if not key else (Column(name=key[0], type="string"),))),
        }
    )


def by_time(train, valid, test):
    return {"train": train, "valid": valid, "test": test}


EARLY = by_time(
    ("2024-01-01", "2024-01-31"), ("2024-02-01", "2024-02-28"), ("2024-03-01", "2024-03-31")
)
LATE = by_time(
    ("2024-01-01", "2024-03-31"), ("2024-04-01", "2024-04-30"), ("2024-05-01", "2024-05-31")
)
NEXT = by_time(
    ("2024-01-01", "2024-02-28"), ("2024-03-01", "2024-03-31"), ("2024-04-01", "2024-04-30")
)


BOTH, TEST, NONE = (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        ({"hashed": HASHED}, {"hashed": HASHED}, TEST),
        ({"hashed": HASHED}, {"hashed": {**HASHED, "seed": 1.0}}, NONE),
        ({"hashed": HASHED}, {"hashed": {**HASHED, "train": 0.7, "test": 0.2}}, NONE),
        ({"hashed": HASHED}, {"hashed": HASHED, "group_columns": ("shop",)}, NONE),
        ({"hashed": HASHED}, {"hashed": HASHED, "key": ("shop",)}, NONE),
        ({"hashed": HASHED}, {"hashed": HASHED, "types": {"id": "string"}}, NONE),
        ({"hashed": HASHED, "group_columns": ("shop",)},
         {"hashed": HASHED, "group_columns": ("shop",), "types": {"id": "string"}}, NONE),
        ({"hashed": HASHED, "group_columns": ("shop",)},
         {"hashed": HASHED, "group_columns": ("shop",)}, TEST),
        # a digest of all columns stands for the key: another label, another split
        ({"hashed": HASHED, "key": ("row_key",)}, {"hashed": HASHED, "key": ("row_key",)}, NONE),
        ({}, {}, NONE),  # of an older release
        ({"hashed": HASHED}, {"bounds": EARLY}, NONE),
        ({"bounds": NEXT}, {"bounds": EARLY}, BOTH),
        ({"bounds": {**NEXT, "valid": EARLY["valid"]}}, {"bounds": EARLY}, TEST),
        ({"bounds": LATE}, {"bounds": EARLY}, BOTH),
        ({"bounds": LATE}, {"bounds": EARLY, "types": {"at": "date"}}, NONE),
        ({"bounds": EARLY}, {"bounds": NEXT}, NONE),
        ({"bounds": LATE}, {"bounds": EARLY, "time_column": "shop"}, NONE),
        # years that Python has not
        ({"bounds": {**LATE, "train": ("-0044-03-15T00:00:00.000000+00:00", "2024-03-31")}},
         {"bounds": EARLY}, BOTH),
        ({"bounds": LATE},
         {"bounds": {**EARLY, "valid": ("2024-02-01", "10000-01-01T00:00:00+00:00")}}, NONE),
    ],
)  # fmt: skip
def test_splits_show_it_or_do_not(manifest, ours, theirs, shown):
    mine, other = split(manifest, rows="mine", **ours), split(manifest, **theirs)
    assert shown_new(mine, [other]) == shown
    assert shown_new(mine, [other, None]) == NONE
    assert shown_new(mine, [mine]) == TEST
    assert shown_new(mine, [mine, other]) == (False, shown[1])


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
