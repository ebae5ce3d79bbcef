"""What an author gives as `certificate=` and `key=`: whether it will do, and which certificates it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .source import CertificateSource

Paths = str | list[str] | None


def problems_of(certificate: Paths, key: Paths) -> list[str]:
    """In words; none where it will do. Files are not looked at."""
    if key is not None and certificate is None:
        return ["an Ingress was given key= without the certificate= that it fits"]
    if not _are_paths(certificate) or not _are_paths(key):
        return [f"an Ingress was given {certificate=} and {key=}; each is the path of a file, or a list"]
    if key is not None and len(_listed(certificate)) != len(_listed(key)):
        return ["an Ingress was given lists of certificate= and key= that are not equally long"]
    return []


def source_for(certificate: Paths, key: Paths, host: str) -> CertificateSource:
    """Without a certificate the one for development on `host`."""
    # Imported here: whoever writes a graph down needs no cryptography.
    from .development import DevelopmentFiles
    from .source import CertificateFiles

    if certificate is None:
        return DevelopmentFiles(host)
    chains = _listed(certificate)
    keys = [None] * len(chains) if key is None else [Path(each) for each in _listed(key)]
    return CertificateFiles([(Path(chain), key) for chain, key in zip(chains, keys, strict=True)])


def _listed(paths: Paths) -> list[str]:
    return [paths] if isinstance(paths, str) else paths or []


def _are_paths(paths: object) -> bool:
    each = paths if isinstance(paths, list) else [paths]
    return paths is None or (bool(each) and all(isinstance(path, str) and path for path in each))
