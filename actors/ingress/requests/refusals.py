"""Errors that the ingress itself raises, each with its HTTP status."""

from __future__ import annotations

from ....runtime.errors import SlabwireError


class Refusal(SlabwireError):
    """A request that is turned away as it stands. `param` is the field at fault, `reason` OpenAI's code for it."""

    code = "invalid_request"
    http_status = 400

    def __init__(self, message: str, param: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.reason = reason


class CrossSite(Refusal):
    """A request that a page of another site has made a browser send."""

    code = "cross_site"
    http_status = 403


class Misdirected(Refusal):
    """A request to a name that is none of this server's."""

    code = "misdirected"
    http_status = 421


class ModelNotFound(Refusal):
    """A model that this server does not have."""

    code = "model_not_found"
    http_status = 404


class BodyTooSlow(Refusal):
    """A request whose body did not arrive in time."""

    code = "request_timeout"
    http_status = 408


class BodyTooLarge(Refusal):
    """A request whose body is larger than `Limits.body_bytes`."""

    code = "body_too_large"
    http_status = 413


class UnsupportedBody(Refusal):
    """A body of a type or an encoding other than plain JSON."""

    code = "unsupported_media_type"
    http_status = 415


class ClientLeft(SlabwireError):
    """The client closed its connection before it had its answer."""

    code = "client_left"
    http_status = 499
