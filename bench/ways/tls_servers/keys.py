"""Certificates that sign themselves, by keys of both kinds that the web uses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ....actors.ingress.certificates.certificate import Certificate, read_pair

NAME = "localhost"
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KINDS: dict[str, Callable[[], _PrivateKey]] = {
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
# Longer than an ingress warns of.
_LIFETIME = timedelta(days=30)


def made(kind: str, folder: Path) -> Certificate:
    """A new one, in that folder: P-256 or RSA with 2048 bits."""
    key, now = KINDS[kind](), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / f"{kind}.pem", folder / f"{kind}.key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.touch(0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return read_pair(public, private)
