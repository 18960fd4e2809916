"""How a run ends whose gate says no; the engines are left out, the store and catalog are real."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from arclight.catalog import Catalog
from arclight.decision import Decision
from arclight.report import evaluate_predictions
from arclight.store import open_store
from jobs import entry, run
from jobs.guard import guarded
from jobs.run import RunResult, run_command
from tests.arclight.made_records import make_bundle, make_evaluation, make_manifest

if TYPE_CHECKING:
    from arclight.errors import RefusedError

REASON = "auc must be at least 0.9, got 0.75."


def refused(folder: Path, kind: str = "refuse") -> RunResult:
    """A run of flights@2, where flights@1 is the champion."""
    catalog = Catalog(open_store(folder / "a store"))
    first = catalog.publish_model(make_bundle())
    catalog.move_alias(first, "champion", reason="There is no gate.", seen=None)
    report = evaluate_predictions(
        "binary",
        np.array([0, 1, 0, 1]),
        np.array([0.1, 0.8, 0.4, 0.6]),
        seed=0,
        dataset="flights@1",
    )
    return RunResult(
        run=cast("Any", SimpleNamespace(id="r", seconds={"etl": None}, catalog=catalog)),
        manifest=make_manifest(),
        bundle=catalog.publish_model(make_bundle(key="k2")),
        evaluation=make_evaluation(report),
        decision=Decision.model_validate({"kind": kind, "reason": REASON}),
        reports=(folder / "report.html",),
    )


def end(result: RunResult, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(run, "run_spec", lambda *_, **__: result)
    return guarded(
        lambda: run_command(
            Path("spec.yaml"),
            store=None,
            profile="local",
            accept_schema=False,
            new_study=False,
            as_json=True,
        )
    )


@pytest.mark.parametrize(("kind", "status"), [("promote", 0), ("keep", 3), ("refuse", 3)])
def test_a_gate_that_says_no_ends_the_run_with_3_after_all_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    status: int,
):
    assert end(refused(tmp_path, kind), monkeypatch) == status
    said = capsys.readouterr()
    body = json.loads(said.out)
    assert (body["decision"], body["reason"], body["model"]) == (kind, REASON, "flights@2")
    assert f"report: {tmp_path}/report.html" in said.err
    last = said.err.splitlines()[-1]
    assert last.startswith("arclight: gate: auc must be") == (status == 3)


def test_the_sentence_names_the_gate_what_stands_and_the_way_out(tmp_path: Path):
    result = refused(tmp_path)
    catalog = result.run.catalog
    assert refusal(result).message == (
        "gate: auc must be at least 0.9, got 0.75; flights@2 is stored, not promoted, and "
        "'champion' stays on flights@1; change the spec, or decide by hand: arclight promote "
        f"flights@2 champion --store '{catalog.store.root}'"
    )
    held = catalog.alias("flights", "champion")
    catalog.move_alias(result.bundle, "champion", reason="promoted by hand", seen=held)
    again = refusal(result).message
    assert "flights@2 is the champion by an earlier move (promoted by hand)" in again
    assert "promote" not in again.split("; ")[-1]
    assert "arclight rollback flights --store" in again

    other = replace(result, bundle=catalog.publish_model(make_bundle("trains")))
    assert "no model holds 'champion'" in refusal(other).message


def refusal(result: RunResult) -> RefusedError:
    return run.gate_refusal(result)


def test_a_submitted_run_says_that_it_was_refused():
    assert "refused by a check, a gate or a lock" in entry._reason(3)
    assert entry._reason(1) == "it ended with status 1; see its log."
