"""Where certificates lie: files, or directories of files. How they look tells whether they have changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509

from .certificate import (
    Certificate,
    CertificateError,
    certificates_in,
    check_dates,
    fit,
    private_key_in,
    public_key_of,
    read_file,
    read_pair,
)

# Of one path: which file it leads to, and when that was changed; or why that cannot be told.
Look = tuple[str, int, int, int, int, int]
_KEY_MARK = b"PRIVATE KEY-----"
# What is called so must be a key, or else one that is just being written would not count.
_KEY_NAMES = (".key", "key.pem")
# Some of ten pairs are too many already.
_MOST_FILES = 100


class CertificateSource(Protocol):
    """Where the certificates of an ingress come from. Any thread."""

    def look(self) -> tuple[Look, ...]:
        """Equal to what it was before, unless something has changed there. Raises nothing."""

    def read(self) -> tuple[Certificate, ...]:
        """What is there now. Raises CertificateError."""


class CertificateFiles:
    """The user's certificates, one of each kind of key. They are only read.

    Each place is a file, whose key lies in another one or in itself, or a directory: there each private key must have
    its certificate, hidden files do not count, and certificates without a key are left alone. Of several certificates
    for one key the one that ends last is taken, and of these the longest chain.
    """

    def __init__(self, places: Sequence[tuple[Path, Path | None]]) -> None:
        self._places = places

    def look(self) -> tuple[Look, ...]:
        """As CertificateSource says. Links are followed: what they lead to is what counts."""
        return tuple(look_at(each) for chain, key in self._places for each in _files_at(chain, key))

    def read(self, now: datetime | None = None) -> tuple[Certificate, ...]:
        """All that is there, the first place first. Raises CertificateError: a file cannot be read, a key does not
        fit, two are of one kind, or one is not valid at this time.
        """
        found = [each for chain, key in self._places for each in _read_place(chain, key)]
        kinds: dict[str, Certificate] = {}
        for each in found:
            check_dates(each, now or datetime.now(UTC))
            other = kinds.setdefault(each.kind, each)
            if other is not each:
                raise CertificateError(
                    f"the certificates {other.chain} and {each.chain} are both for {each.kind} keys, and a client can "
                    "be shown one of each kind; remove one of them"
                )
        return tuple(found)


def look_at(path: Path) -> Look:
    """How a path looks now; another one in its place, by whatever link, looks different."""
    try:
        status = path.stat()
    except OSError as error:
        return str(path), -(error.errno or errno.EIO), 0, 0, 0, 0
    return str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _files_at(chain: Path, key: Path | None) -> Iterator[Path]:
    if os.path.isdir(chain):
        try:
            yield from _listed(chain)
        except CertificateError:
            yield chain
        return
    yield chain
    if key is not None:
        yield key


def _listed(directory: Path) -> list[Path]:
    try:
        names = sorted(each for each in os.listdir(directory) if not each.startswith("."))
    except OSError as error:
        raise CertificateError(f"the directory {directory} cannot be read: {error.strerror}") from None
    if len(names) > _MOST_FILES:
        raise CertificateError(f"{directory} has over {_MOST_FILES} files; give a directory of your certificates alone")
    return [directory / each for each in names]


def _read_place(chain: Path, key: Path | None) -> list[Certificate]:
    if not os.path.isdir(chain):
        return [read_pair(chain, key or chain)]
    if key is not None:
        raise CertificateError(f"{chain} is a directory, in which keys are found; give no key= with it")
    return _read_directory(chain)


def _read_directory(directory: Path) -> list[Certificate]:
    contents = {each: read_file(each, "file") for each in _listed(directory) if not os.path.isdir(each)}
    chains = {path: found for path, content in contents.items() if (found := certificates_in(content))}
    keys = {path: private_key_in(path, content) for path, content in contents.items() if _is_key(path, content)}
    if not keys:
        raise CertificateError(f"the directory {directory} holds no private key in PEM")
    made: dict[str, Certificate] = {}  # by fingerprint: a key may lie in two files
    for path, private in keys.items():
        public = private.public_key()
        fitting = [each for each, found in chains.items() if public_key_of(found[0]) == public]
        if not fitting:
            raise CertificateError(
                f"no certificate in {directory} fits the key {path}; put both there, or remove the key"
            )
        best = max(fitting, key=lambda each: _rank(chains[each]))
        certificate = fit(best, chains[best], path, private)
        made.setdefault(certificate.fingerprint, certificate)
    return list(made.values())


def _is_key(path: Path, content: bytes) -> bool:
    return _KEY_MARK in content or path.name.endswith(_KEY_NAMES)


def _rank(chain: Sequence[x509.Certificate]) -> tuple[datetime, int]:
    return chain[0].not_valid_after_utc, len(chain)
