"""The certificate of a server and its key, proved to be a pair before anything listens."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate

from arclight.errors import SpecError, printable

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PublicKeyTypes,
    )


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Prove that a server can use a certificate and its key; neither is as good as none.

    Raises:
        SpecError: one is given alone, cannot be read, is not what it must be, or they are of
            different pairs.
    """
    if cert is None and key is None:
        return
    if cert is None or key is None:
        given, missing = ("key", "cert") if cert is None else ("cert", "key")
        raise SpecError(
            f"--tls-{given} must come with --tls-{missing}; give both, or neither for plain HTTP."
        )
    if _bytes_of(_certified(cert)) != _bytes_of(_public(key)):
        raise SpecError(
            f"the key '{printable(key)}' must be that of the certificate '{printable(cert)}', "
            "but is of another one; give the two files that were made together."
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise SpecError(
            f"the certificate '{printable(cert)}' and its key must be fit for a server, but "
            f"OpenSSL says {printable(error)}; make others."
        ) from error


def _certified(file: Path) -> CertificatePublicKeyTypes:
    try:
        return load_pem_x509_certificate(_read(file, "certificate", "--tls-cert")).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(
            f"--tls-cert '{printable(file)}' must be a certificate in PEM, but is none; give the "
            "file that begins with '-----BEGIN CERTIFICATE-----'."
        ) from error


def _public(file: Path) -> PublicKeyTypes:
    try:
        private = load_pem_private_key(_read(file, "key", "--tls-key"), password=None)
    except TypeError as error:
        raise SpecError(
            f"--tls-key '{printable(file)}' must be a key without a passphrase, since nobody is "
            "there to type it; write it without one, mode 0600."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(
            f"--tls-key '{printable(file)}' must be a private key in PEM, but is none; give the "
            "key that the certificate was made with."
        ) from error
    return private.public_key()


def _read(file: Path, what: str, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SpecError(
            f"{option} '{printable(file)}' must be a {what} in PEM that can be read, but "
            f"{error.strerror}; give another file or mend its rights."
        ) from error


def _bytes_of(key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
