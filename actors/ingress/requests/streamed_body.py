"""An ASGI extension: an application that streams writes the body of its answer where the server does, item by item.

A server that has it lists `EXTENSION` among the extensions of a scope. Once the head has gone out by ASGI the
application sends `{"type": EXTENSION, "use": ...}`, and `use` is called with a `StreamedBody` before that comes back.
The end of the body goes by ASGI again. A middleware that looks at bodies takes the extension out of the scope; then all
of the body goes by ASGI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

EXTENSION = "slabwire.streamed_body"


class StreamedBody(Protocol):
    """The body of one answer without a declared length. `on_room`, where there is one, is called whenever the body is
    full no longer. One loop.
    """

    on_room: Callable[[], None] | None

    @property
    def is_full(self) -> bool:
        """Whether more waits for a slow client than ought to. What is written all the same waits, too."""

    def write(self, data: bytes) -> None:
        """Sends some of the body, as far as the client takes it now; nothing where it has left."""
