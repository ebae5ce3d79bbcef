"""New keys and certificates, for development: what they say, and who signs them. RFC 5280, sections 4.1 and 4.2."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .certificate import CertificateError

LIFETIME = timedelta(days=90)
# Clocks of clients may be behind ours.
BACKDATED = timedelta(days=1)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# RSA with 3072 bits is as strong as P-256 (NIST SP 800-57 part 1, table 2).
KEYS: dict[str, Callable[[], Any]] = {
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 3072),
}
_HOST_NAME = re.compile(r"[A-Za-z0-9_:](?:[A-Za-z0-9_.:-]{0,252}[A-Za-z0-9_:])?")
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def names_for(host: str) -> tuple[str, ...]:
    """What a certificate for `host` is for: the loopback, and `host`, which comes last. All addresses stand for the
    machine's name. Raises CertificateError for what is no name.
    """
    if host in LOOPBACK:
        return ("127.0.0.1", "::1", "localhost")
    named = socket.gethostname() if host in ("0.0.0.0", "::") else host
    if not _HOST_NAME.fullmatch(named):
        raise CertificateError(f"{named!r} is no name of a host; give certificate= and key=")
    return tuple(dict.fromkeys((*LOOPBACK, named)))


def self_signed(names: Sequence[str], key: Any, now: datetime) -> x509.Certificate:
    """A server's certificate that is its own trust anchor. No authority: whoever trusts it trusts this machine, and
    nothing that it signs.
    """
    subject = _named("Slabwire development certificate", names[-1])
    builder = _builder(subject, subject, key.public_key(), now, LIFETIME)
    return _signed(builder, _of_server(names, key.public_key(), key.public_key()), key)


def authority_for(name: str, key: Any, now: datetime, lifetime: timedelta) -> x509.Certificate:
    """The certificate of an authority that may sign certificates of servers, and no authorities."""
    subject = _named("Slabwire development authority", name)
    builder = _builder(subject, subject, key.public_key(), now, lifetime)
    return _signed(builder, _of_authority(key.public_key()), key)


def issued(
    names: Sequence[str], public_key: Any, authority: x509.Certificate, authority_key: Any, now: datetime
) -> x509.Certificate:
    """A server's certificate that an authority signs. It does not outlive its authority."""
    subject = _named("Slabwire development certificate", names[-1])
    lifetime = min(LIFETIME, authority.not_valid_after_utc - now + BACKDATED)
    builder = _builder(subject, authority.subject, public_key, now, lifetime)
    return _signed(builder, _of_server(names, public_key, authority.public_key()), authority_key)


def pem_of(part: Any) -> bytes:
    """A certificate or a private key, in PEM."""
    if isinstance(part, x509.Certificate):
        return part.public_bytes(serialization.Encoding.PEM)
    pem: bytes = part.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _named(organization: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),  # ub-common-name
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: Any, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + lifetime)
    )


def _signed(
    builder: x509.CertificateBuilder, extensions: Iterator[tuple[x509.ExtensionType, bool]], key: Any
) -> x509.Certificate:
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _of_server(names: Sequence[str], public_key: Any, issuer: Any) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """Each with whether it is critical."""
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _usage("digital_signature"), True
    yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
    yield x509.SubjectAlternativeName([_general_name(each) for each in names]), False
    yield x509.SubjectKeyIdentifier.from_public_key(public_key), False
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), False


def _of_authority(public_key: Any) -> Iterator[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=True, path_length=0), True
    yield _usage("key_cert_sign", "crl_sign"), True
    yield x509.SubjectKeyIdentifier.from_public_key(public_key), False
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), False


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{each: each in allowed for each in _USAGES})


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
