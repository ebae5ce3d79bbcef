"""What is used of libssl and its libcrypto: every function with its types, as C declares it (OpenSSL 3.0 and later)."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

from ....runtime.host.libssl import LibsslMissing, open_libssl, version_of

# Of <openssl/ssl.h>.
TLS_1_2, TLS_1_3 = 0x0303, 0x0304
ERROR_SSL, ERROR_WANT_READ, ERROR_WANT_WRITE, ERROR_SYSCALL, ERROR_ZERO_RETURN = 1, 2, 3, 5, 6
MODE_ENABLE_PARTIAL_WRITE, MODE_ACCEPT_MOVING_WRITE_BUFFER, MODE_AUTO_RETRY, MODE_RELEASE_BUFFERS = 1, 2, 4, 16
OP_NO_COMPRESSION, OP_PRIORITIZE_CHACHA, OP_CIPHER_SERVER_PREFERENCE = 1 << 17, 1 << 21, 1 << 22
OP_NO_TICKET, OP_NO_RENEGOTIATION = 1 << 14, 1 << 30
ALPN_CHOSEN, ALPN_ALERT = 0, 2
# What the header has as macros over SSL_ctrl and SSL_CTX_ctrl.
CTRL_MODE, CTRL_SET_SESS_CACHE_MODE, CTRL_CLEAR_MODE, CTRL_SET_GROUPS_LIST = 33, 44, 78, 92
CTRL_SET_TICKET_KEYS, CTRL_CHAIN_CERT = 59, 89
CTRL_SET_MIN_PROTO_VERSION, CTRL_GET_NEGOTIATED_GROUP = 123, 134
VERIFY_NONE = 0
HELLO_REFUSED, HELLO_TAKEN = 0, 1
EXTENSION_SERVER_NAME, EXTENSION_SESSION_TICKET, EXTENSION_PRE_SHARED_KEY = 0, 35, 41
TICKET_EMPTY, TICKET_NOT_OPENED, TICKET_OPENED, TICKET_OPENED_TO_RENEW = 3, 4, 5, 6
IGNORE_AND_RENEW, USE_TICKET, USE_AND_RENEW = 2, 3, 4
# Of <openssl/sslerr.h>: an end without close_notify. The queue holds it as SSL's error, and not as the system's.
REASON_UNEXPECTED_EOF = 294
_REASON_MASK = 0x7FFFFF
# The most plain bytes of one record (RFC 8446, section 5.1).
RECORD_NBYTES = 1 << 14

# int (*)(SSL *, const unsigned char **out, unsigned char *outlen, const unsigned char *in, unsigned int inlen, void *)
AlpnCallback = ctypes.CFUNCTYPE(
    c_int, c_void_p, ctypes.POINTER(c_void_p), ctypes.POINTER(ctypes.c_ubyte), c_void_p, c_uint, c_void_p
)

# int (*)(SSL *, int *alert, void *)
HelloCallback = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p)
# SSL_TICKET_RETURN (*)(SSL *, SSL_SESSION *, const unsigned char *name, size_t nbytes, SSL_TICKET_STATUS, void *)
TakeTicketCallback = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_size_t, c_int, c_void_p)


# The result, then the arguments.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "ERR_clear_error": (None,),
    "ERR_get_error": (c_ulong,),
    "ERR_reason_error_string": (c_char_p, c_ulong),
    "d2i_X509": (c_void_p, c_void_p, ctypes.POINTER(c_char_p), c_long),
    "X509_free": (None, c_void_p),
    "d2i_AutoPrivateKey": (c_void_p, c_void_p, ctypes.POINTER(c_char_p), c_long),
    "EVP_PKEY_free": (None, c_void_p),
    "TLS_server_method": (c_void_p,),
    "SSL_CTX_new": (c_void_p, c_void_p),
    "SSL_CTX_free": (None, c_void_p),
    "SSL_CTX_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "SSL_CTX_set_timeout": (c_long, c_void_p, c_long),
    "SSL_set_options": (c_uint64, c_void_p, c_uint64),
    "SSL_CTX_set_options": (c_uint64, c_void_p, c_uint64),
    "SSL_CTX_set_cipher_list": (c_int, c_void_p, c_char_p),
    "SSL_CTX_use_certificate": (c_int, c_void_p, c_void_p),
    "SSL_CTX_use_PrivateKey": (c_int, c_void_p, c_void_p),
    "SSL_CTX_check_private_key": (c_int, c_void_p),
    "SSL_CTX_set_num_tickets": (c_int, c_void_p, c_size_t),
    "SSL_CTX_set_alpn_select_cb": (None, c_void_p, AlpnCallback, c_void_p),
    "SSL_CTX_set_client_hello_cb": (None, c_void_p, HelloCallback, c_void_p),
    "SSL_CTX_set_session_ticket_cb": (c_int, c_void_p, c_void_p, TakeTicketCallback, c_void_p),
    "SSL_client_hello_get0_ext": (c_int, c_void_p, c_uint, ctypes.POINTER(c_void_p), ctypes.POINTER(c_size_t)),
    "SSL_set_session_id_context": (c_int, c_void_p, c_char_p, c_uint),
    "SSL_set_num_tickets": (c_int, c_void_p, c_size_t),
    "SSL_SESSION_get0_id_context": (c_void_p, c_void_p, ctypes.POINTER(c_uint)),
    "SSL_SESSION_set1_ticket_appdata": (c_int, c_void_p, c_char_p, c_size_t),
    "SSL_SESSION_get0_ticket_appdata": (c_int, c_void_p, ctypes.POINTER(c_void_p), ctypes.POINTER(c_size_t)),
    "SSL_SESSION_get_time": (c_long, c_void_p),
    "SSL_SESSION_get_timeout": (c_long, c_void_p),
    "SSL_new": (c_void_p, c_void_p),
    "SSL_free": (None, c_void_p),
    "SSL_set_fd": (c_int, c_void_p, c_int),
    "SSL_set_accept_state": (None, c_void_p),
    "SSL_do_handshake": (c_int, c_void_p),
    "SSL_read": (c_int, c_void_p, c_void_p, c_int),
    "SSL_write": (c_int, c_void_p, c_char_p, c_int),
    "SSL_shutdown": (c_int, c_void_p),
    "SSL_get_error": (c_int, c_void_p, c_int),
    "SSL_version": (c_int, c_void_p),
    "SSL_get_version": (c_char_p, c_void_p),
    "SSL_get_current_cipher": (c_void_p, c_void_p),
    "SSL_CIPHER_get_name": (c_char_p, c_void_p),
    "SSL_CIPHER_get_bits": (c_int, c_void_p, c_void_p),
    "SSL_session_reused": (c_int, c_void_p),
    "SSL_get_SSL_CTX": (c_void_p, c_void_p),
    "SSL_get_session": (c_void_p, c_void_p),
    "SSL_get0_alpn_selected": (None, c_void_p, ctypes.POINTER(c_void_p), ctypes.POINTER(c_uint)),
    "SSL_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "SSL_group_to_name": (c_char_p, c_void_p, c_int),
}
# From 3.2 on.
_NEWER_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "SSL_CTX_compress_certs": (c_int, c_void_p, c_int),
}


class Libssl:
    """The functions, by their names in C. Pointers are whole numbers, 0 (or None) is NULL. Any thread."""

    def __init__(self, library: ctypes.PyDLL) -> None:
        self._library = library
        self.version = version_of(library)
        for name, (result, *arguments) in (_FUNCTIONS | _NEWER_FUNCTIONS).items():
            try:
                function = library[name]
            except AttributeError:
                if name in _FUNCTIONS:
                    raise LibsslMissing(f"{self.version} has no {name}") from None
                continue
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def next_error(self) -> tuple[int, str]:
        """The oldest error of this thread's queue, which is emptied: its number, and its reason in words."""
        error = self.ERR_get_error()
        self.ERR_clear_error()
        reason = self.ERR_reason_error_string(error)
        return error & _REASON_MASK, reason.decode() if reason else f"error {error:#x}"


@cache
def libssl() -> Libssl:
    """That of this process. Raises LibsslMissing."""
    return Libssl(open_libssl())
