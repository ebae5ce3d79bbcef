"""What `slabwire doctor` says of the certificates that an ingress is to serve."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ...runtime.errors import SlabwireError
from .surroundings import Finding

_NAME = "certificate"


def judge_certificates(places: Sequence[Path], key: Path | None, now: datetime | None = None) -> Finding:
    """Whether `Ingress(certificate=, key=)` would take them, and how long they are valid."""
    try:
        from ...actors.ingress.certificates.source import CertificateFiles
        from ...actors.ingress.certificates.watch import WARNED_BEFORE
    except ImportError as error:
        return Finding(_NAME, "broken", f"cannot be read ({error})", "pip install 'slabwire[ingress]'")
    now = now or datetime.now(UTC)
    try:
        found = CertificateFiles([(each, key) for each in places]).read(now)
    except SlabwireError as error:
        problem, _, remedy = str(error).partition("; ")
        return Finding(_NAME, "broken", problem, remedy or "see that file: its path, its mode and its owner")
    first = min(each.not_after for each in found)
    text = (
        f"{', '.join(each.kind for each in found)}, valid until {first:%Y-%m-%d %H:%M} UTC ({(first - now).days} days)"
    )
    if first - now < WARNED_BEFORE:
        return Finding(_NAME, "note", text, "put a new one in its place; an ingress that runs takes it")
    return Finding(_NAME, "ok", text)
