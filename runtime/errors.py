"""Every error that Slabwire raises on purpose: what it means, its code on the wire, its HTTP status."""

from __future__ import annotations

from ..shm.errors import CorruptLane, LayoutError, MessageError, OutOfMemory, SlabwireError, StaleReference

__all__ = [
    "Cancelled",
    "ClientClosed",
    "CorruptLane",
    "DeadLetter",
    "DeadlineExceeded",
    "Disconnected",
    "Draining",
    "EdgeFull",
    "GraphError",
    "HandlerError",
    "Interrupted",
    "LayoutError",
    "LoadError",
    "MessageError",
    "OutOfMemory",
    "Overloaded",
    "ProtocolError",
    "SlabwireError",
    "StaleReference",
    "StartError",
    "TooManyHops",
    "UnknownPort",
    "cut_off_error",
    "error_from_wire",
]


class GraphError(SlabwireError, ValueError):
    """A graph that cannot run as it is written; `problems` lists each reason."""

    code = "graph"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LoadError(SlabwireError):
    """User code that could not be imported, unpacked or constructed."""

    code = "load"


class StartError(SlabwireError):
    """A graph or a worker that did not become ready."""

    code = "start"


class UnknownPort(SlabwireError, LookupError):
    """A port that the graph does not have, or does not expose."""

    code = "unknown_port"
    http_status = 404


class HandlerError(SlabwireError):
    """An exception raised by a handler; the text holds its type, its message and where it was raised."""

    code = "handler"


class DeadlineExceeded(SlabwireError, TimeoutError):
    """The answer did not come within the caller's time."""

    code = "deadline"
    http_status = 504


class Cancelled(SlabwireError):
    """The work was cancelled by its caller."""

    code = "cancelled"
    http_status = 499


class Interrupted(SlabwireError):
    """Work that was cut off: a partly sent stream whose actor died and is not resumable, or what was in flight when
    its graph stopped.
    """

    code = "interrupted"
    http_status = 503


class DeadLetter(SlabwireError):
    """A message whose handling killed its actor as often as the actor allows."""

    code = "dead_letter"


class TooManyHops(SlabwireError):
    """A request that handlers have handed on too often: most likely in a circle."""

    code = "too_many_hops"
    http_status = 508


class EdgeFull(SlabwireError):
    """A message that a full edge turned away, as the edge's policy says."""

    code = "edge_full"
    http_status = 429


class Overloaded(SlabwireError):
    """More calls in flight than this caller may have."""

    code = "overloaded"
    http_status = 429


class Draining(SlabwireError):
    """The graph is stopping and takes no new work."""

    code = "draining"
    http_status = 503
    not_begun = True


class Disconnected(SlabwireError, ConnectionError):
    """The graph is not there, or went away while a call was in flight."""

    code = "disconnected"
    http_status = 503


class ClientClosed(Disconnected):
    """The client itself was closed: it connects no more."""


class ProtocolError(SlabwireError):
    """Bytes from a peer that do not follow the protocol."""

    code = "protocol"
    http_status = 400


def _classes(root: type[SlabwireError]) -> list[type[SlabwireError]]:
    return [root, *(each for child in root.__subclasses__() for each in _classes(child))]


def cut_off_error(actor: str) -> Interrupted:
    """What callers get whose work a stopping graph does not wait for any longer."""
    return Interrupted(f"the graph stopped before {actor} was done with this: its time to drain was over")


def mark_not_begun(error: SlabwireError) -> SlabwireError:
    """The same error, which says that the work had not begun."""
    error.not_begun = True
    return error


def error_from_wire(code: str, text: str) -> SlabwireError:
    """The error that a peer reported by its code; an unknown code becomes a plain `SlabwireError`."""
    for each in _classes(SlabwireError):
        if each.code == code:
            return _made(each, text)
    return SlabwireError(f"{code}: {text}")


def _made(kind: type[SlabwireError], text: str) -> SlabwireError:
    """An error of a class that may be the user's: where its constructor wants more than a text, it is not called."""
    try:
        return kind(text)
    except Exception:
        error = kind.__new__(kind, text)
        error.args = (text,)
        return error
