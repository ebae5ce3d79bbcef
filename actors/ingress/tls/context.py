"""How libssl is to speak: an SSL_CTX, which all connections of a terminator share."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from ..certificates.certificate import Certificate, CertificateError
from .libssl import (
    ALPN_ALERT,
    ALPN_CHOSEN,
    CTRL_CHAIN_CERT,
    CTRL_CLEAR_MODE,
    CTRL_MODE,
    CTRL_SET_GROUPS_LIST,
    CTRL_SET_MIN_PROTO_VERSION,
    CTRL_SET_SESS_CACHE_MODE,
    MODE_ACCEPT_MOVING_WRITE_BUFFER,
    MODE_AUTO_RETRY,
    MODE_ENABLE_PARTIAL_WRITE,
    MODE_RELEASE_BUFFERS,
    OP_CIPHER_SERVER_PREFERENCE,
    OP_NO_COMPRESSION,
    OP_NO_RENEGOTIATION,
    OP_PRIORITIZE_CHACHA,
    TLS_1_2,
    TLS_1_3,
    AlpnCallback,
    Libssl,
)
from .terminator import ALPN, SUITES_OF_1_2, Minimum
from .tickets import Tickets

# Each costs the handshake time, and each resumption brings a new one.
_TICKETS = 1
# The first list that the library takes: X25519MLKEM768 is there from OpenSSL 3.5 on.
_GROUPS = ("X25519MLKEM768:X25519:P-256:P-384", "X25519:P-256:P-384")
_OPTIONS = OP_NO_RENEGOTIATION | OP_NO_COMPRESSION | OP_CIPHER_SERVER_PREFERENCE | OP_PRIORITIZE_CHACHA
# With AUTO_RETRY a peer that sends nothing but key updates would keep us within one SSL_read for as long as it likes.
_MODE = MODE_ENABLE_PARTIAL_WRITE | MODE_ACCEPT_MOVING_WRITE_BUFFER | MODE_RELEASE_BUFFERS
# RFC 8879, section 7.3, the best first.
_COMPRESSIONS = {"brotli": 2, "zstd": 3, "zlib": 1}

# There are few lists that clients offer, but each may offer its own.
_OFFERS = 16
_NAMES = tuple(name.encode() for name in ALPN)
_NAME_BUFFERS = {name: ctypes.create_string_buffer(name, len(name)) for name in _NAMES}


@lru_cache(_OFFERS)
def choose_protocol(offered: bytes) -> bytes | None:
    """The first of ours that is offered, in the form of RFC 7301, section 3.1: names behind their lengths."""
    names, at = set(), 0
    while at < len(offered):
        end = at + 1 + offered[at]
        names.add(offered[at + 1 : end])
        at = end
    return next((name for name in _NAMES if name in names), None)


def _choose(_ssl: int, out: Any, out_length: Any, offered: int, length: int, _argument: int) -> int:
    """No common protocol: the fatal alert no_application_protocol. Nothing may be raised to libssl."""
    try:
        name = choose_protocol(ctypes.string_at(offered, length))
        if name is None:
            return ALPN_ALERT
        out[0] = ctypes.addressof(_NAME_BUFFERS[name])
        out_length[0] = len(name)
    except BaseException:
        return ALPN_ALERT
    return ALPN_CHOSEN


_select_protocol = AlpnCallback(_choose)  # kept for as long as libssl may call it


class ServerContext:
    """An SSL_CTX for certificates of different kinds, of which each client gets one that it can verify. Raises
    CertificateError if libssl does not take them.

    What one context gives out as `tickets`, every other of the same takes.
    """

    def __init__(
        self, library: Libssl, certificates: Sequence[Certificate], minimum: Minimum, tickets: Tickets
    ) -> None:
        self.pointer = library.SSL_CTX_new(library.TLS_server_method()) or 0
        self._library = library
        if not self.pointer:
            raise MemoryError("libssl makes no SSL_CTX")
        self._set_protocol(minimum)
        self.groups = self._set_groups()
        self._set_tickets(tickets)
        for each in certificates:
            self._load(each)
        self.compressions = self._compress_certificate()

    def __del__(self) -> None:
        pointer, self.pointer = getattr(self, "pointer", 0), 0
        if pointer:
            self._library.SSL_CTX_free(pointer)

    def _set_protocol(self, minimum: Minimum) -> None:
        library = self._library
        self._control(CTRL_SET_MIN_PROTO_VERSION, TLS_1_2 if minimum == "1.2" else TLS_1_3)
        library.SSL_CTX_set_cipher_list(self.pointer, SUITES_OF_1_2.encode())
        library.SSL_CTX_set_options(self.pointer, _OPTIONS)
        self._control(CTRL_MODE, _MODE)
        self._control(CTRL_CLEAR_MODE, MODE_AUTO_RETRY)
        library.SSL_CTX_set_alpn_select_cb(self.pointer, _select_protocol, None)

    def _set_groups(self) -> list[str]:
        for names in _GROUPS:
            if self._control(CTRL_SET_GROUPS_LIST, 0, names.encode()):
                break
            self._library.ERR_clear_error()
        return names.split(":")

    def _set_tickets(self, tickets: Tickets) -> None:
        self.tickets = tickets  # which libssl calls for as long as it has the SSL_CTX
        self._control(CTRL_SET_SESS_CACHE_MODE, 0)  # what a session is lies in its ticket
        self._library.SSL_CTX_set_num_tickets(self.pointer, _TICKETS)
        tickets.install(self)

    def _load(self, certificate: Certificate) -> None:
        """From memory: what was checked. Files may have changed since."""
        library, pointer = self._library, self.pointer
        own, *others = certificate.chain_der
        library.ERR_clear_error()
        with self._parsed(library.d2i_X509, own, library.X509_free) as parsed:
            taken = bool(parsed) and library.SSL_CTX_use_certificate(pointer, parsed) == 1
        with self._parsed(library.d2i_AutoPrivateKey, certificate.key_der, library.EVP_PKEY_free) as parsed:
            taken = taken and bool(parsed) and library.SSL_CTX_use_PrivateKey(pointer, parsed) == 1
        for each in others:
            with self._parsed(library.d2i_X509, each, library.X509_free) as parsed:
                # Behind the certificate that was set last; 1: with a reference of its own.
                taken = taken and bool(parsed) and library.SSL_CTX_ctrl(pointer, CTRL_CHAIN_CERT, 1, parsed) == 1
        if not taken or library.SSL_CTX_check_private_key(pointer) != 1:
            raise CertificateError(
                f"OpenSSL does not take the certificate {certificate.chain} with the key {certificate.key}: "
                f"{library.next_error()[1]}"
            )

    @contextmanager
    def _parsed(self, parse: Callable[..., int], der: bytes, free: Callable[[int], None]) -> Iterator[int]:
        """An object of libcrypto, 0 where it could not be made."""
        pointer = parse(None, ctypes.byref(ctypes.c_char_p(der)), len(der)) or 0
        try:
            yield pointer
        finally:
            free(pointer)

    def _compress_certificate(self) -> list[str]:
        """Certificate compression (RFC 8879), by all that the library was built with."""
        if not hasattr(self._library, "SSL_CTX_compress_certs"):
            return []
        taken = [
            name for name, number in _COMPRESSIONS.items() if self._library.SSL_CTX_compress_certs(self.pointer, number)
        ]
        self._library.ERR_clear_error()
        return taken

    def _control(self, command: int, number: int, data: bytes | None = None) -> int:
        return int(self._library.SSL_CTX_ctrl(self.pointer, command, number, data))
