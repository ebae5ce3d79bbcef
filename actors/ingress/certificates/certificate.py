"""A certificate with its key: read once, checked, and kept as it was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from ....runtime.errors import SlabwireError

_KINDS: tuple[tuple[type, str], ...] = (
    (ec.EllipticCurvePublicKey, "ECDSA"),
    (ed25519.Ed25519PublicKey, "Ed25519"),
    (ed448.Ed448PublicKey, "Ed448"),
    (rsa.RSAPublicKey, "RSA"),
)
# A chain of ten certificates has 20 KiB. What is larger is something else.
_MOST_NBYTES = 1 << 20
_GENERATION_DIGITS = 12


class CertificateError(SlabwireError):
    """A certificate or a key that cannot be used."""

    code = "certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate and what leads from it to its authority, and the key that fits.

    What is loaded is what was checked: `chain_der` (the server's own certificate first) and `key_der` (PKCS #8). The
    files tell people where it came from: `chain`, and `key`, which may be the same; `public` holds no key: what a
    client trusts (`curl --cacert`) where the certificate signs itself.
    """

    chain: Path
    key: Path
    public: Path
    kind: str  # "ECDSA", "Ed25519", "Ed448" or "RSA"
    fingerprint: str  # SHA-256 of the certificate, in hexadecimal digits
    not_before: datetime
    not_after: datetime
    names: frozenset[str] | None  # of hosts, "*." may stand before one; None where it bears no names of any sort
    chain_der: tuple[bytes, ...] = field(repr=False)
    key_der: bytes = field(repr=False)

    def __str__(self) -> str:
        """For logs."""
        window = f"{self.not_before:%Y-%m-%d %H:%M} to {self.not_after:%Y-%m-%d %H:%M} UTC"
        return f"{self.kind} {self.chain}, SHA-256 {self.fingerprint}, valid {window}"


def read_pair(chain: Path, key: Path, public: Path | None = None) -> Certificate:
    """Files that fit together; when it is valid is not looked at. What fails is never told with its content.

    Raises CertificateError: a file cannot be read, holds something else, or does not fit.
    """
    certificates = certificates_in(read_file(chain, "certificate"))
    if not certificates:
        raise CertificateError(f"{chain} holds no certificate in PEM")
    return fit(chain, certificates, key, private_key_in(key, read_file(key, "key")), public)


def check_dates(certificate: Certificate, now: datetime) -> None:
    """Raises CertificateError for a certificate that is not valid now."""
    if certificate.not_before > now:
        raise CertificateError(
            f"the certificate {certificate.chain} is not valid before {certificate.not_before}; see the clock"
        )
    if certificate.not_after <= now:
        raise CertificateError(
            f"the certificate {certificate.chain} ended on {certificate.not_after}; give a valid one"
        )


def generation_of(certificates: Sequence[Certificate]) -> str:
    """A name for these certificates together: every process that has loaded the same ones calls them the same.

    Of one certificate without others behind it, it is the beginning of the fingerprint.
    """
    content = b"".join(each for certificate in certificates for each in certificate.chain_der)
    return hashlib.sha256(content).hexdigest()[:_GENERATION_DIGITS]


def names_of(certificates: Sequence[Certificate], host: str) -> list[str] | None:
    """The names that a server on `host` answers to with these; None for any, where one of them bears none."""
    names = [host]
    for each in certificates:
        if each.names is None:
            return None
        names += each.names
    return names


def describe_certificates(certificates: Sequence[Certificate]) -> dict[str, Any]:
    """For people: {"certificate", "not_after", "generation", "certificates"}; the first two say what one file is to be
    trusted, and when the first of them ends.
    """
    return {
        "certificate": str(certificates[0].public),
        "not_after": min(each.not_after for each in certificates).isoformat(),
        "generation": generation_of(certificates),
        "certificates": [
            {
                "kind": each.kind,
                "file": str(each.chain),
                "sha256": each.fingerprint,
                "not_before": each.not_before.isoformat(),
                "not_after": each.not_after.isoformat(),
            }
            for each in certificates
        ],
    }


# -- what files hold --------------------------------------------------------------------------------------------------


def read_file(path: Path, what: str) -> bytes:
    """All of a file. Raises CertificateError where it cannot be read, or is too large to be a certificate."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # no pipe holds us up
            content = file.read(_MOST_NBYTES + 1)
    except OSError as error:
        raise CertificateError(f"the {what} {path} cannot be read: {error.strerror}") from None
    if len(content or b"") > _MOST_NBYTES:
        raise CertificateError(f"{path} is no {what}: it has over 1 MiB")
    return content or b""


def certificates_in(content: bytes) -> list[x509.Certificate]:
    """All of a file's, in PEM; none where it holds something else."""
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        return []


def private_key_in(path: Path, content: bytes) -> Any:
    """The private key of a file. Raises CertificateError where there is none, or one that is encrypted.

    The check of an RSA key would hold up all of the process for up to 0.4 s: that it fits is shown by its use.
    """
    try:
        return serialization.load_pem_private_key(content, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise CertificateError(f"the key {path} is encrypted; give one without a pass phrase, of mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path} holds no private key in PEM") from None


def certificates_in_der(ders: Sequence[bytes]) -> list[x509.Certificate]:
    """As `Certificate.chain_der` has them."""
    return [x509.load_der_x509_certificate(each) for each in ders]


def private_key_in_der(der: bytes) -> Any:
    """As `Certificate.key_der` has it."""
    return serialization.load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)


def public_key_of(certificate: x509.Certificate) -> Any:
    """None for a kind of key that is not known."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def fit(
    chain: Path, certificates: Sequence[x509.Certificate], key: Path, private: Any, public: Path | None = None
) -> Certificate:
    """The certificate that these make together. Raises CertificateError where they do not fit."""
    own = certificates[0]
    public_key = public_key_of(own)
    if not _fits(private, public_key):
        raise CertificateError(
            f"the key {key} does not fit the certificate {chain}; give the one that it was made with"
        )
    kind = next((name for kind, name in _KINDS if isinstance(public_key, kind)), None)
    if kind is None:
        raise CertificateError(f"the key {key} is of a kind that TLS has no use for; make one for ECDSA")
    return Certificate(
        chain=chain,
        key=key,
        public=public or chain,
        kind=kind,
        fingerprint=own.fingerprint(hashes.SHA256()).hex(),
        not_before=own.not_valid_before_utc,
        not_after=own.not_valid_after_utc,
        names=_names_on(own),
        chain_der=tuple(each.public_bytes(serialization.Encoding.DER) for each in certificates),
        key_der=private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _fits(private: Any, public: Any) -> bool:
    if private.public_key() != public:
        return False
    if isinstance(private, rsa.RSAPrivateKey):  # its public half may be right, and the rest spoilt
        signing = padding.PKCS1v15(), hashes.SHA256()
        try:
            public.verify(private.sign(b"", *signing), b"", *signing)
        except (InvalidSignature, ValueError):
            return False
    return True


def _names_on(certificate: x509.Certificate) -> frozenset[str] | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except ValueError:  # they cannot be read
        return frozenset()
    return frozenset(found.get_values_for_type(x509.DNSName))
