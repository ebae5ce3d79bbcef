"""What handshakes by libssl have agreed on."""

from __future__ import annotations

from .libssl import CTRL_GET_NEGOTIATED_GROUP, Libssl
from .outcome import Agreed
from .secured import Facts, Secured

_Names = tuple[str, str, str]  # of version, cipher suite and group


class Agreements:
    """Says it in words. Libssl has it in numbers, of which there are few: each is looked up once."""

    def __init__(self, library: Libssl) -> None:
        self._library = library
        self._names: dict[tuple[int, int, int], _Names] = {}

    def of(self, secured: Secured, took_s: float) -> Agreed:
        """Of a handshake that is done: before there is a session libssl crashes of the question."""
        library, ssl = self._library, secured.pointer
        group = library.SSL_ctrl(ssl, CTRL_GET_NEGOTIATED_GROUP, 0, None)
        known = library.SSL_version(ssl), library.SSL_get_current_cipher(ssl), group
        names = self._names.get(known)
        if names is None:
            self._names[known] = names = _names_of(Facts(secured))
        return Agreed(*names, bool(library.SSL_session_reused(ssl)), took_s)


def _names_of(facts: Facts) -> _Names:
    cipher = facts.cipher()
    return facts.version() or "", cipher[0] if cipher else "", facts.group() or ""
