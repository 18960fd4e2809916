"""`arclight keys signing` and `keys sign`, and the two variables, as they are typed."""

from __future__ import annotations

import json

import pytest

from arclight.catalog import Catalog
from arclight.errors import MissingError, RefusedError, SpecError
from arclight.store import open_store
from jobs.cli import main
from jobs.runs import store_for
from jobs.signing import signer_here, trust_here
from ray_apps.predictor import load_predictor
from ray_apps.serving import deploy
from ray_apps.signing_keys import make_signing_key
from tests.ray_apps.serving.small_model import publish_small_model


def arclight(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture
def store(tmp_path):
    """A store with one unsigned model."""
    root = tmp_path / "store"
    publish_small_model(Catalog(open_store(root)))
    return root


def test_a_version_is_signed_with_two_commands(tmp_path, store, monkeypatch, capsys):
    assert arclight("keys", "signing", tmp_path / "k", "--name", "ci", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["public"] == (tmp_path / "k.pub").read_text().strip()
    monkeypatch.setenv("ARCLIGHT_TRUSTED_KEYS", str(tmp_path / "k.pub"))
    catalog = store_for(str(store), tmp_path)
    with pytest.raises(RefusedError, match="has no signature"):
        load_predictor(catalog, catalog.model("delay"), threads=1)

    monkeypatch.setenv("ARCLIGHT_SIGNING_KEY", str(tmp_path / "k"))
    assert arclight("keys", "sign", "delay@1", "--store", store, "--json") == 0
    signature = json.loads(capsys.readouterr().out)
    assert (signature["model"], signature["key_id"]) == ("delay@1", made["id"])
    load_predictor(catalog, catalog.model("delay"), threads=1)


def test_a_refused_model_ends_a_command_with_3(tmp_path, store, monkeypatch, capsys):
    make_signing_key(tmp_path / "k", "ci")
    monkeypatch.setenv("ARCLIGHT_TRUSTED_KEYS", str(tmp_path / "k.pub"))
    monkeypatch.setattr(deploy, "ray_session", lambda *_, **__: pytest.fail("it started"))
    assert arclight("serve", "delay", "--store", store, "--port", "0") == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "model 'delay@1' must be signed" in said
    assert "Traceback" not in said


def test_a_damaged_model_is_not_signed(tmp_path, store, monkeypatch, capsys):
    make_signing_key(tmp_path / "k", "ci")
    monkeypatch.setenv("ARCLIGHT_SIGNING_KEY", str(tmp_path / "k"))
    catalog = Catalog(open_store(store))
    path = catalog.folder(catalog.model("delay")) / "model.ubj"
    path.write_bytes(path.read_bytes()[:-1])
    assert arclight("keys", "sign", "delay", "--store", store) == 1
    assert catalog.signatures(catalog.model("delay")) == ()


def test_a_folder_without_a_store_gets_none(tmp_path, monkeypatch, capsys):
    make_signing_key(tmp_path / "k", "ci")
    monkeypatch.setenv("ARCLIGHT_SIGNING_KEY", str(tmp_path / "k"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert arclight("keys", "sign", "delay@1") == 2
    assert "there is no store" in " ".join(capsys.readouterr().err.split())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_signing_needs_a_key(store, monkeypatch, capsys):
    monkeypatch.delenv("ARCLIGHT_SIGNING_KEY", raising=False)
    assert arclight("keys", "sign", "delay", "--store", store) == 2
    assert "ARCLIGHT_SIGNING_KEY must name the key" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("variable", "read"),
    [("ARCLIGHT_SIGNING_KEY", signer_here), ("ARCLIGHT_TRUSTED_KEYS", trust_here)],
)
def test_a_variable_is_never_switched_off_by_accident(variable, read, monkeypatch, tmp_path):
    monkeypatch.delenv(variable, raising=False)
    assert read() is None
    monkeypatch.setenv(variable, "")
    with pytest.raises(SpecError, match=f"variable {variable} must name a file"):
        read()
    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    with pytest.raises(MissingError):
        read()


def test_a_catalog_signs_only_where_models_are_published(tmp_path, store, monkeypatch):
    make_signing_key(tmp_path / "k", "ci")
    monkeypatch.setenv("ARCLIGHT_SIGNING_KEY", str(tmp_path / "k"))
    assert store_for(str(store), tmp_path).signer is None
    assert store_for(str(store), tmp_path, signs=True).signer is not None
