"""Certificates: the one for development, which is made at the first start, and those that the user gives."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ....runtime.errors import SlabwireError
from ....runtime.host.ownership import link_maker, locked

logger = logging.getLogger("slabwire")

LIFETIME = timedelta(days=90)
# Clocks of clients may be behind ours.
BACKDATED = timedelta(days=1)
# Looked at when an ingress starts: one that then runs for a month has no expired certificate.
RENEWED_BEFORE = timedelta(days=30)
# Of the user's certificates: as long before their end as there is still time to get a new one.
WARNED_BEFORE = timedelta(days=14)
# It is held for as long as it takes to make a key.
LOCK_WITHIN_S = 10.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST_NAME = re.compile(r"[A-Za-z0-9_:](?:[A-Za-z0-9_.:-]{0,252}[A-Za-z0-9_:])?")


class CertificateError(SlabwireError):
    """A certificate or a key that cannot be used."""

    code = "certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files that fit together. `chain` begins with the server's own certificate, `key` may be the same file.

    `public` holds no key: what a client trusts (`curl --cacert`) where the certificate signs itself.
    """

    chain: Path
    key: Path
    public: Path
    not_after: datetime


# -- the user's -------------------------------------------------------------------------------------------------------


def given_certificate(chain: Path, key: Path | None = None, *, now: datetime | None = None) -> Certificate:
    """The user's certificate, checked and left as it is; without `key` the key stands in the same file.

    Raises CertificateError: a file cannot be read, the two do not fit, or it is not valid at this time.
    """
    now = now or datetime.now(UTC)
    key = key or chain
    found = _read(chain, key)
    if found.not_valid_before_utc > now:
        raise CertificateError(
            f"the certificate {chain} is not valid before {found.not_valid_before_utc}; see the clock"
        )
    if found.not_valid_after_utc <= now:
        raise CertificateError(f"the certificate {chain} ended on {found.not_valid_after_utc}; give a valid one")
    if found.not_valid_after_utc - now < WARNED_BEFORE:
        logger.warning("the certificate %s ends on %s", chain, found.not_valid_after_utc)
    return Certificate(chain, key, chain, found.not_valid_after_utc)


def _read(chain: Path, key: Path) -> x509.Certificate:
    """The first certificate of a file, whose key stands in the other. What fails is never told with its content."""
    try:
        certificate = x509.load_pem_x509_certificate(_content(chain, "certificate"))
    except ValueError:
        raise CertificateError(f"{chain} holds no certificate in PEM") from None
    try:
        private = serialization.load_pem_private_key(_content(key, "key"), password=None)
    except TypeError:
        raise CertificateError(f"the key {key} is encrypted; give one without a pass phrase, of mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{key} holds no private key in PEM") from None
    if private.public_key() != certificate.public_key():
        raise CertificateError(
            f"the key {key} does not fit the certificate {chain}; give the one that it was made with"
        )
    return certificate


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"the {what} {path} cannot be read: {error.strerror}") from None


# -- for development --------------------------------------------------------------------------------------------------


def state_directory() -> Path:
    """$SLABWIRE_STATE_DIR, else $XDG_STATE_HOME/slabwire, else ~/.local/state/slabwire. Raises CertificateError where
    there is none of them.
    """
    named = os.environ.get("SLABWIRE_STATE_DIR")
    if named:
        return Path(named).absolute()
    shared = Path(os.environ.get("XDG_STATE_HOME", ""))
    if shared.is_absolute():  # a relative path is ignored (XDG Base Directory Specification)
        return shared / "slabwire"
    try:
        return Path.home() / ".local" / "state" / "slabwire"
    except RuntimeError:
        raise CertificateError(
            "there is no home folder to keep a development certificate in (neither HOME nor an entry for user "
            f"{os.getuid()} in the list of users); set SLABWIRE_STATE_DIR to a directory that can be written, or give "
            "certificate= and key="
        ) from None


def development_certificate(
    host: str = "localhost", directory: Path | None = None, *, now: datetime | None = None
) -> Certificate:
    """A certificate that signs itself, for this machine's loopback and `host`. Made if there is none that will do.

    It lies in `directory`, else in `tls` of the state directory. Key and certificate are one file, which is replaced
    whole: whenever this ends, and whoever else makes one at the same time, they fit. The public file is a copy of its
    second half, put right at each call. Raises CertificateError: the directory is not ours alone, or cannot be written.
    """
    now, directory = now or datetime.now(UTC), directory or state_directory() / "tls"
    names = _names(host)
    pair, public = directory / f"{names[-1]}.key.pem", directory / f"{names[-1]}.pem"
    try:
        _make_private(directory)
        with locked(directory / ".lock", LOCK_WITHIN_S):
            reason = _why_not(pair, now)
            if reason:
                _replace(pair, _made(names, now), 0o600)
                logger.info("made a development certificate for %s: %s", ", ".join(names), reason)
            certificate = _read(pair, pair)
            plain = certificate.public_bytes(serialization.Encoding.PEM)
            if not public.is_file() or public.read_bytes() != plain:
                _replace(public, plain, 0o644)
    except OSError as error:
        raise CertificateError(
            f"cannot keep a development certificate in {directory}: {error.strerror}; set SLABWIRE_STATE_DIR to a "
            "directory that can be written, or give certificate= and key="
        ) from None
    return Certificate(pair, pair, public, certificate.not_valid_after_utc)


def _names(host: str) -> tuple[str, ...]:
    """What the certificate is for; the last gives the files their name. All addresses stand for the machine's name."""
    if host in LOOPBACK:
        return ("127.0.0.1", "::1", "localhost")
    named = socket.gethostname() if host in ("0.0.0.0", "::") else host
    if not _HOST_NAME.fullmatch(named):
        raise CertificateError(f"{named!r} is no name of a host; give certificate= and key=")
    return tuple(dict.fromkeys((*LOOPBACK, named)))


def _why_not(pair: Path, now: datetime) -> str:
    """Why a development certificate will not do; empty if it will."""
    if not pair.exists():
        return "there was none"
    if pair.stat().st_mode & 0o077:
        return "others could read the key of the last one"
    try:
        certificate = _read(pair, pair)
    except CertificateError as error:
        return str(error)
    if certificate.not_valid_before_utc > now:
        return f"the last one is not valid before {certificate.not_valid_before_utc}"
    if certificate.not_valid_after_utc - now < RENEWED_BEFORE:
        return f"the last one ends on {certificate.not_valid_after_utc}"
    return ""


def _made(names: tuple[str, ...], now: datetime) -> bytes:
    """A new key, and a certificate for it that is its own trust anchor, in PEM. RFC 5280, sections 4.1 and 4.2."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Slabwire development certificate"),
            x509.NameAttribute(NameOID.COMMON_NAME, names[-1][:64]),  # ub-common-name
        ]
    )
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + LIFETIME)
    )
    for extension, critical in _extensions(names, key.public_key()):
        builder = builder.add_extension(extension, critical)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _extensions(names: tuple[str, ...], key: ec.EllipticCurvePublicKey) -> Iterator[tuple[Any, bool]]:
    """Each with whether it is critical. No authority: whoever trusts it trusts this machine, and nothing it signs."""
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield x509.KeyUsage(digital_signature=True, **dict.fromkeys(_OTHER_USAGES, False)), True
    yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
    yield x509.SubjectAlternativeName([_general_name(each) for each in names]), False
    yield x509.SubjectKeyIdentifier.from_public_key(key), False
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(key), False


_OTHER_USAGES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# -- files ------------------------------------------------------------------------------------------------------------


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    stranger = link_maker((directory.parent, directory))
    if stranger:
        raise CertificateError(
            f"{directory} is to hold a private key, and lies where a link of {stranger} leads: "
            "set SLABWIRE_STATE_DIR to another"
        )
    status = directory.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise CertificateError(
            f"{directory} must be a directory of yours that nobody else may enter, since it holds a private key: "
            f"chmod 700 {directory}, or set SLABWIRE_STATE_DIR to another"
        )


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Puts a file in its place whole, on the disk before it has its name. Only one process does so at a time."""
    fresh = path.with_name(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
