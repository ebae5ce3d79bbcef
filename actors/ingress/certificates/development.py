"""The certificate for development: one that signs itself, made at the first start and renewed in time."""

from __future__ import annotations

import logging
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ....runtime.host.ownership import locked
from .certificate import Certificate, CertificateError, read_pair
from .issuing import KEYS, names_for, pem_of, self_signed
from .private_files import make_private, replace_file
from .source import Look, look_at

logger = logging.getLogger("slabwire")

RENEWED_BEFORE = timedelta(days=30)
# It is held for as long as it takes to make a key.
LOCK_WITHIN_S = 10.0
_REMEDY = "set SLABWIRE_STATE_DIR to another"


class DevelopmentFiles:
    """The development certificate as a source: looked after once a day, and when its file has changed."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._directory = state_directory() / "tls"
        self._pair = self._directory / f"{names_for(host)[-1]}.key.pem"

    def look(self) -> tuple[Look, ...]:
        """As CertificateSource says."""
        return look_at(self._pair), ("the date", date.today().toordinal(), 0, 0, 0, 0)

    def read(self) -> tuple[Certificate, ...]:
        """As CertificateSource says."""
        return (development_certificate(self._host, self._directory),)


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
    names = names_for(host)
    pair, public = directory / f"{names[-1]}.key.pem", directory / f"{names[-1]}.pem"
    try:
        make_private(directory, _REMEDY)
        with locked(directory / ".lock", LOCK_WITHIN_S):
            reason = _why_not(pair, now)
            if reason:
                key = KEYS["ecdsa"]()
                replace_file(pair, pem_of(key) + pem_of(self_signed(names, key, now)), 0o600)
                logger.info("made a development certificate for %s: %s", ", ".join(names), reason)
            plain = _certificate_of(pair)
            if not public.is_file() or public.read_bytes() != plain:
                replace_file(public, plain, 0o644)
            return read_pair(pair, pair, public)
    except OSError as error:
        raise CertificateError(
            f"cannot keep a development certificate in {directory}: {error.strerror}; set SLABWIRE_STATE_DIR to a "
            "directory that can be written, or give certificate= and key="
        ) from None


def _certificate_of(pair: Path) -> bytes:
    """What stands behind the key."""
    _, mark, rest = pair.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    return mark + rest


def _why_not(pair: Path, now: datetime) -> str:
    """Why a development certificate will not do; empty if it will."""
    if not pair.exists():
        return "there was none"
    if pair.stat().st_mode & 0o077:
        return "others could read the key of the last one"
    try:
        certificate = read_pair(pair, pair)
    except CertificateError as error:
        return str(error)
    if certificate.not_before > now:
        return f"the last one is not valid before {certificate.not_before}"
    if certificate.not_after - now < RENEWED_BEFORE:
        return f"the last one ends on {certificate.not_after}"
    return ""
