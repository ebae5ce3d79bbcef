"""The system's libssl, found by its name: the ingress terminates TLS with it, `slabwire doctor` tells which it is."""

from __future__ import annotations

import ctypes
import os

from ..errors import SlabwireError

# A file or a soname in place of those below; "stdlib": none of them.
VARIABLE = "SLABWIRE_LIBSSL"
NONE_OF_THEM = "stdlib"
# By soname, since ctypes.util.find_library needs ldconfig or a compiler, and finds nothing on musl.
SONAMES = ("libssl.so.3", "libssl.so.4")
# What an ingress does without where there is none, by a name for machines.
LOST = {
    "slim_connections": "an idle connection takes 264 KiB and not 20",
    "groups": "the groups of the key exchange cannot be chosen",
    "certificate_compression": "the certificate is not compressed",
    "shared_tickets": "session tickets are good for one process alone",
    "alpn_alert": "a client that speaks another protocol only (ALPN) is not told so",
}
_OLDEST = 0x30000000  # what OpenSSL_version_num() says of 3.0.0


class LibsslMissing(SlabwireError):
    """No libssl can be loaded that the ingress could use."""

    code = "libssl"


def open_libssl() -> ctypes.PyDLL:
    """The library, whose handle finds the functions of its own libcrypto, too. Calls keep the interpreter's lock.

    Raises LibsslMissing.
    """
    named = os.environ.get(VARIABLE)
    if named == NONE_OF_THEM:
        raise LibsslMissing(f"{VARIABLE}={named} asks for none")
    causes = []
    for name in (named,) if named else SONAMES:
        try:
            return _usable(ctypes.PyDLL(name))
        except (OSError, LibsslMissing) as error:
            causes.append(str(error))
    remedy = f"let {VARIABLE} name another" if named else f"install OpenSSL 3 (libssl3), or name a file by {VARIABLE}"
    raise LibsslMissing(f"{'; '.join(causes)}; {remedy}")


def version_of(library: ctypes.PyDLL) -> str:
    """As the library names itself, such as "OpenSSL 3.0.19 27 Jan 2026"."""
    tell = library.OpenSSL_version
    tell.argtypes, tell.restype = (ctypes.c_int,), ctypes.c_char_p
    return str(tell(0).decode())


def _usable(library: ctypes.PyDLL) -> ctypes.PyDLL:
    try:
        number = library.OpenSSL_version_num
    except AttributeError:
        raise LibsslMissing(f"{library._name} is no OpenSSL") from None
    number.argtypes, number.restype = (), ctypes.c_ulong
    if number() < _OLDEST:
        raise LibsslMissing(f"{library._name} is {version_of(library)}, older than 3.0")
    return library
