"""Which engine terminates TLS: the system's libssl where there is one, else Python's `ssl`."""

from __future__ import annotations

import logging

from ....runtime.host.libssl import LibsslMissing
from ..tickets.memory import Keys
from .certificate import Certificate
from .libssl import libssl
from .libssl_terminator import LibsslTerminator
from .stdlib_terminator import LOST, StdlibTerminator
from .terminator import Minimum, Refused, Terminator

logger = logging.getLogger("slabwire")


def terminator_for(
    certificate: Certificate, minimum: Minimum = "1.3", keys: Keys | None = None, refused: Refused | None = None
) -> Terminator:
    """Raises CertificateError if the engine does not take the certificate. What is lost without libssl is logged: the
    `keys` of tickets, too. `refused` is told of each ticket that is not taken, and why.
    """
    try:
        library = libssl()
    except LibsslMissing as error:
        logger.warning("TLS by Python's ssl, for no libssl can be used (%s): %s", error, LOST)
        return StdlibTerminator(certificate, minimum)
    return LibsslTerminator(library, certificate, minimum, keys, refused)
