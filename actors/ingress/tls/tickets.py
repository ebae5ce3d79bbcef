"""Session tickets, sealed and opened by libssl with keys that we give it, bound to what they were given for.

What libssl calls here may raise nothing: it would be printed, and 0 returned. A fault costs a resumption, or a ticket.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import Counter
from typing import Any, Protocol
from weakref import WeakSet

from ..tickets.key import NAME_NBYTES, SECRET_NBYTES, Rules, S, TicketKey
from ..tickets.memory import Keys
from ..tickets.ring import Ring
from ..tickets.states import OPENING, State
from ..tickets.terms import Refusal, binding_of, packed, read, why_not_opened, why_not_taken
from .libssl import (
    CTRL_SET_TICKET_KEYS,
    EXTENSION_PRE_SHARED_KEY,
    EXTENSION_SERVER_NAME,
    EXTENSION_SESSION_TICKET,
    HELLO_REFUSED,
    HELLO_TAKEN,
    IGNORE_AND_RENEW,
    OP_NO_TICKET,
    TICKET_EMPTY,
    TICKET_OPENED,
    TICKET_OPENED_TO_RENEW,
    TLS_1_3,
    USE_AND_RENEW,
    USE_TICKET,
    HelloCallback,
    Libssl,
    TakeTicketCallback,
)
from .terminator import Refused

_NAME_SHOWN = 8
_KEYS_NBYTES = NAME_NBYTES + 2 * SECRET_NBYTES
# Where a client has its ticket, and at what byte the key's name begins: behind the lengths of all identities and of the
# first (RFC 8446, section 4.2.11), and in TLS 1.2 at once (RFC 5077, section 3.2).
_TICKET_EXTENSIONS = ((EXTENSION_PRE_SHARED_KEY, 4), (EXTENSION_SESSION_TICKET, 0))


class Context(Protocol):
    """An SSL_CTX."""

    pointer: int


class Tickets:
    """What a terminator's contexts give and take as tickets; `policy` is what its clients have to fulfil.
    `refused` is told why a ticket is not taken.

    A context seals and opens by the active key without asking: a callback in Python for each would cost 5 % of a
    handshake. Only while a ticket of another key is opened does it have that one.

    One thread. It must outlive the handshakes of its contexts. Behind each step of one, while its context is held,
    `turn_back` is due where `turned` says so: a hello may have ended where nobody asked for its ticket.
    """

    def __init__(self, library: Libssl, keys: Keys, policy: bytes, refused: Refused | None = None) -> None:
        self._tell_refused = refused
        self._refused: Counter[Refusal] = Counter()
        self._library, self._keys, self._policy = library, keys, policy
        self._ring: Ring | None = None
        self._active: TicketKey | None = None
        self._others: dict[bytes, TicketKey] = {}  # that open tickets, by their names
        self._contexts: WeakSet[Context] = WeakSet()
        self._bound = b""  # to whom the session is for whose hello is being read
        self.turned = 0  # the context that has another key for now
        # Where libssl writes what it is asked for: made once, for making them costs more than the asking.
        self._pointer, self._size, self._length = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_uint()
        self._to_pointer, self._to_size = ctypes.byref(self._pointer), ctypes.byref(self._size)
        self._to_length = ctypes.byref(self._length)
        self._callbacks = (
            HelloCallback(self._bind),
            TakeTicketCallback(self._take),
        )

    def install(self, context: Context) -> None:
        """Lets an SSL_CTX give and take tickets, for as long as somebody holds it."""
        library, pointer = self._library, context.pointer
        bind, take = self._callbacks
        library.SSL_CTX_set_client_hello_cb(pointer, bind, None)
        library.SSL_CTX_set_session_ticket_cb(pointer, None, take, None)
        self.refresh()
        self._contexts.add(context)
        self._prepare(pointer)

    def describe(self) -> dict[str, Any]:
        """For people: {"key", "key_age_s", "lifetime_s", "refused"}; the first three are None while there is no key."""
        self.refresh()
        key, ring = self._active, self._ring
        return {
            "key": key.name.hex()[:_NAME_SHOWN] if key else None,
            "key_age_s": max(0, time.time_ns() - key.activate_at) / S if key else None,
            "lifetime_s": ring.rules.lifetime / S if ring else None,
            "refused": {str(each): self._refused[each] for each in Refusal},
        }

    def refresh(self) -> None:
        """Before a hello is read: contexts have the key that is active now."""
        ring = self._keys.latest()
        if ring is not self._ring:
            self._ring = ring
            keys = [each for each in ring.keys if each.state in OPENING] if ring else []
            self._active = next((each for each in keys if each.state is State.ACTIVE), None)
            self._others = {each.name: each for each in keys if each is not self._active}
            for context in self._contexts:
                self._prepare(context.pointer)

    def _prepare(self, context: int) -> None:
        rules = self._ring.rules if self._ring else Rules()
        self._library.SSL_CTX_set_timeout(context, max(1, min(rules.lifetime, rules.chain) // S))
        self._use(context, self._active)

    def _use(self, context: int, key: TicketKey | None) -> None:
        """Without a key what is sealed is good for nothing."""
        keys = os.urandom(_KEYS_NBYTES) if key is None else key.name + key.hmac + key.aes
        self._library.SSL_CTX_ctrl(context, CTRL_SET_TICKET_KEYS, len(keys), keys)

    def turn_back(self) -> None:
        """The context has the active key again."""
        context, self.turned = self.turned, 0
        self._use(context, self._active)

    # -- what libssl calls -------------------------------------------------------------------------------------------

    def _bind(self, ssl: int, _alert: int, _argument: int) -> int:
        """First of all: whom sessions of this connection are for, so that no other's is resumed (CVE-2025-23419). That
        is no matter of a resumption alone, so a fault ends the connection.
        """
        try:
            library, name = self._library, b""
            if library.SSL_client_hello_get0_ext(ssl, EXTENSION_SERVER_NAME, self._to_pointer, self._to_size) == 1:
                name = ctypes.string_at(self._pointer.value or 0, self._size.value)
            ring = self._ring
            self._bound = context = binding_of(name, self._policy, ring.rules.epoch if ring else 0)
            if library.SSL_set_session_id_context(ssl, context, len(context)) != 1:
                return HELLO_REFUSED
            if self._others:
                self._turn_to_its_key(ssl)
            if self._active is None:
                library.SSL_set_num_tickets(ssl, 0)
                library.SSL_set_options(ssl, OP_NO_TICKET)  # of TLS 1.2
        except BaseException:
            return HELLO_REFUSED
        return HELLO_TAKEN

    def _turn_to_its_key(self, ssl: int) -> None:
        """Has the context open this client's ticket, if it is sealed by another key than the active one."""
        library = self._library
        for extension, start in _TICKET_EXTENSIONS:
            if library.SSL_client_hello_get0_ext(ssl, extension, self._to_pointer, self._to_size) != 1:
                continue
            if self._size.value < start + NAME_NBYTES:
                return
            key = self._others.get(ctypes.string_at((self._pointer.value or 0) + start, NAME_NBYTES))
            # The keeper may be dead, so nobody would have taken the key away.
            if key is not None and not 0 < key.expire_at <= time.time_ns():
                self.turned = library.SSL_get_SSL_CTX(ssl)
                self._use(self.turned, key)
            return

    def _take(self, ssl: int, session: int, name: int, nbytes: int, status: int, _argument: int) -> int:
        """Whether a ticket is taken that was opened, or was not."""
        try:
            has_turned = bool(self.turned)
            if has_turned:
                self.turn_back()
            refusal = self._refusal_of(session, name, nbytes, status)
            if refusal is not None:
                self._refused[refusal] += 1
                if self._tell_refused is not None:
                    self._tell_refused(refusal)
            elif status in (TICKET_OPENED, TICKET_OPENED_TO_RENEW):
                # In TLS 1.3 a client is to use each ticket once (RFC 8446, appendix C.4), so it gets another.
                renews = has_turned or self._library.SSL_version(ssl) == TLS_1_3
                return USE_AND_RENEW if renews else USE_TICKET
        except BaseException:
            return IGNORE_AND_RENEW
        return IGNORE_AND_RENEW

    def _refusal_of(self, session: int, name: int, nbytes: int, status: int) -> Refusal | None:
        library, ring = self._library, self._ring
        if status == TICKET_EMPTY:  # TLS 1.2: the client asks for its first
            return None
        if status not in (TICKET_OPENED, TICKET_OPENED_TO_RENEW) or ring is None:
            named = ctypes.string_at(name, nbytes) if nbytes else b""
            key = next((each for each in ring.keys if each.name == named), None) if ring else None
            return why_not_opened(key, time.time_ns())
        context = library.SSL_SESSION_get0_id_context(session, self._to_length)
        then, now = ctypes.string_at(context or 0, self._length.value), int(time.time())
        # What keeps out tickets of others is libssl's own comparison, which tells nobody.
        refusal = why_not_taken(self._full_at(session), then, self._bound, ring.rules, now)
        over = library.SSL_SESSION_get_time(session) + library.SSL_SESSION_get_timeout(session) < now
        return Refusal.EXPIRED if refusal is None and over else refusal

    def _full_at(self, session: int) -> int | None:
        """When the last full handshake was; it is noted for all resumptions to come, whose tickets are copies."""
        library = self._library
        library.SSL_SESSION_get0_ticket_appdata(session, self._to_pointer, self._to_size)
        if self._size.value:
            return read(ctypes.string_at(self._pointer.value or 0, self._size.value))
        full_at = int(library.SSL_SESSION_get_time(session))
        noted = packed(full_at)
        library.SSL_SESSION_set1_ticket_appdata(session, noted, len(noted))
        return full_at
