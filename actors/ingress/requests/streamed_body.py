"""An ASGI extension: an application that streams writes the body of its answer where the server does, item by item.

A server that has it lists `EXTENSION` among the extensions of a scope. Once the head was sent by ASGI the application
sends `{"type": EXTENSION, "body": ..., "use": ...}`: `body` is the beginning, which leaves together with the head, and
`use` is called with a `StreamedBody` before that comes back. From then on the body goes by that alone. The application
may return before its end: then the answer goes on, and with it nothing that belonged to the call. A middleware that
looks at bodies takes the extension out of the scope; then all of the body goes by ASGI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

EXTENSION = "slabwire.streamed_body"


class Body(Protocol):
    """Of one answer, without a declared length. `on_full`, where there is one, is called whenever it becomes full,
    perhaps within `write`, and `on_room` whenever it is full no longer. One loop.
    """

    on_full: Callable[[], None] | None
    on_room: Callable[[], None] | None

    @property
    def is_full(self) -> bool:
        """Whether more waits for a slow client than ought to. What is written all the same waits, too."""

    def write(self, data: bytes) -> None:
        """Sends some of it, as far as the client takes it now; nothing where it has left."""


class StreamedBody(Body, Protocol):
    """A body that the server has handed over. `on_left`, where there is one, is called once the client has left before
    the end of it. None of these is called after the end.
    """

    on_left: Callable[[], None] | None

    @property
    def has_left(self) -> bool:
        """Whether the client has left before the end."""

    def end(self, data: bytes = b"") -> None:
        """Sends the last of it. The answer is complete, and the connection goes on to the next request."""
