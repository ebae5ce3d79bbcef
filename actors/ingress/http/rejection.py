"""What a connection says itself, in the application's place, before it closes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is turned away before it has come to the application."""

    status: HTTPStatus
    text: str

    def encode(self) -> bytes:
        """A whole answer, with the body that OpenAI's clients expect of an error."""
        error = {"message": self.text, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error})
        head = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", f"date: {formatdate(usegmt=True)}"]
        head += ["connection: close", "content-type: application/json", f"content-length: {len(body)}", "", ""]
        return ("\r\n".join(head) + body).encode()


NO_HTTP = Rejection(HTTPStatus.BAD_REQUEST, "This is no valid HTTP/1.1 request.")
OVERDUE = Rejection(
    HTTPStatus.REQUEST_TIMEOUT, "The request did not come in within its time; send the whole of it at once."
)
MAKES_ROOM = Rejection(
    HTTPStatus.REQUEST_TIMEOUT,
    "All connections are taken, and this request has been incomplete for the longest; send the whole of it at once.",
)
