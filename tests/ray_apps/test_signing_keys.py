"""Files of keys: private ones closed, public ones written by their owner alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from arclight.errors import (
    ConflictError,
    IntegrityError,
    MissingError,
    RefusedError,
    SpecError,
)
from ray_apps.signing_keys import load_signer, load_trusted, make_signing_key


def test_a_key_is_made_closed_with_its_public_line(tmp_path):
    before = os.umask(0)
    try:
        made = make_signing_key(tmp_path / "k", "ci")
    finally:
        os.umask(before)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert load_signer(tmp_path / "k").public.raw == made.raw
    assert load_trusted(tmp_path / "k.pub").keys == (made,)
    assert made.line not in (tmp_path / "k").read_text()


def test_a_key_is_never_overwritten(tmp_path):
    make_signing_key(tmp_path / "k", "ci")
    held = (tmp_path / "k").read_bytes()
    with pytest.raises(ConflictError, match="never overwritten"):
        make_signing_key(tmp_path / "k", "ci")
    (tmp_path / "k.pub").unlink()
    with pytest.raises(ConflictError, match="never overwritten"):
        make_signing_key(tmp_path / "k", "ci")
    assert (tmp_path / "k").read_bytes() == held


def test_a_public_line_is_never_overwritten(tmp_path):
    (tmp_path / "k.pub").write_text("mine")
    with pytest.raises(ConflictError, match="never overwritten"):
        make_signing_key(tmp_path / "k", "ci")
    assert [p.name for p in tmp_path.iterdir()] == ["k.pub"]
    assert (tmp_path / "k.pub").read_text() == "mine"


def test_a_key_of_openssl_is_taken(tmp_path):
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(tmp_path / "k")]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "k").chmod(0o600)
    assert load_signer(tmp_path / "k").name == "k"


@pytest.mark.parametrize("name", ["", "CI", "../x", "a b", "a\n"])
def test_a_key_has_a_plain_name(tmp_path, name):
    with pytest.raises(SpecError, match="lower-case letters"):
        make_signing_key(tmp_path / "k", name)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SpecError, match="No such file or directory"):
        make_signing_key(tmp_path / "no" / "k", "ci")


def _foreign(encryption) -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "content",
    [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\x00" * 64, _foreign(NoEncryption()),
     _foreign(BestAvailableEncryption(b"secret"))],
    ids=["empty", "cut", "zeros", "another algorithm", "with a password"],
)  # fmt: skip
def test_what_is_no_signing_key_is_refused(tmp_path, content):
    (tmp_path / "k").write_bytes(content)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(IntegrityError, match="must hold an Ed25519 private key"):
        load_signer(tmp_path / "k")


def test_a_private_key_that_others_can_read_is_refused(tmp_path):
    make_signing_key(tmp_path / "k", "ci")
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(RefusedError, match="readable by its owner only"):
        load_signer(tmp_path / "k")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_trusted_keys_that_others_can_write_are_refused(tmp_path, mode):
    make_signing_key(tmp_path / "k", "ci")
    (tmp_path / "k.pub").chmod(mode)
    with pytest.raises(RefusedError, match="only its owner can write"):
        load_trusted(tmp_path / "k.pub")


def test_trusted_keys_may_be_read_by_all(tmp_path):
    make_signing_key(tmp_path / "k", "ci")
    (tmp_path / "k.pub").chmod(0o644)
    assert len(load_trusted(tmp_path / "k.pub").keys) == 1


@pytest.mark.parametrize("load", [load_signer, load_trusted])
def test_a_file_that_is_not_there_is_named(tmp_path, load):
    with pytest.raises(MissingError, match="cannot be read"):
        load(tmp_path / "none")


@pytest.mark.parametrize("load", [load_signer, load_trusted])
def test_only_a_regular_file_is_read(load):
    with pytest.raises(RefusedError, match="regular file"):
        load(Path("/dev/null"))


def test_a_huge_file_is_not_read_whole(tmp_path):
    (tmp_path / "t").write_text("#\n" * 40_000)
    (tmp_path / "t").chmod(0o600)
    with pytest.raises(SpecError, match="at most 65,536 bytes"):
        load_trusted(tmp_path / "t")
