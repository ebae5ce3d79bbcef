"""Which engine terminates TLS: the system's libssl where there is one, else Python's `ssl`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ....runtime.host.libssl import LOST, LibsslMissing
from ..certificates.certificate import Certificate
from ..tickets.memory import Keys
from .libssl import libssl
from .libssl_terminator import LibsslTerminator
from .stdlib_terminator import StdlibTerminator
from .terminator import Minimum, Refused, Terminator

logger = logging.getLogger("slabwire")


def terminator_for(
    certificates: Sequence[Certificate],
    minimum: Minimum = "1.3",
    keys: Keys | None = None,
    refused: Refused | None = None,
) -> Terminator:
    """For certificates of different kinds of keys. Raises CertificateError if the engine does not take them. What is
    lost without libssl is logged: the `keys` of tickets, too. `refused` is told of each ticket that is not taken, and
    why.
    """
    try:
        library = libssl()
    except LibsslMissing as error:
        logger.warning("TLS by Python's ssl, for no libssl can be used (%s): %s", error, ", ".join(LOST.values()))
        return StdlibTerminator(certificates, minimum)
    return LibsslTerminator(library, certificates, minimum, keys, refused)
