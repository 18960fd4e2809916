"""Which model `arclight evaluate SPEC` opens the test split for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arclight.errors import MissingError, RefusedError
from arclight.tune_section import Tune
from jobs.evaluate import _model_of
from tests.ray_apps.conftest import train_here
from tests.ray_apps.make_dataset import make_dataset, make_spec

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_the_specs_own_or_the_newest_of_its_trainer(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    trees = make_spec(trainer="xgboost", rounds=3)
    others = make_spec(trainer="lightgbm", rounds=3)
    changed = make_spec(trainer="lightgbm", rounds=4)
    with pytest.raises(MissingError):
        _model_of(trees, made.catalog)
    refs = []
    for place, spec in enumerate((trees, others)):
        folder = tmp_path / f"run-{place}"
        folder.mkdir()
        refs.append(train_here(made, spec, folder).ref)
    assert refs == ["demo@1", "demo@2"]
    assert _model_of(trees, made.catalog).ref == "demo@1"
    assert _model_of(others, made.catalog).ref == "demo@2"
    assert _model_of(changed, made.catalog).ref == "demo@2"
    other = make_spec(trainer="xgboost", rounds=4)
    with pytest.raises(RefusedError, match=r"demo@2, is of trainer lightgbm, .* asks for xgboost"):
        _model_of(other, made.catalog)
    tuned = other.model_copy(
        update={"tune": Tune.model_validate_json('{"space": {"max_depth": {"int": [2, 3]}}}')}
    )
    assert _model_of(tuned, made.catalog).ref == "demo@2"
    gone = make_spec(trainer="lightgbm", rounds=3, init="nobody@7")
    assert _model_of(gone, made.catalog).ref == "demo@2"
