"""Errors as clients see them: an HTTP status and OpenAI's error object."""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import dataclass, field

from ....runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    Disconnected,
    Draining,
    EdgeFull,
    Interrupted,
    MessageError,
    OutOfMemory,
    Overloaded,
    SlabwireError,
    StaleReference,
    UnknownPort,
)

# Also so that these classes are known here when their codes arrive from another process.
from ...completion import KNOWN_WORDS, BadMessages, PromptTooLong, prompt_too_long
from .refusals import Refusal

logger = logging.getLogger("slabwire")

# Raised where the process that had to answer, or to pass the answer on, has ended.
_DIED = (Cancelled, Disconnected, Interrupted, StaleReference)
# Those whose text was written for whoever asks. The text of any other may quote what the model was asked.
_TOLD = (
    *(BadMessages, DeadlineExceeded, Draining, EdgeFull, MessageError, OutOfMemory, Overloaded),
    *(PromptTooLong, Refusal, *_DIED),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What an error becomes. `kind` is OpenAI's `type`; `headers` go with the response, where there still is one."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> bytes:
        """`{"error": {…}}`, as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "backslashreplace")


def problem_of(error: Exception, request: str, retry_after_s: int = 1) -> Problem:
    """The problem that an error is to the client of the request with this id. Logs those that nobody meant."""
    if not isinstance(error, _TOLD):
        logger.error("request %s failed: %s", request, _place_of(error))
        message = f"The server failed to answer request {request}; its log says where."
        return Problem(500, message, "internal_error")
    status, headers = _status_of(error), _headers_of(error, retry_after_s)
    return Problem(status, _text_of(error), _code_of(error), _param_of(error), headers)


def _place_of(error: Exception) -> str:
    """Which error, and where it was raised; not its text, which may quote a prompt."""
    if isinstance(error, UnknownPort):
        return str(error)
    code = f" ({error.code})" if isinstance(error, SlabwireError) else ""
    return f"{type(error).__name__}{code} at\n{''.join(traceback.format_tb(error.__traceback__))}".rstrip()


def _status_of(error: SlabwireError) -> int:
    # Cancelled: not by its client, which would hear nothing of it.
    return 503 if isinstance(error, _DIED) else error.http_status


def _text_of(error: SlabwireError) -> str:
    if isinstance(error, StaleReference):  # whose own text is about blocks of shared memory
        return "The model's process ended while it answered; ask again."
    if isinstance(error, PromptTooLong) and KNOWN_WORDS not in str(error):  # of an actor that has words of its own
        return str(prompt_too_long(str(error)))
    return str(error)


def _code_of(error: SlabwireError) -> str:
    if isinstance(error, Refusal):
        return error.reason or error.code
    if isinstance(error, _DIED):
        return Interrupted.code
    return "overloaded" if isinstance(error, EdgeFull) else error.code


def _param_of(error: SlabwireError) -> str | None:
    if isinstance(error, Refusal):
        return error.param
    return "messages" if isinstance(error, (BadMessages, PromptTooLong)) else None


def _headers_of(error: SlabwireError, retry_after_s: int) -> dict[str, str]:
    if isinstance(error, DeadlineExceeded):
        # The SDKs would otherwise ask again, and have the same long answer computed twice more.
        return {"x-should-retry": "false"}
    return {"retry-after": str(retry_after_s)} if _status_of(error) in (429, 503) else {}
