"""Which model `arclight evaluate SPEC` opens the test split for, and what a run evaluates by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arclight.bundle import SearchResult
from arclight.dataset_spec import asked_of
from arclight.errors import MissingError, RefusedError
from arclight.spec import Evaluate
from arclight.spec_file import LoadedSpec
from arclight.tune_section import Tune
from jobs.evaluate import _model_of, evaluate_step
from jobs.runs import Context, open_run
from ray_apps.evaluate import evaluation_key
from tests.ray_apps.conftest import ONE_CORE, train_here
from tests.ray_apps.make_dataset import make_dataset, make_spec

if TYPE_CHECKING:
    from arclight.bundle import ModelBundle
    from arclight.catalog import Catalog
    from arclight.spec import Spec


def _found(spec: Spec, catalog: Catalog) -> ModelBundle:
    return _model_of(LoadedSpec(spec=spec, file=Path("s.yaml"), sql=""), catalog)


def test_it_is_the_specs_own_or_the_newest_of_its_trainer(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    trees = make_spec(trainer="xgboost", rounds=3)
    others = make_spec(trainer="lightgbm", rounds=3)
    changed = make_spec(trainer="lightgbm", rounds=4)
    with pytest.raises(MissingError):
        _found(trees, made.catalog)
    refs = []
    for place, spec in enumerate((trees, others)):
        folder = tmp_path / f"run-{place}"
        folder.mkdir()
        refs.append(train_here(made, spec, folder).ref)
    assert refs == ["demo@1", "demo@2"]
    assert _found(trees, made.catalog).ref == "demo@1"
    assert _found(others, made.catalog).ref == "demo@2"
    assert _found(changed, made.catalog).ref == "demo@2"
    other = make_spec(trainer="xgboost", rounds=4)
    with pytest.raises(RefusedError, match=r"demo@2, is of trainer lightgbm, .* asks for xgboost"):
        _found(other, made.catalog)
    tuned = other.model_copy(
        update={"tune": Tune.model_validate_json('{"space": {"max_depth": {"int": [2, 3]}}}')}
    )
    assert _found(tuned, made.catalog).ref == "demo@2"
    gone = make_spec(trainer="lightgbm", rounds=3, init="nobody@7")
    assert _found(gone, made.catalog).ref == "demo@2"


def test_a_later_search_by_another_spec_does_not_stand_in_for_it(tmp_path: Path) -> None:
    """Each look at the test split counts, and the report would be of another model."""
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    plain, other = (make_spec(trainer=trainer, rounds=3) for trainer in ("lightgbm", "xgboost"))
    newer = make_spec(trainer="lightgbm", rounds=4)
    tuned = other.model_copy(
        update={"tune": Tune.model_validate_json('{"space": {"max_depth": {"int": [2, 3]}}}')}
    )
    best = SearchResult(
        study="demo@1", trial=0, value=0.7, params={}, trials=1, stopped=0, failed=0
    )
    for place, (spec, found) in enumerate(((plain, None), (other, best), (newer, None))):
        folder = tmp_path / f"run-{place}"
        folder.mkdir()
        train_here(made, spec, folder, found=found)
        if place:
            assert _found(plain, made.catalog).ref == "demo@1"
            assert _found(tuned, made.catalog).ref == "demo@2"


def test_a_dataset_that_another_spec_built_later_does_not_hide_it(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    spec = make_spec(rounds=3)
    asked = asked_of(LoadedSpec(spec=spec, file=tmp_path / "s.yaml", sql=""))
    catalog = made.catalog
    own, other = (
        catalog.publish_dataset(made.manifest.model_copy(update={"key": key, "asked": a}))
        for key, a in (("own", asked), ("other", {**asked, "etl.split": "another"}))
    )
    for place, manifest in enumerate((own, other)):
        folder = tmp_path / f"run-{place}"
        folder.mkdir()
        rounds = make_spec(rounds=3 + place)
        ref = train_here(replace(made, manifest=manifest), rounds, folder).ref
        assert ref == f"demo@{place + 1}"
        assert _found(spec, catalog).ref == "demo@1"


def test_a_run_evaluates_by_the_spec_it_began_with(tmp_path: Path) -> None:
    """Its file may be another by then, or no spec at all."""
    made = make_dataset(tmp_path / "store", rows=(600, 200, 100))
    evaluate = Evaluate(segments=("color",))
    spec = make_spec(rounds=3).model_copy(update={"evaluate": evaluate})
    bundle = train_here(made, spec, tmp_path)
    (tmp_path / "spec.yaml").write_text("name: [")
    loaded = LoadedSpec(spec=spec, file=tmp_path / "spec.yaml", sql="")
    with open_run(made.catalog, loaded) as run:
        found = evaluate_step(Context(run=run, loaded=loaded, profile=ONE_CORE), bundle)
    assert found.key == evaluation_key(bundle, made.manifest, ("color",))
    assert next(made.catalog.openings(made.manifest)).run == run.id
