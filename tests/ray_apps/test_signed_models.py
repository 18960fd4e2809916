"""R3: where keys are trusted, no door opens a model that none of them signed."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from arclight.bundle import ModelBundle
from arclight.errors import IntegrityError, RefusedError
from arclight.progress import silent
from arclight.signing import Signer, TrustedKeys
from arclight.store import sha256_file
from ray_apps import predictor as module
from ray_apps.evaluate import evaluate_model
from ray_apps.predictor import load_predictor
from ray_apps.retrain import retrain_model
from ray_apps.score import score_folder
from ray_apps.serving.access import Access, Limits
from ray_apps.serving.deploy import Service, load_endpoints
from ray_apps.verify import verify_model

OURS = Signer(Ed25519PrivateKey.from_private_bytes(b"1" * 32), "ours")
THEIRS = Signer(Ed25519PrivateKey.from_private_bytes(b"2" * 32), "theirs")


def use_predictor(made, bundle, tmp_path):
    load_predictor(made.catalog, bundle, threads=1)


def use_score(made, bundle, tmp_path):
    pq.write_table(made.raw["test"], tmp_path / "raw.parquet")
    raw, out = tmp_path / "raw.parquet", tmp_path / "out"
    score_folder(made.catalog, bundle, raw, out, threads=1, tick=silent)


def use_evaluate(made, bundle, tmp_path):
    evaluate_model(made.catalog, bundle, made.manifest, segments=(), run="test", tick=silent)


def use_verify(made, bundle, tmp_path):
    verify_model(made.catalog, bundle, endpoint=None, tick=silent)


def use_retrain(made, bundle, tmp_path):
    retrain_model(made.catalog, bundle, folder=tmp_path, tick=silent)


def use_serve(made, bundle, tmp_path):
    service = Service(
        store=str(made.catalog.store.root),
        refs=(bundle.ref,),
        access=Access(),
        limits=Limits(),
        trust=made.catalog.trust,
    )
    load_endpoints(service)


DOORS = [use_predictor, use_score, use_evaluate, use_verify, use_retrain, use_serve]


def signed_by(own, *signers):
    """Return a store whose one model these keys signed, and a catalog that trusts ours."""
    made, bundle = own("binary", "xgboost")
    for signer in signers:
        made.catalog.sign_model(bundle, signer)
    trust = TrustedKeys((OURS.public,), "trusted.txt")
    return replace(made, catalog=replace(made.catalog, trust=trust)), bundle


@pytest.fixture
def nothing_is_parsed(monkeypatch):
    """Fail if a model file is so much as looked at."""

    def touched(*_):
        raise AssertionError("a file was opened before the signature was checked")

    monkeypatch.setattr(module, "check_bundle_files", touched)
    monkeypatch.setattr(module, "load_in_child", touched)


@pytest.mark.parametrize("door", DOORS)
def test_a_model_of_a_trusted_key_is_used(own, door, tmp_path):
    made, bundle = signed_by(own, OURS)
    door(made, bundle, tmp_path)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("signers", "reason"),
    [((), "has no signature"), ((THEIRS,), f"signed by key {THEIRS.public.id} only")],
    ids=["unsigned", "by another key"],
)
def test_R3_other_models_are_refused_before_a_file_is_opened(
    own, door, tmp_path, signers, reason, nothing_is_parsed
):
    made, bundle = signed_by(own, *signers)
    with pytest.raises(RefusedError, match=f"^model '{bundle.ref}' must be signed by .* {reason}"):
        door(made, bundle, tmp_path)
    assert list(made.catalog.openings(made.manifest)) == []


@pytest.mark.parametrize("door", DOORS)
def test_a_file_with_its_record_edited_to_match_is_refused(own, door, tmp_path, nothing_is_parsed):
    """Size, hash and golden rows would all agree: only the signature cannot be made to."""
    made, bundle = signed_by(own, OURS)
    path = made.catalog.folder(bundle) / bundle.model_file
    path.write_bytes(path.read_bytes() + b"\0")
    files = tuple(
        f.model_copy(update={"size_bytes": path.stat().st_size, "sha256": sha256_file(path)})
        if f.path == bundle.model_file
        else f
        for f in bundle.files
    )
    record = made.catalog.store.path("models", "demo", "versions", f"{bundle.number}.json")
    record.write_text(bundle.model_copy(update={"files": files}).to_json())
    edited = made.catalog.model(bundle.ref)
    assert isinstance(edited, ModelBundle)
    with pytest.raises(RefusedError, match="does not fit the record"):
        door(made, edited, tmp_path)


@pytest.mark.parametrize("door", DOORS)
def test_R3_under_an_intact_record_a_changed_file_is_refused_by_its_hash(own, door, tmp_path):
    made, bundle = signed_by(own, OURS)
    path = made.catalog.folder(bundle) / bundle.model_file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="its bytes differ"):
        door(made, bundle, tmp_path)


def test_without_trusted_keys_models_load_as_before(own, tmp_path):
    made, bundle = own("binary", "xgboost")
    use_predictor(made, bundle, tmp_path)
