"""Certificates by an authority of the test's own, and how they come to lie where an ingress reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from slabwire.actors.ingress.certificates.authority import Authority
from slabwire.actors.ingress.certificates.issuing import issued, pem_of

Pair = tuple[bytes, bytes]


def reissued(authority: Authority, key: bytes, names: Sequence[str], now: datetime) -> bytes:
    """Another certificate for a key in PEM."""
    private = serialization.load_pem_private_key(key, None)
    return pem_of(issued(names, private.public_key(), authority.certificate, authority.key, now))


def weak(authority: Authority, names: Sequence[str]) -> Pair:
    """What only libssl refuses."""
    key = rsa.generate_private_key(65537, 1024)
    made = issued(names, key.public_key(), authority.certificate, authority.key, datetime.now(UTC))
    return pem_of(made), pem_of(key)


def trusted(authority: Authority, folder: Path) -> Path:
    """The file that clients trust."""
    return put(folder / "authority.pem", pem_of(authority.certificate))


def put(path: Path, content: bytes) -> Path:
    """Replaces a file whole, as careful programs do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
    return path


def put_pair(folder: Path, pair: Pair, name: str = "tls") -> tuple[Path, Path]:
    return put(folder / f"{name}.crt", pair[0]), put(folder / f"{name}.key", pair[1])


def swap_as_kubernetes(volume: Path, pair: Pair, version: str) -> None:
    """What its kubelet does with the volume of a secret: a new directory, and one link to it that is replaced."""
    fresh = volume / f"..{version}"
    fresh.mkdir(parents=True)
    (fresh / "tls.crt").write_bytes(pair[0])
    (fresh / "tls.key").write_bytes(pair[1])
    before = os.readlink(volume / "..data") if (volume / "..data").is_symlink() else None
    (volume / "..data_tmp").symlink_to(fresh.name)
    (volume / "..data_tmp").replace(volume / "..data")
    if before is None:
        for name in ("tls.crt", "tls.key"):
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")
        return
    for each in (volume / before).iterdir():
        each.unlink()
    (volume / before).rmdir()


def key_lines(*files: Path) -> list[str]:
    """Whole lines of the private keys in these files: what must never be told."""
    keys = [each.read_text().partition("-----END PRIVATE KEY-----")[0] for each in files]
    return [line for key in keys for line in key.splitlines() if not line.startswith("-----")]
