"""What a step skips and what it says; the store, the journal and the keys are real."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from arclight.catalog import Catalog
from arclight.ledger import RowLedger, Stage
from arclight.report import evaluate_predictions
from arclight.spec_file import load_spec
from arclight.store import open_store
from cluster.profiles import load_profile
from jobs import etl, evaluate
from jobs.evaluate import evaluate_step
from jobs.figures import row_account
from jobs.runs import Context, open_run
from ray_apps.evaluate import evaluation_key
from tests.arclight.made_records import make_bundle, make_evaluation, make_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arclight.bundle import Evaluation, ModelBundle


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    (tmp_path / "spec.yaml").write_text(
        "{name: flights, task: binary, sources: {t: {path: t}}, etl: {label: late}}"
    )
    loaded = load_spec(tmp_path / "spec.yaml")
    catalog = Catalog(open_store(tmp_path / "store"))
    catalog.publish_dataset(make_manifest())
    with open_run(catalog, loaded) as run:
        yield Context(run=run, loaded=loaded, profile=load_profile("local"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the evaluations that were really made; its process is left out."""
    keys: list[str] = []
    report = evaluate_predictions(
        "binary",
        np.array([0, 1, 0, 1]),
        np.array([0.1, 0.8, 0.4, 0.6]),
        seed=0,
        dataset="flights@1",
    )

    def judge(context: Context, bundle: ModelBundle) -> Evaluation:
        catalog, wanted = context.run.catalog, context.loaded.spec.evaluate.segments
        keys.append(evaluation_key(bundle, catalog.dataset("flights@1"), wanted))
        new = make_evaluation(report, keys[-1])
        return catalog.publish_evaluation(bundle.name, bundle.number, new)

    monkeypatch.setattr(evaluate, "_evaluate_apart", judge)
    return keys


def with_segments(context: Context, *segments: str) -> Context:
    spec = context.loaded.spec
    section = spec.evaluate.model_copy(update={"segments": segments})
    loaded = dataclasses.replace(
        context.loaded, spec=spec.model_copy(update={"evaluate": section})
    )
    return dataclasses.replace(context, loaded=loaded)


def test_the_same_evaluation_is_skipped_and_any_other_is_made(context: Context, made: list[str]):
    bundle = context.run.catalog.publish_model(make_bundle())
    first = evaluate_step(context, bundle)
    assert context.run.seconds["evaluate"] is not None

    assert evaluate_step(context, bundle) == first
    assert context.run.seconds["evaluate"] is None
    last = context.run.journal.entries[-1]
    assert (last.step, last.state, last.key) == ("evaluate", "skipped", made[0])
    assert last.result == "flights@1 on opening 1"
    assert len(made) == 1

    evaluate_step(with_segments(context, "c"), bundle)
    evaluate_step(with_segments(context, "c"), bundle)
    assert len(set(made)) == len(made) == 2
    evaluate_step(context, context.run.catalog.publish_model(make_bundle(key="k2")))
    assert len(set(made)) == len(made) == 3


def test_other_code_evaluates_again(
    context: Context, made: list[str], monkeypatch: pytest.MonkeyPatch
):
    bundle = context.run.catalog.publish_model(make_bundle())
    evaluate_step(context, bundle)
    monkeypatch.setattr("ray_apps.evaluate.code_digest", lambda _: "other")
    evaluate_step(context, bundle)
    assert len(set(made)) == len(made) == 2


def test_the_rows_that_are_said_add_up(capsys: pytest.CaptureFixture[str]):
    stages = (
        Stage(name="key", rows_in=30, rows_out=28, quarantined={"key_null": 2}),
        Stage(name="split", rows_in=28, rows_out=25, dropped={"gap": 3}),
    )
    manifest = make_manifest().model_copy(
        update={
            "rows": {"train": 15, "valid": 4, "test": 6, "quarantine": 2, "sample": 9},
            "ledger": RowLedger(sources={"t": 30}, stages=stages),
        }
    )
    account = row_account(manifest)
    assert sum(account.values()) == 30
    etl._say_dataset(manifest)
    assert capsys.readouterr().err == (
        "etl: dataset flights@0: 30 rows: train 15, valid 4, test 6, quarantine 2, "
        "dropped (gap) 3.\n"
    )
