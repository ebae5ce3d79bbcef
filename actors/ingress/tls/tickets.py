"""Session tickets, sealed and opened by libssl with keys that we give it, bound to what they were given for.

What libssl calls here may raise nothing: it would be printed, and 0 returned. A fault costs a resumption, or a ticket.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from typing import Any

from ..tickets.key import NAME_NBYTES, S, TicketKey
from ..tickets.memory import Keys
from ..tickets.ring import Ring
from ..tickets.states import OPENING, State
from ..tickets.terms import Binding, Refusal, Terms, why_not_opened, why_not_taken
from .libssl import (
    EXTENSION_SERVER_NAME,
    HELLO_REFUSED,
    HELLO_TAKEN,
    IGNORE_AND_RENEW,
    KEY_TAKEN,
    KEY_TAKEN_TO_RENEW,
    KEY_UNKNOWN,
    PARAM_BYTES,
    PARAM_TEXT,
    PARAM_UNMODIFIED,
    TICKET_EMPTY,
    TICKET_OPENED,
    TICKET_OPENED_TO_RENEW,
    TLS_1_3,
    USE_AND_RENEW,
    USE_TICKET,
    GiveTicketCallback,
    HelloCallback,
    Libssl,
    Param,
    TakeTicketCallback,
    TicketKeyCallback,
)
from .terminator import Refused

_CIPHER, _MAC_DIGEST = b"AES-256-CBC", b"SHA256"
_IV_NBYTES = 16
# Where an SSL keeps what belongs to its application: the first 8 bytes of its name's digest, and no pointer.
_APPLICATION = 0
_NAME_SHOWN = 8


class _Sealer:
    """A key in the form that libcrypto takes."""

    __slots__ = ("_kept", "key", "mac")

    def __init__(self, key: TicketKey) -> None:
        digest, secret = ctypes.create_string_buffer(_MAC_DIGEST), ctypes.create_string_buffer(key.hmac, len(key.hmac))
        self.key = key
        self._kept = digest, secret
        self.mac = (Param * 3)(
            Param(b"digest", PARAM_TEXT, ctypes.addressof(digest), len(_MAC_DIGEST), PARAM_UNMODIFIED),
            Param(b"key", PARAM_BYTES, ctypes.addressof(secret), len(key.hmac), PARAM_UNMODIFIED),
            Param(None, 0, None, 0, 0),
        )


class Tickets:
    """What a terminator's contexts give and take as tickets; `policy` is what its clients have to fulfil.
    `refused` is told why a ticket is not taken.

    One thread. It must outlive the handshakes of its contexts.
    """

    def __init__(self, library: Libssl, keys: Keys, policy: bytes, refused: Refused | None = None) -> None:
        self._tell_refused = refused
        self._refused: Counter[Refusal] = Counter()
        self._library, self._keys, self._policy = library, keys, policy
        self._cipher = library.EVP_CIPHER_fetch(None, _CIPHER, None)
        self._ring: Ring | None = None
        self._sealer: _Sealer | None = None
        self._openers: dict[bytes, _Sealer] = {}
        # Where libssl writes what it is asked for: made once, for making them costs more than the asking.
        self._pointer, self._size, self._length = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_uint()
        self._to_pointer, self._to_size = ctypes.byref(self._pointer), ctypes.byref(self._size)
        self._to_length = ctypes.byref(self._length)
        self._callbacks = (
            HelloCallback(self._bind),
            TicketKeyCallback(self._use_key),
            GiveTicketCallback(self._give),
            TakeTicketCallback(self._take),
        )

    def __del__(self) -> None:
        if cipher := getattr(self, "_cipher", None):
            self._library.EVP_CIPHER_free(cipher)

    def install(self, context: int) -> None:
        """Lets an SSL_CTX give and take tickets."""
        library = self._library
        bind, use_key, give, take = self._callbacks
        library.SSL_CTX_set_client_hello_cb(context, bind, None)
        library.SSL_CTX_set_tlsext_ticket_key_evp_cb(context, use_key)
        library.SSL_CTX_set_session_ticket_cb(context, give, take, None)

    def describe(self) -> dict[str, Any]:
        """For people: {"key", "key_age_s", "lifetime_s", "refused"}; the first three are None while there is no key."""
        self._refresh()
        key, ring = self._sealer.key if self._sealer else None, self._ring
        return {
            "key": key.name.hex()[:_NAME_SHOWN] if key else None,
            "key_age_s": max(0, time.time_ns() - key.activate_at) / S if key else None,
            "lifetime_s": ring.rules.lifetime / S if ring else None,
            "refused": {str(each): self._refused[each] for each in Refusal},
        }

    def _refresh(self) -> Ring | None:
        """The ring as it is now; its keys are at hand then."""
        ring = self._keys.latest()
        if ring is not self._ring:
            self._ring = ring
            sealers = [_Sealer(each) for each in ring.keys if each.state in OPENING] if ring else []
            self._openers = {each.key.name: each for each in sealers}
            self._sealer = next((each for each in sealers if each.key.state is State.ACTIVE), None)
        return ring

    # -- what libssl calls -------------------------------------------------------------------------------------------

    def _bind(self, ssl: int, _alert: Any, _argument: int) -> int:
        """First of all: whom sessions of this connection are for, so that no other's is resumed (CVE-2025-23419). That
        is no matter of a resumption alone, so a fault ends the connection.
        """
        try:
            library, name = self._library, b""
            if library.SSL_client_hello_get0_ext(ssl, EXTENSION_SERVER_NAME, self._to_pointer, self._to_size) == 1:
                name = ctypes.string_at(self._pointer.value or 0, self._size.value)
            context = b"".join(Binding.of(name, self._policy))
            if library.SSL_set_session_id_context(ssl, context, len(context)) != 1:
                return HELLO_REFUSED
            library.SSL_set_ex_data(ssl, _APPLICATION, int.from_bytes(context[:8], "little"))
            self._refresh()
            if self._sealer is None:
                library.SSL_set_num_tickets(ssl, 0)  # an empty ticket is none in TLS 1.3
        except BaseException:
            return HELLO_REFUSED
        return HELLO_TAKEN

    def _use_key(self, _ssl: int, name: int, iv: int, cipher: int, mac: int, sealing: int) -> int:
        """Gives libssl a key, to seal with or to open. -1 would end the connection."""
        try:
            self._refresh()
            return self._seal(name, iv, cipher, mac) if sealing else self._open(name, iv, cipher, mac)
        except BaseException:
            return KEY_UNKNOWN

    def _seal(self, name: int, iv: int, cipher: int, mac: int) -> int:
        library, sealer = self._library, self._sealer
        if sealer is None:
            return KEY_UNKNOWN
        ctypes.memmove(name, sealer.key.name, NAME_NBYTES)
        is_ready = (
            library.RAND_bytes(iv, _IV_NBYTES) == 1
            and library.EVP_EncryptInit_ex(cipher, self._cipher, None, sealer.key.aes, iv) == 1
            and library.EVP_MAC_CTX_set_params(mac, sealer.mac) == 1
        )
        return KEY_TAKEN if is_ready else KEY_UNKNOWN

    def _open(self, name: int, iv: int, cipher: int, mac: int) -> int:
        library, opener = self._library, self._openers.get(ctypes.string_at(name, NAME_NBYTES))
        # The keeper may be dead, so nobody would have taken the key away.
        if opener is None or 0 < opener.key.expire_at <= time.time_ns():
            return KEY_UNKNOWN
        begun = library.EVP_DecryptInit_ex(cipher, self._cipher, None, opener.key.aes, iv)
        if begun != 1 or library.EVP_MAC_CTX_set_params(mac, opener.mac) != 1:
            return KEY_UNKNOWN
        return KEY_TAKEN_TO_RENEW if opener.key.state is State.DEPRECATED else KEY_TAKEN

    def _give(self, ssl: int, _argument: int) -> int:
        """Notes the terms in a session before it is sealed. 0 would end the connection: a ticket without terms is
        refused when it comes back.
        """
        try:
            library, ring = self._library, self._ring  # of this handshake's hello
            session, now = library.SSL_get_session(ssl), int(time.time())
            if ring is not None and session:
                before = self._terms_of(session) if library.SSL_session_reused(ssl) else None
                terms = Terms(before.full_at if before else now, ring.rules.epoch)
                noted = terms.packed()
                library.SSL_SESSION_set1_ticket_appdata(session, noted, len(noted))
                library.SSL_SESSION_set_timeout(session, terms.lifetime_s(ring.rules, now))
        except BaseException:
            return 1
        return 1

    def _take(self, ssl: int, session: int, name: int, nbytes: int, status: int, _argument: int) -> int:
        """Whether a ticket is taken that was opened, or was not."""
        try:
            refusal = self._refusal_of(ssl, session, ctypes.string_at(name, nbytes) if nbytes else b"", status)
            if refusal is not None:
                self._refused[refusal] += 1
                if self._tell_refused is not None:
                    self._tell_refused(refusal)
            elif status in (TICKET_OPENED, TICKET_OPENED_TO_RENEW):
                # In TLS 1.3 a client is to use each ticket once (RFC 8446, appendix C.4), so it gets another.
                renews = status == TICKET_OPENED_TO_RENEW or self._library.SSL_version(ssl) == TLS_1_3
                return USE_AND_RENEW if renews else USE_TICKET
        except BaseException:
            return IGNORE_AND_RENEW
        return IGNORE_AND_RENEW

    def _refusal_of(self, ssl: int, session: int, name: bytes, status: int) -> Refusal | None:
        library, ring = self._library, self._refresh()
        if status == TICKET_EMPTY:  # TLS 1.2: the client asks for its first
            return None
        if status not in (TICKET_OPENED, TICKET_OPENED_TO_RENEW) or ring is None:
            key = next((each for each in ring.keys if each.name == name), None) if ring else None
            return why_not_opened(key, time.time_ns())
        context = library.SSL_SESSION_get0_id_context(session, self._to_length)
        then, now = Binding.read(ctypes.string_at(context or 0, self._length.value)), int(time.time())
        # Of the name here 8 bytes are known: enough to tell why. What keeps the others out is libssl's own comparison.
        known = (library.SSL_get_ex_data(ssl, _APPLICATION) or 0).to_bytes(8, "little")
        here = Binding(then.name if then.name[:8] == known else b"", self._policy)
        refusal = why_not_taken(self._terms_of(session), then, here, ring.rules, now)
        over = library.SSL_SESSION_get_time(session) + library.SSL_SESSION_get_timeout(session) < now
        return Refusal.EXPIRED if refusal is None and over else refusal

    def _terms_of(self, session: int) -> Terms | None:
        if self._library.SSL_SESSION_get0_ticket_appdata(session, self._to_pointer, self._to_size) != 1:
            return None
        return Terms.read(ctypes.string_at(self._pointer.value or 0, self._size.value))
