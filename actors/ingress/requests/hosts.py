"""The names by which this server may be asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509


class Hosts:
    """Tells whether a Host header names this server: `"localhost:8443" in hosts`. Ports do not matter.

    A web page whose author lets its own name stand for this machine's address (DNS rebinding) is asked for by that
    name: so names must be known, and addresses, which no page can choose, need not. `names` may begin with "*.".
    With None any name is taken.
    """

    def __init__(self, names: Iterable[str] | None) -> None:
        self._names = None if names is None else frozenset(name.lower() for name in names)

    @classmethod
    def of(cls, host: str, certificate: Path) -> Hosts:
        """Those of a certificate in PEM, and where the server listens; any if the certificate names nobody."""
        try:
            found = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
            names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return cls(None)
        return cls([host, *names.get_values_for_type(x509.DNSName)])

    def __contains__(self, authority: str) -> bool:
        name = _name_in(authority)
        if self._names is None or _is_address(name) or name == "localhost" or name.endswith(".localhost"):
            return True
        return name in self._names or f"*.{name.partition('.')[2]}" in self._names


def _name_in(authority: str) -> str:
    """Without port, brackets, and the dot of a full name; "" where there is none."""
    host = authority.strip().lower()
    bracketed, _, _ = host.removeprefix("[").partition("]")
    return bracketed if host.startswith("[") else host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
