"""Every variable of the environment that something here reads, but for the options of the command line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from importlib.metadata import entry_points

PREFIX = "SLABWIRE_"
VARIABLES: Mapping[str, str] = {
    "SLABWIRE_CACHE_DIR": "where converted models are kept",
    "SLABWIRE_CONFIG": "the file with defaults of options",
    "SLABWIRE_DEBUG": "1: errors of the command line come with their traceback",
    "SLABWIRE_DEBUG_BLOCKS": "1: debug mode for memory",
    "SLABWIRE_FORMAT": "json: what all commands print is for programs",
    "SLABWIRE_KEYS": "the gateway's folder of keys",
    "SLABWIRE_LIBSSL": "the libssl that an ingress terminates TLS with",
    "SLABWIRE_RUN_DIR": "where graphs that run have their directories",
    "SLABWIRE_STATE_DIR": "where the development certificate is kept",
}
_warned: set[str] = set()


def unread(environment: Mapping[str, str]) -> list[str]:
    """The variables that look like ours and are none of these: options of commands, or mistakes."""
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in VARIABLES)


def warn_of_unknown() -> None:
    """For programs that embed a graph or a client: warns, once a process, of variables that nothing reads."""
    names = set(unread(os.environ)) - _warned
    if not names:
        return
    _warned.update(names)
    for entry in entry_points(group="slabwire.variables"):  # the options of commands are known above
        for each in entry.load()(os.environ):
            warnings.warn(str(each), stacklevel=3)
