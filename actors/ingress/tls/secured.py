"""One connection's TLS, on its own descriptor: libssl reads and writes the socket itself. Knows nothing of event loops.

Nothing waits here: the descriptor is non-blocking. libssl reads one record at a time, and no further (it does not
read ahead), and a record is taken out whole; so what is still to come is in the kernel, where a selector sees it.
SIGPIPE must be ignored, as Python does: libssl writes by write(2).
"""

from __future__ import annotations

import ctypes
from typing import Any

from .libssl import (
    CTRL_GET_NEGOTIATED_GROUP,
    ERROR_SSL,
    ERROR_SYSCALL,
    ERROR_WANT_READ,
    ERROR_WANT_WRITE,
    ERROR_ZERO_RETURN,
    REASON_UNEXPECTED_EOF,
    RECORD_NBYTES,
    Libssl,
)
from .states import CONNECTION, Event, State


class TLSError(ConnectionError):
    """What TLS forbids, or what made a handshake fail; in libssl's words."""


class Secured:
    """TLS of one accepted connection, and where it stands. After an OSError only `free` may follow.

    `buffer` has room for a record; all connections of one thread may share it, for what is read is taken out at once.
    `pointer` is libssl's part, 0 while there is none. `wants_write`: what could not be done waits until the descriptor
    can be written, and not until it can be read. `ssl_write` is libssl's, and `ready` the pointer as long as the
    connection is open, 0 before and after: whoever writes very often may do so without `write`, as long as all goes at
    once.
    """

    __slots__ = ("_buffer", "_library", "pointer", "ready", "ssl_write", "state", "wants_write")

    def __init__(self, library: Libssl, buffer: ctypes.Array[ctypes.c_char]) -> None:
        self.state = State.ACCEPTED
        self.wants_write = False
        self._library, self._buffer = library, buffer
        self.ssl_write = library.SSL_write
        self.pointer = self.ready = 0

    def __del__(self) -> None:
        if self.pointer:
            self.free()

    def meet(self, event: Event) -> State:
        """Goes on to the state that follows, and returns it."""
        following = CONNECTION.rows[self.state].get(event) or CONNECTION.after(self.state, event)
        self.state = following
        self.ready = self.pointer if following is State.OPEN else 0
        return following

    def begin(self, context: int, descriptor: int) -> None:
        """Makes libssl's part, by an SSL_CTX: before the first byte has come there is no need of it."""
        library = self._library
        library.ERR_clear_error()
        self.pointer = library.SSL_new(context) or 0
        if not self.pointer or library.SSL_set_fd(self.pointer, descriptor) != 1:
            raise TLSError(library.next_error()[1])
        library.SSL_set_accept_state(self.pointer)
        self.meet(Event.HELLO)

    def free(self) -> None:
        """Gives back what libssl holds. Never from within a call of libssl."""
        ssl, self.pointer, self.ready = self.pointer, 0, 0
        if ssl:
            self._library.SSL_free(ssl)

    # -- what travels ------------------------------------------------------------------------------------------------

    def handshake(self) -> bool:
        """Whether it is done now. Raises OSError if it has failed; the peer is told why."""
        library = self._library
        library.ERR_clear_error()
        result = library.SSL_do_handshake(self.pointer)
        if result == 1:
            self.meet(Event.SHOOK_HANDS)
            return True
        if self._judge(result) == ERROR_ZERO_RETURN:
            raise ConnectionAbortedError("the client took its leave within the handshake")
        return False

    def read(self) -> bytes | None:
        """What one record held; b"" is the peer's good-bye. None: nothing more has come. Raises OSError."""
        library = self._library
        library.ERR_clear_error()
        nbytes = library.SSL_read(self.pointer, self._buffer, RECORD_NBYTES)
        if nbytes > 0:
            return bytes(memoryview(self._buffer)[:nbytes])
        return b"" if self._judge(nbytes) == ERROR_ZERO_RETURN else None

    def write(self, data: bytes) -> int:
        """How many bytes of the first 16 KiB went, in one record; 0: it has to be tried again, with the same bytes and
        perhaps more. Raises OSError.
        """
        library = self._library
        library.ERR_clear_error()
        nbytes = library.SSL_write(self.pointer, data, min(len(data), RECORD_NBYTES))
        if nbytes > 0:
            return int(nbytes)
        if self._judge(nbytes) == ERROR_ZERO_RETURN:
            raise ConnectionResetError("the client has taken its leave")
        return 0

    def say_goodbye(self) -> bool:
        """Sends close_notify; whether it has gone out. Raises OSError."""
        library = self._library
        library.ERR_clear_error()
        result = library.SSL_shutdown(self.pointer)
        if result >= 0:
            return True
        self._judge(result)
        return False

    def _judge(self, result: int) -> int:
        """What libssl says of a call that did not succeed. Raises OSError if nothing more can come of it."""
        library = self._library
        judgement: int = library.SSL_get_error(self.pointer, result)
        self.wants_write = judgement == ERROR_WANT_WRITE
        if judgement in (ERROR_WANT_READ, ERROR_WANT_WRITE, ERROR_ZERO_RETURN):
            return judgement
        if judgement == ERROR_SYSCALL:
            raise ConnectionResetError("the connection was broken off")
        number, reason = library.next_error()
        if judgement == ERROR_SSL and number == REASON_UNEXPECTED_EOF:
            raise ConnectionAbortedError("the client left without a good-bye")
        raise TLSError(reason)


class Facts:
    """What a handshake has agreed on, asked as `ssl.SSLObject` is. After the connection's end: None to all."""

    __slots__ = ("_secured",)

    def __init__(self, secured: Secured) -> None:
        self._secured = secured

    def version(self) -> str | None:
        """Such as "TLSv1.3"."""
        library, ssl = self._agreed()
        return library.SSL_get_version(ssl).decode() if ssl else None

    def cipher(self) -> tuple[str, str, int] | None:
        """Its name, the protocol's version, and the secret bits."""
        library, ssl = self._agreed()
        cipher = library.SSL_get_current_cipher(ssl) if ssl else None
        if not cipher:
            return None
        name, version = library.SSL_CIPHER_get_name(cipher).decode(), library.SSL_get_version(ssl).decode()
        return name, version, int(library.SSL_CIPHER_get_bits(cipher, None))

    def group(self) -> str | None:
        """The group of the key exchange, such as "x25519"."""
        library, ssl = self._agreed()
        number = library.SSL_ctrl(ssl, CTRL_GET_NEGOTIATED_GROUP, 0, None) if ssl else 0
        name = library.SSL_group_to_name(ssl, number) if number else None
        return name.decode() if name else None

    @property
    def session_reused(self) -> bool | None:
        """Whether a ticket was taken."""
        library, ssl = self._agreed()
        return bool(library.SSL_session_reused(ssl)) if ssl else None

    def selected_alpn_protocol(self) -> str | None:
        """Such as "http/1.1"; None as well where the client offered none."""
        library, ssl = self._agreed()
        name, length = ctypes.c_void_p(), ctypes.c_uint()
        if ssl:
            library.SSL_get0_alpn_selected(ssl, ctypes.byref(name), ctypes.byref(length))
        return ctypes.string_at(name.value, length.value).decode() if name.value else None

    def _agreed(self) -> tuple[Any, int]:
        """The library, and the SSL; 0 where there is none that may be asked: a getter without a session crashes."""
        library, ssl = self._secured._library, self._secured.pointer
        return library, ssl if ssl and library.SSL_get_session(ssl) else 0
