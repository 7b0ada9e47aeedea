"""Certificates for 127.0.0.1, for servers of the tests that speak TLS."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_ADDRESS = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


def authority(folder: Path) -> Path:
    """A certificate that is its own authority: makes the folder, writes `ca.pem`, and `key.pem` beside it.

    Returns the path of the former."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "key.pem", key)
    (folder / "ca.pem").write_bytes(_certificate("a server of the tests", key, "a server of the tests", key))
    return folder / "ca.pem"


def signed_by_an_authority(folder: Path) -> Path:
    """As many clusters have them, without key identifiers: like `authority`, and `server.pem`, which `ca.pem` signed;
    `key.pem` is the server's."""
    folder.mkdir()
    authoritys, servers = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "key.pem", servers)
    (folder / "ca.pem").write_bytes(_certificate("an authority", authoritys, "an authority", authoritys))
    (folder / "server.pem").write_bytes(_certificate("a server", servers, "an authority", authoritys))
    return folder / "ca.pem"


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuers: ec.EllipticCurvePrivateKey
) -> bytes:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(_ADDRESS, critical=False)
        .add_extension(x509.BasicConstraints(ca=key is issuers, path_length=None), critical=True)
        .sign(issuers, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def strict_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python is from 3.13 on: it refuses certificates without key identifiers."""
    create = ssl.create_default_context

    def of_later_pythons(*, cafile: str) -> ssl.SSLContext:
        context = create(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", of_later_pythons)
