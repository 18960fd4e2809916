"""A certificate and its key are proved to be a pair that a server can use, file by file."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from arclight.errors import SpecError
from ray_apps.serving.tls import check_tls

if TYPE_CHECKING:
    from pathlib import Path

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def cert_of(key: Key) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=9000))
        .sign(key, hashes.SHA256())
    )


def pem(key: Key, passphrase: bytes | None = None) -> bytes:
    lock = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs and everything that is none."""
    folder = tmp_path_factory.mktemp("tls")
    one, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    cert = cert_of(one)
    contents = {
        "cert": cert.public_bytes(Encoding.PEM),
        "key": pem(one),
        "other-key": pem(other),
        "locked-key": pem(one, b"secret"),
        "both": pem(one) + cert.public_bytes(Encoding.PEM),
        "der": cert.public_bytes(Encoding.DER),
        "text": b"no PEM",
        "empty": b"",
        "weak-cert": cert_of(weak).public_bytes(Encoding.PEM),
        "weak-key": pem(weak),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize("pair", [("cert", "key"), ("both", "both"), (None, None)])
def test_a_pair_is_taken(files: Path, pair: tuple[str | None, str | None]) -> None:
    cert, key = (None if name is None else files / name for name in pair)
    check_tls(cert, key)


@pytest.mark.parametrize(
    ("cert", "key", "text"),
    [("nope", "key", "--tls-cert .*nope' .*No such file"),
     ("cert", "nope", "--tls-key .*nope' .*No such file"),
     ("folder", "key", "--tls-cert .*Is a directory"), ("cert", "folder", "--tls-key .*Is a dir"),
     ("text", "key", "--tls-cert .*must be a certificate in PEM, but is none"),
     ("empty", "key", "--tls-cert .*but is none"), ("der", "key", "--tls-cert .*but is none"),
     ("key", "key", "--tls-cert .*but is none"), ("cert", "text", "--tls-key .*but is none"),
     ("cert", "cert", "--tls-key .*but is none"), ("cert", "empty", "--tls-key .*but is none"),
     ("cert", "locked-key", "without a passphrase"),
     ("cert", "other-key", "must be that of the certificate"),
     ("weak-cert", "weak-key", "must be fit for a server"),
     ("cert", None, "--tls-cert must come with --tls-key"),
     (None, "key", "--tls-key must come with --tls-cert")],
)  # fmt: skip
def test_what_is_no_pair_is_a_sentence(
    files: Path, cert: str | None, key: str | None, text: str
) -> None:
    given = [None if name is None else files / name for name in (cert, key)]
    with pytest.raises(SpecError, match=text):
        check_tls(*given)
