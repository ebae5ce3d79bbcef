"""A local authority and what it signs: certificates as one has in service, for demonstrations and tests."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from .certificate import CertificateError, certificates_in, check_dates, private_key_in, read_file, read_pair
from .issuing import KEYS, authority_for, issued, names_for, pem_of
from .private_files import appearing, make_private, write_new
from .source import CertificateFiles

_LIFETIME = timedelta(days=3650)
_CERTIFICATE, _KEY = "authority.pem", "authority.key"


@dataclass(frozen=True)
class Authority:
    """Who signs. Clients that trust `certificate` trust all that it signs."""

    certificate: x509.Certificate
    key: Any

    @classmethod
    def new(cls, name: str, now: datetime) -> Authority:
        """An authority of ten years."""
        key = KEYS["ecdsa"]()
        return cls(authority_for(name, key, now, _LIFETIME), key)

    def issue(self, names: Sequence[str], kind: str, now: datetime) -> tuple[bytes, bytes]:
        """A certificate of 90 days and its key, in PEM."""
        key = KEYS[kind]()
        return pem_of(issued(names, key.public_key(), self.certificate, self.key, now)), pem_of(key)


@dataclass(frozen=True)
class Made:
    """Where certificates and their authority lie."""

    trusted: Path  # what clients trust
    server: Path  # the directory for `Ingress(certificate=)`
    new_authority: bool
    names: tuple[str, ...]
    not_after: datetime


def make_certificates(folder: Path, hosts: Sequence[str], kinds: Sequence[str], *, now: datetime | None = None) -> Made:
    """Certificates for the loopback and `hosts`, one of each kind of key, in `server` of a folder of ours alone.

    They are signed by the authority in `authority` there, which is made if there is none. Raises CertificateError
    where there are certificates already: nothing is overwritten.
    """
    now = now or datetime.now(UTC)
    home, server = folder / "authority", folder / "server"
    names = tuple(dict.fromkeys(name for host in hosts for name in names_for(host)))
    if server.exists():
        raise CertificateError(
            f"{server} is there already, and nothing is overwritten: move it elsewhere for new certificates of the "
            "same authority, or name another folder"
        )
    try:
        make_private(folder, "name another folder")
        new = not home.exists()
        authority = _new_authority(home, now) if new else _read_authority(home, now)
        with appearing(server) as fresh:
            for kind in dict.fromkeys(kinds):
                certificate, key = authority.issue(names, kind, now)
                write_new(fresh / f"{kind}.crt", certificate, 0o644)
                write_new(fresh / f"{kind}.key", key, 0o600)
    except OSError as error:
        raise CertificateError(f"cannot make certificates in {folder}: {error.strerror}; name another folder") from None
    not_after = min(each.not_after for each in CertificateFiles([(server, None)]).read(now))
    return Made(home / _CERTIFICATE, server, new, names, not_after)


def _new_authority(home: Path, now: datetime) -> Authority:
    authority = Authority.new(socket.gethostname(), now)
    with appearing(home) as fresh:
        write_new(fresh / _KEY, pem_of(authority.key), 0o600)
        write_new(fresh / _CERTIFICATE, pem_of(authority.certificate), 0o644)
    return authority


def _read_authority(home: Path, now: datetime) -> Authority:
    certificate, key = home / _CERTIFICATE, home / _KEY
    check_dates(read_pair(certificate, key), now)
    return Authority(
        certificates_in(read_file(certificate, "certificate"))[0], private_key_in(key, read_file(key, "key"))
    )
