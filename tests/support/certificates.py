"""Certificates for 127.0.0.1, one that is its own authority among them, for servers of the tests that speak TLS."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def authority(folder: Path) -> Path:
    """Makes the folder, writes `ca.pem`, and `key.pem` beside it; returns the path of the former."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of the tests")])
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    certificate = _for_this_machine(name, name, key).add_extension(constraints, critical=True)
    folder.mkdir()
    return _written(folder / "ca.pem", folder / "key.pem", certificate.sign(key, hashes.SHA256()), key)


def issued(ca: Path) -> Path:
    """Writes a certificate that this authority signed, without key identifiers, and its key, `issued-key.pem`."""
    signer = serialization.load_pem_private_key(ca.with_name("key.pem").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signed by another")])
    issuer = x509.load_pem_x509_certificate(ca.read_bytes()).subject
    certificate = _for_this_machine(name, issuer, key).sign(signer, hashes.SHA256())
    return _written(ca.with_name("issued.pem"), ca.with_name("issued-key.pem"), certificate, key)


def _for_this_machine(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
    )


def _written(path: Path, key_path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Path:
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path
