"""What a step skips and what it says; the store, the journal and the keys are real."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from arclight.catalog import Catalog
from arclight.decision import GateRule
from arclight.errors import EngineError, MissingError
from arclight.ledger import RowLedger, Stage
from arclight.report import evaluate_predictions
from arclight.spec import Spec
from arclight.spec_file import load_spec
from arclight.store import open_store
from arclight.train_section import Init
from cluster.profiles import load_profile
from jobs import etl, evaluate, register
from jobs.aliases import rollback_command
from jobs.evaluate import evaluate_step
from jobs.figures import row_account, say_figures
from jobs.records import say_model
from jobs.register import check_rival, register_step
from jobs.runs import SPEC, Context, open_run
from jobs.train import say_start
from ray_apps.evaluate import evaluation_key
from tests.arclight.made_records import make_bundle, make_evaluation, make_manifest
from tests.arclight.pages.made_up import flights_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arclight.bundle import Evaluation, ModelBundle
    from arclight.spec_file import LoadedSpec


def write_spec(folder: Path) -> LoadedSpec:
    (folder / "spec.yaml").write_text(
        "{name: flights, task: binary, sources: {t: {path: t}}, etl: {label: late}}"
    )
    return load_spec(folder / "spec.yaml")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    loaded = write_spec(tmp_path)
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


def test_an_evaluation_by_other_code_than_the_run_s_is_refused(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    bundle = context.run.catalog.publish_model(make_bundle())
    monkeypatch.setattr(evaluate, "_evaluate_apart", lambda *_: of_skill(0.3, "f" * 64))
    with pytest.raises(EngineError, match=r"but is of ffffffffffff: Arclight's code was changed"):
        evaluate_step(context, bundle)
    assert context.run.journal.entries[-1].state == "failed"


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
        "etl: dataset flights@0: 30 rows: train 15, valid 4, test 6, quarantine 2 (key_null 2), "
        "dropped (gap) 3.\n"
        "etl: 6.7 % of all rows are in quarantine, 2 of them for key_null: is that meant?\n"
    )


def test_what_the_profile_warns_of_most_is_said(capsys: pytest.CaptureFixture[str]):
    manifest = flights_manifest(wide=0)
    constant = "feature 'always_one' has one value in train"
    etl._say_dataset(manifest.model_copy(update={"warnings": (constant,)}))
    said = capsys.readouterr().err.splitlines()[1:]
    assert said[0] == f"etl: {constant}."
    leak = "etl: column 'leaked' follows the label almost exactly (1): is it known beforehand?"
    assert leak in said
    assert said[-1].startswith("etl: column 'month' is not as in train: valid PSI ")
    for built_or_low in ("one value in all", "no value", "keeps none", "pressure"):
        assert not any(built_or_low in line for line in said)


def test_of_many_warnings_the_leaks_are_said_first(capsys: pytest.CaptureFixture[str]):
    manifest = flights_manifest(wide=0)
    many = {}
    for split, summaries in manifest.summaries.items():
        found = {summary.name: summary for summary in summaries}
        names = [("month", f"moved_{n}") for n in range(7)]
        names += [("leaked", f"leak_{n}") for n in range(3)]
        many[split] = tuple(found[of].model_copy(update={"name": name}) for of, name in names)
    etl._say_dataset(manifest.model_copy(update={"summaries": many, "warnings": ()}))
    said = capsys.readouterr().err.splitlines()[1:]
    assert sum("follows the label" in line for line in said) == 3
    assert "'moved_0' is not as in train" in "".join(said)
    assert said[-1].startswith("etl: the profile has ")
    assert len(said) == etl.SAID_FINDINGS + 1


def of_skill(skill: float, key: str) -> Evaluation:
    """An evaluation on 400 rows by scores that know so much of the label."""
    label = np.arange(400) % 2
    noise = np.random.default_rng(7).uniform(0, 1, 400)
    scores = (1 - skill) * noise + skill * label
    report = evaluate_predictions("binary", label, scores, seed=0, dataset="flights@1")
    return make_evaluation(report, key)


def judged(context: Context, key: str, skill: float) -> tuple[ModelBundle, Evaluation]:
    """A published model and its evaluation."""
    catalog = context.run.catalog
    bundle = catalog.publish_model(make_bundle(key=key))
    digests = {
        "dataset_digest": catalog.dataset("flights@1").content_digest,
        "model_digest": bundle.model_digest,
    }
    found = of_skill(skill, key).model_copy(update={"model": bundle.ref, **digests})
    return bundle, catalog.publish_evaluation(bundle.name, bundle.number, found)


def with_rival(context: Context, alias: str) -> Context:
    gate = GateRule(not_worse_than=alias)
    spec = context.loaded.spec.model_copy(update={"gate": gate})
    return dataclasses.replace(context, loaded=dataclasses.replace(context.loaded, spec=spec))


def test_a_gate_compares_with_the_alias_it_names(context: Context):
    """The champion is worse than the new model, the alias that the gate names is better."""
    catalog = context.run.catalog
    worse, _ = judged(context, "k1", 0.0)
    catalog.move_alias(worse, "champion", reason="by hand", seen=None)
    better, _ = judged(context, "k2", 0.4)
    catalog.move_alias(better, "proven", reason="by hand", seen=None)
    new, evidence = judged(context, "k3", 0.1)
    assert register_step(with_rival(context, "champion"), new, evidence).kind == "promote"
    refused = register_step(with_rival(context, "proven"), new, evidence)
    assert refused.kind == "keep"
    assert "'proven'" in refused.reason


@pytest.mark.parametrize(("works", "kind"), [(True, "promote"), (False, "keep")])
def test_a_champion_is_judged_on_the_rows_of_the_new_model(
    context: Context, monkeypatch: pytest.MonkeyPatch, works: bool, kind: str
):
    """On the rows it had it was better; on these it is not."""
    catalog = context.run.catalog
    manifest = catalog.dataset("flights@1")
    plan = {"plan": manifest.plan}
    champion = catalog.publish_model(make_bundle(key="k1").model_copy(update=plan))
    catalog.move_alias(champion, "champion", reason="by hand", seen=None)
    catalog.publish_evaluation(champion.name, champion.number, of_skill(0.9, "older"))
    new = catalog.publish_model(make_bundle(key="k2").model_copy(update=plan))
    found = of_skill(0.3, "new").model_copy(update={"model": new.ref})
    evidence = catalog.publish_evaluation(new.name, new.number, found)
    asked = []

    def judge(_: Context, rival: ModelBundle, dataset: str) -> Evaluation:
        asked.append((rival.ref, dataset))
        if not works:
            raise evaluate._EvaluationFailed("its process was ended.")
        digest = {"dataset_digest": manifest.content_digest}
        return of_skill(0.0, "same").model_copy(update=digest)

    monkeypatch.setattr(evaluate, "_evaluate_apart", judge)
    assert register_step(with_rival(context, "champion"), new, evidence).kind == kind
    assert asked == [(champion.ref, "flights@1")]


def test_a_champion_that_predicts_another_label_is_not_compared_with(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    """On the rows of the new model's label it would lose to any other."""
    catalog = context.run.catalog
    champion, _ = judged(context, "k1", 0.0)
    held = catalog.move_alias(champion, "champion", reason="by hand", seen=None)
    new, evidence = judged(context, "k2", 0.4)
    labels = {champion.ref: "late", new.ref: "cancelled"}
    monkeypatch.setattr(register, "label_of", lambda _, model: labels[model.ref])
    found = register_step(with_rival(context, "champion"), new, evidence)
    assert found.kind == "keep"
    assert "predicts 'late' (binary), not 'cancelled' (binary), and" in found.reason
    assert "give the spec a name of its own" in found.reason
    assert "promote" not in found.reason  # the run's last word has it
    assert catalog.alias(new.name, "champion") == held


@pytest.mark.parametrize(("skill", "kind"), [(0.9, "keep"), (0.0, "promote")])
def test_a_champion_that_may_have_seen_the_rows_is_named(
    context: Context, monkeypatch: pytest.MonkeyPatch, skill: float, kind: str
):
    """Another seed of the split: rows that the champion learned from are test rows now."""
    catalog = context.run.catalog
    champion = catalog.publish_model(make_bundle(key="k1"))
    catalog.move_alias(champion, "champion", reason="by hand", seen=None)
    new, evidence = judged(context, "k2", 0.3)
    seen = of_skill(skill, "same").model_copy(update={"is_test_new": False})
    monkeypatch.setattr(evaluate, "_evaluate_apart", lambda *_: seen)
    found = register_step(with_rival(context, "champion"), new, evidence)
    assert found.kind == kind
    assert f"But nothing shows that the test rows of {seen.dataset} are new to {seen.model};" in (
        found.reason
    )
    assert "`arclight promote` moves 'champion' by hand" in found.reason


def test_an_evaluation_of_an_older_release_is_made_again_to_compare_with(
    context: Context, monkeypatch: pytest.MonkeyPatch
):
    """It has no resamples to compare row by row."""
    catalog = context.run.catalog
    champion, old = judged(context, "k1", 0.9)
    report = old.report.model_copy(update={"redrawn": None})
    unsaid = old.model_copy(update={"report": report, "key": "older"})
    catalog.publish_evaluation(champion.name, champion.number, unsaid)
    monkeypatch.setattr(evaluate, "_evaluate_apart", lambda *_: of_skill(0.1, "again"))
    assert evaluate.evaluate_rival(context, champion, "flights@1") == old
    again = catalog.publish_model(make_bundle(key="k2"))
    unsaid = unsaid.model_copy(update={"model": again.ref})
    catalog.publish_evaluation(again.name, again.number, unsaid)
    assert evaluate.evaluate_rival(context, again, "flights@1").key == "again"
    # a number that was used again, when its record was taken away by hand
    other = make_bundle(key="k3").model_copy(update={"number": 1, "threshold": 0.7})
    assert other.model_digest != champion.model_digest
    assert evaluate.evaluate_rival(context, other, "flights@1").key == "again"


def test_figures_of_rows_that_may_have_been_learned_from_are_told_as_such(capsys):
    seen = of_skill(0.3, "seen").model_copy(update={"is_test_new": False})
    say_figures(make_bundle(), of_skill(0.3, "new"))
    unsaid = of_skill(0.3, "older").model_copy(update={"is_test_new": None})
    say_figures(make_bundle(), unsaid)  # by an older release
    assert "nothing shows" not in capsys.readouterr().err
    say_figures(make_bundle(), seen)
    assert "nothing shows that the test rows of flights@1 are new to flights@1" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_a_model_says_that_its_training_went_wrong(context: Context, capsys):
    catalog = context.run.catalog
    say_model(catalog, make_bundle())
    assert "diverged" not in capsys.readouterr().err
    say_model(catalog, make_bundle().model_copy(update={"diverged": 5}))
    told = capsys.readouterr().err.replace("│", " ")
    assert "diverged in round 5" in " ".join(told.split())


def test_a_training_that_starts_from_a_model_of_another_label_says_so(context: Context, capsys):
    catalog, init = context.run.catalog, Init(model="flights@1")
    manifest = catalog.dataset("flights@1")
    digest = {"dataset": manifest.ref, "dataset_digest": manifest.content_digest}
    origin = catalog.publish_model(make_bundle().model_copy(update=digest))
    say_start(catalog, origin, manifest, init)
    assert "predicts" not in capsys.readouterr().err
    say_start(catalog, origin, manifest.model_copy(update={"label": "cancelled"}), init)
    assert "flights@1 predicts 'late', and not 'cancelled'." in capsys.readouterr().err


def test_figures_of_a_model_are_those_of_its_own_dataset(context: Context, capsys):
    catalog = context.run.catalog
    bundle, own = judged(context, "k1", 0.3)
    update = {"dataset": "flights@2", "model_digest": bundle.model_digest}
    other = of_skill(0.9, "other").model_copy(update=update)
    catalog.publish_evaluation(bundle.name, bundle.number, other)
    assert catalog.own_evaluation(bundle) == own
    say_model(catalog, bundle)
    value = own.report.figure("auc").value
    assert f"auc on test {value:.4f}" in " ".join(
        capsys.readouterr().err.replace("│", " ").split()
    )
    unknown = catalog.publish_model(make_bundle(key="k2"))
    update = {"model": unknown.ref, "model_digest": unknown.model_digest}
    other = other.model_copy(update=update)
    catalog.publish_evaluation(unknown.name, unknown.number, other)
    say_model(catalog, unknown)
    assert "auc on test of flights@2" in capsys.readouterr().err


def test_a_champion_that_was_never_evaluated_is_kept(context: Context):
    catalog = context.run.catalog
    unknown = catalog.publish_model(make_bundle(key="k1"))
    held = catalog.move_alias(unknown, "champion", reason="by hand", seen=None)
    new, evidence = judged(context, "k2", 0.4)
    found = register_step(with_rival(context, "champion"), new, evidence)
    assert found.kind == "keep"
    assert f"{unknown.ref} holds 'champion' and has no evaluation" in found.reason
    assert catalog.alias(new.name, "champion") == held


def test_a_repeated_run_of_the_champion_says_that_it_is_there(context: Context):
    new, evidence = judged(context, "k1", 0.4)
    ruled = with_rival(context, "champion")
    assert "no model holds 'champion' yet" in register_step(ruled, new, evidence).reason
    again = register_step(ruled, new, evidence)
    assert again.kind == "promote"
    assert "no model holds" not in again.reason


def test_a_champion_that_moves_back_to_an_older_version_is_said(
    context: Context, capsys: pytest.CaptureFixture[str]
):
    """As by an older spec that is run again: its model stands, and takes the newer one's place."""
    catalog = context.run.catalog
    older, evidence = judged(context, "k1", 0.3)
    register_step(context, older, evidence)
    register_step(context, *judged(context, "k2", 0.4))
    assert "moved back" not in capsys.readouterr().err
    assert register_step(context, older, evidence).kind == "promote"
    said = " ".join(capsys.readouterr().err.split())
    root = str(catalog.store.root)
    way = f"arclight rollback flights --store {root}"
    assert f"'champion' moved back from the newer flights@2; to return to it: {way}" in said
    rollback_command("flights", "champion", store=root, as_json=False)
    assert catalog.alias("flights", "champion").version_number == 2


def test_a_gate_that_names_an_alias_nobody_set_is_refused(context: Context):
    catalog = context.run.catalog
    check_rival(catalog, with_rival(context, "champion").loaded.spec)
    with pytest.raises(MissingError, match=r"alias 'champoin'\. Did you mean 'champion'"):
        check_rival(catalog, with_rival(context, "champoin").loaded.spec)
    bundle, _ = judged(context, "k1", 0.4)
    catalog.move_alias(bundle, "proven", reason="by hand", seen=None)
    check_rival(catalog, with_rival(context, "proven").loaded.spec)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_run_that_was_killed_as_it_began_is_gone_on_with_by_its_spec(tmp_path: Path, nth: int):
    loaded, catalog = write_spec(tmp_path), Catalog(open_store(tmp_path / "store"))

    def begin() -> None:
        """Die at the n-th file that a run's folder gets."""
        real, made = os.fchmod, iter(range(1, nth + 1))

        def fchmod(stream: int, mode: int) -> None:
            real(stream, mode)
            if next(made) == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fchmod = fchmod
        with open_run(catalog, loaded):
            pass

    child = multiprocessing.get_context("fork").Process(target=begin)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    with open_run(catalog, loaded) as run:
        assert Spec.from_json((run.folder / SPEC).read_bytes()) == loaded.spec


def test_a_damaged_journal_is_said_and_another_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    loaded, catalog = write_spec(tmp_path), Catalog(open_store(tmp_path / "store"))
    found = []
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt), open_run(catalog, loaded) as run:
            found.append(run)
            raise KeyboardInterrupt
        if len(found) == 1:
            older = run.folder.rename(run.folder.with_name("flights-20200101-000000-aaaaaa"))
            (older / "journal.jsonl").write_text("edited\n")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("so it was edited; restore the file or start a new run. A new one beg") == 1
    assert len({run.id for run in found}) == 2
    assert [run.resumed for run in found] == [False, False, True]
