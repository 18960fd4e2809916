"""What is listed and shown of a store, and what a command that only looks leaves behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from arclight.bundle import TrainSettings
from arclight.catalog import Catalog
from arclight.journal import Journal
from arclight.ledger import RowLedger, Stage
from arclight.report import evaluate_predictions
from arclight.signing import Signer
from arclight.store import open_store
from jobs import cli
from jobs import doctor as doctor_job
from tests.arclight.made_records import make_bundle, make_evaluation, make_manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    catalog = Catalog(open_store(tmp_path / "store"))
    stages = (
        Stage(name="key", rows_in=25, rows_out=23, quarantined={"key_repeated": 2}),
        Stage(name="split", rows_in=23, rows_out=20, dropped={"gap": 3}),
    )
    manifest = make_manifest().model_copy(
        update={
            "rows": {"train": 10, "valid": 0, "test": 10, "quarantine": 2, "sample": 9},
            "ledger": RowLedger(sources={"t": 25}, stages=stages),
            "warnings": ("the split is small",),
        }
    )
    catalog.publish_dataset(manifest)
    bundle = catalog.publish_model(make_bundle())
    report = evaluate_predictions(
        "binary",
        np.array([0, 1, 0, 1]),
        np.array([0.1, 0.8, 0.4, 0.6]),
        seed=0,
        dataset="flights@1",
    )
    update = {"model_digest": bundle.model_digest}
    catalog.publish_evaluation("flights", 1, make_evaluation(report).model_copy(update=update))
    catalog.move_alias(bundle, "champion", reason="made", seen=None)
    return catalog


def ask(catalog: Catalog, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    store = ("--store", str(catalog.store.root))
    status = cli.guarded(lambda: cli.app([*words, *store], standalone_mode=False))
    said = capsys.readouterr()
    return status, said.out, said.err


def cells(text: str) -> dict[str, str]:
    """The lines of a table of two columns."""
    lines = [line.split("│")[1:3] for line in text.splitlines() if line.startswith("│")]
    return {what.strip(): value.strip() for what, value in lines}


def test_a_model_is_shown_to_people_without_its_rows(catalog, capsys):
    status, out, err = ask(catalog, capsys, "models", "flights@champion")
    assert (status, out) == (0, "")
    assert err.startswith("model flights@1")
    shown = cells(err)
    wanted = {
        "aliases": "champion",
        "task": "binary",
        "trainer": "xgboost, 3 rounds",
        "parameter max_depth": "3",
        "auc on valid": "0.8000",
        "threshold": "0.5",
        "dataset": "flights@1",
        "made at": "2026-01-01T00:00:00+00:00",
        "signed by": "nobody",
        "input a": "int64",
        "output score": "float64",
        "file model.ubj": "3 bytes",
        "golden rows": "2, raw rows of the data; see --json",
        "folder": str(catalog.store.path("models", "flights", "data", "0123")),
    }
    assert {name: shown.get(name) for name in wanted} == wanted
    assert shown["auc on test"].startswith("1.0000")
    assert "{" not in err


def test_a_signature_of_a_record_that_was_never_published_signs_nothing(catalog, capsys):
    """As a training leaves it that was killed, or of which another one was first."""
    signer, bundle = Signer(Ed25519PrivateKey.generate(), "ci"), catalog.model("flights@1")
    lost = bundle.model_copy(update={"folder": "models/flights/data/4567"})
    for signed, shown in ((lost, "nobody"), (bundle, signer.public.id)):
        catalog.sign_model(signed, signer)
        assert cells(ask(catalog, capsys, "models", "flights@1")[2])["signed by"] == shown


def test_what_the_spec_asked_of_a_training_is_shown(catalog, capsys):
    old = cells(ask(catalog, capsys, "models", "flights@1")[2])
    assert old["settings"] == "not recorded: an older release made it"
    settings = TrainSettings(rounds=50, early_stopping=None, imbalance="weight", seed=7)
    catalog.publish_model(make_bundle(key="k2").model_copy(update={"settings": settings}))
    shown = cells(ask(catalog, capsys, "models", "flights@2")[2])
    wanted = {"rounds": "50", "early_stopping": "none", "imbalance": "weight", "seed": "7"}
    assert {name: shown[f"setting {name}"] for name in wanted} == wanted
    body = json.loads(ask(catalog, capsys, "models", "flights@2", "--json")[1])
    assert body["settings"]["imbalance"] == "weight"


def test_a_dataset_is_shown_to_people_with_its_account(catalog, capsys):
    status, out, err = ask(catalog, capsys, "datasets", "flights@1")
    assert (status, out) == (0, "")
    shown = cells(err)
    wanted = {
        "rows of source t": "25",
        "rows joined": "25",
        "rows train": "10",
        "rows quarantine": "2",
        "rows dropped (gap)": "3",
        "ledger key: key_repeated": "2 to quarantine",
        "feature c": "category",
        "files": "2, 200 bytes",
        "warning": "the split is small",
        "test openings": "0",
    }
    assert {name: shown.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("shelf", ["models", "datasets"])
def test_json_gives_the_whole_record_and_nothing_else(catalog, capsys, shelf):
    status, out, err = ask(catalog, capsys, shelf, "flights@1", "--json")
    record = catalog.model("flights") if shelf == "models" else catalog.dataset("flights")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(record.to_json())


def test_a_list_names_the_aliases_and_whole_refs(catalog, capsys):
    catalog.publish_model(make_bundle(key="k2"))
    body = json.loads(ask(catalog, capsys, "models", "--json")[1])["models"]
    assert [(m["model"], m["aliases"]) for m in body] == [
        ("flights@2", []),
        ("flights@1", ["champion"]),
    ]


def damage(catalog: Catalog, shelf: str) -> tuple[str, str, Path]:
    """Add a damaged thing to a shelf; return its name, a good one's, and the damaged file."""
    if shelf == "runs":
        for name in ("good-20260101-000001-aaaaaa", "poor-20260101-000002-bbbbbb"):
            journal = Journal.open(catalog.store.path("runs", name))
            journal.note("etl", "started")
            journal.close()
        file = journal.path
        file.write_text(file.read_text().replace("started", "skipped"))
        return name, "good-20260101-000001-aaaaaa", file
    publish, make = {
        "models": (catalog.publish_model, make_bundle),
        "datasets": (catalog.publish_dataset, make_manifest),
    }[shelf]
    rows = {"train": 1, "valid": 0, "test": 1, "quarantine": 0}
    publish(make("poor").model_copy(update={"rows": rows} if shelf == "datasets" else {}))
    file = catalog.store.path(shelf, "poor", "versions", "1.json")
    file.write_text('{"kind": "mod')
    return "poor@1", "flights@1", file


@pytest.mark.parametrize("shelf", ["models", "datasets", "runs"])
def test_a_damaged_record_is_named_and_the_others_are_listed(catalog, capsys, shelf):
    poor, good, file = damage(catalog, shelf)
    status, out, err = ask(catalog, capsys, shelf)
    assert (status, out) == (1, "")
    assert good in err
    assert f"{poor} (damaged)" in err
    assert err.splitlines()[-1].startswith("arclight: ")
    assert str(file) in err.splitlines()[-1]
    status, out, err = ask(catalog, capsys, shelf, "--json")
    body = json.loads(out)
    assert (status, err.count("\n")) == (1, 1)
    assert [next(iter(row.values())) for row in body[shelf]] == [good]
    assert [next(iter(row.values())) for row in body["damaged"]] == [poor]
    status, _, err = ask(catalog, capsys, shelf, poor.split("@")[0].split("-")[0])
    assert (status, f"{poor} (damaged)" in err) == (1, True)


def test_every_damaged_record_is_told(catalog, capsys):
    for key in ("k2", "k3"):
        catalog.publish_model(make_bundle(key=key))
    folder = catalog.store.path("models", "flights", "versions")
    (folder / "1.json").write_text("")
    (folder / "3.json").unlink()
    (folder / "3.json").mkdir()
    status, _, err = ask(catalog, capsys, "models")
    assert status == 1
    assert "1.json' must not be empty" in err
    assert "3.json' must be a file that can be read" in err
    assert "flights@2" in err


def test_a_dataset_whose_opening_is_damaged_is_named(catalog, capsys):
    catalog.open_test(catalog.dataset("flights"), catalog.model("flights"), run="r")
    catalog.store.path("datasets", "flights", "openings", "1", "1.json").write_text("")
    status, _, err = ask(catalog, capsys, "datasets")
    assert (status, "flights@1 (damaged)" in err) == (1, True)
    assert "openings/1/1.json' must not be empty" in err


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("aliases/champion/2.json", "flights@champion, move 2"),
        ("evaluations/1/1.json", "flights@1, evaluation 1"),
    ],
)
def test_damage_beside_a_version_is_named(catalog, capsys, place, named):
    second = catalog.publish_model(make_bundle(key="k2"))
    held = catalog.alias("flights", "champion")
    catalog.move_alias(second, "champion", reason="better", seen=held)
    assert ask(catalog, capsys, "models")[0] == 0
    catalog.store.path("models", "flights", *place.split("/")).write_text("{")
    for words in (("models",), ("models", "flights"), ("models", "flights@1")):
        status, _, err = ask(catalog, capsys, *words)
        assert status == 1, words
        assert f"{place}' must be" in err, words
    _, out, _ = ask(catalog, capsys, "models", "--json")
    assert [row["model"] for row in json.loads(out)["damaged"]] == [named]
    status, _, err = ask(catalog, capsys, "models", "flights@2")
    assert status == (1 if "aliases" in place else 0)


def test_an_opening_that_was_copied_counts_for_nothing(catalog, capsys):
    catalog.open_test(catalog.dataset("flights"), catalog.model("flights"), run="r")
    folder = catalog.store.path("datasets", "flights", "openings", "1")
    (folder / "2.json").write_bytes((folder / "1.json").read_bytes())
    status, _, err = ask(catalog, capsys, "datasets")
    assert (status, "2.json' must have been written for this place" in err) == (1, True)


def test_a_run_that_was_killed_is_told_from_one_that_runs(catalog, capsys):
    journals = {}
    for name, entries in {
        "a-20260101-000000-dead00": [("etl", "started")],
        "a-20260101-000001-dead01": [("etl", "started"), ("etl", "done")],
        "a-20260101-000002-lives0": [("etl", "started"), ("etl", "done")],
        "a-20260101-000003-ended0": [("etl", "failed"), ("run", "failed")],
        "a-20260101-000004-asked0": [("etl", "interrupted"), ("run", "interrupted")],
    }.items():
        journals[name] = Journal.open(catalog.store.path("runs", name))
        for step, state in entries:
            journals[name].note(step, state)
        if "lives" not in name:
            journals[name].close()
    (catalog.store.path("runs") / "a-20260101-000005-strays").write_text("a file")
    runs = json.loads(ask(catalog, capsys, "runs", "--json")[1])["runs"]
    journals["a-20260101-000002-lives0"].close()
    assert [(run["run"][-6:], run["state"]) for run in runs] == [
        ("strays", "empty"),
        ("asked0", "interrupted"),
        ("ended0", "failed"),
        ("lives0", "running"),
        ("dead01", "died"),
        ("dead00", "died"),
    ]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("flights@champion", "arclight rollback flights --alias champion"),
        ("flights@canary", "arclight rollback flights --alias canary"),
        ("flights@1", "arclight rollback flights --alias champion"),
        ("flights@", "arclight rollback flights --alias champion"),
    ],
)
def test_rollback_takes_the_name_alone(catalog, capsys, name, advice):
    status, _, err = ask(catalog, capsys, "rollback", name)
    assert status == 2
    assert f"'{name}' must be the model's name alone: {advice}\n" in err


def test_a_promotion_to_where_it_stands_says_so_and_is_not_rolled_back_to(catalog, capsys):
    catalog.publish_model(make_bundle(key="k2"))
    assert "on version 2 now" in ask(catalog, capsys, "promote", "flights@2", "champion")[2]
    for _ in range(2):
        status, _, err = ask(catalog, capsys, "promote", "flights@2", "champion")
        assert (status, "stands on version 2 already; nothing was moved." in err) == (0, True)
    assert "on version 1 again" in ask(catalog, capsys, "rollback", "flights")[2]
    status, _, err = ask(catalog, capsys, "rollback", "flights")
    assert (status, "nothing to roll back to" in err) == (2, True)


@pytest.mark.parametrize("stands", [False, True])
def test_the_doctor_leaves_no_store(tmp_path, monkeypatch, capsys, stands):
    monkeypatch.chdir(tmp_path)
    if stands:
        (tmp_path / ".arclight").mkdir()
    seen = []

    def examine(_profile, _constraints, root):
        root.mkdir(exist_ok=True)
        seen.append(root)
        return ()

    monkeypatch.setattr(doctor_job, "examine", examine)
    doctor_job.doctor_command(store=None, profile="local", as_json=False)
    assert seen == [tmp_path / ".arclight"]
    assert (tmp_path / ".arclight").exists() == stands


def test_a_name_alone_is_the_newest_and_the_help_says_so(catalog):
    catalog.publish_model(make_bundle(key="k2"))
    assert catalog.model("flights").number == 2
    said = CliRunner().invoke(cli.app, ["score", "--help"]).output
    assert "NAME alone is its newest version" in " ".join(said.split())
