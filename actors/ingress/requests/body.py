"""The body of a request: read no further than allowed, its values counted, and taken for JSON."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from ....runtime.errors import Overloaded
from .asgi import Receive
from .exchange import JSON, Exchange
from .limits import Limits
from .parameters import named
from .refusals import BodyTooLarge, BodyTooSlow, ClientLeft, Refusal, UnsupportedBody

# Of each body so much is not counted: what most requests need is there, however many large ones come in.
_SMALL_NBYTES = 64 << 10
# All that is done with one of so many bytes takes less time than a turn of the loop.
_AT_ONCE_NBYTES = 8 << 10
# JSON can name halves of surrogate pairs by themselves; they are no text, and UTF-8 has no bytes for them.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Python takes longer than linearly for longer ones; no number that anybody means has as many.
_MOST_DIGITS = 400
# Behind each value but the last of a list stands a comma, and an object or an array begins with a bracket.
_MARKS = (b",", b"[", b"{")
# In front of each of its strings, and behind it, a JSON text has a comma, a colon, or a bracket.
_STRINGS_A_VALUE = 2


class Bodies:
    """Reads the bodies of requests, of each and of all together no more than the limits allow. One event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._nbytes = 0  # of those that are being read

    async def read_json(self, exchange: Exchange) -> dict[str, Any]:
        """The object that a body holds.

        A body that is JSON is taken whatever its Content-Type says: many a client sends none, or that of a form.
        Raises BodyTooLarge, BodyTooSlow, Overloaded, UnsupportedBody, Refusal for what is no JSON object, and
        ClientLeft.
        """
        encoding = exchange.header(b"content-encoding") or "identity"
        if encoding.lower() != "identity":
            raise UnsupportedBody(f"Content-Encoding {named(encoding)} is not supported; send the body as plain JSON.")
        body = await self._read(exchange)
        try:
            return await parse_json(body)
        except Refusal as error:
            kind = exchange.header(b"content-type") or JSON
            if "json" in kind.lower():
                raise
            raise UnsupportedBody(
                f"Content-Type is {named(kind)} and the body is no JSON object either ({error}); send application/json."
            ) from None

    async def _read(self, exchange: Exchange) -> bytes:
        declared = exchange.header(b"content-length") or ""
        if declared.isdecimal() and int(declared[:20]) > self._limits.body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._collect(exchange.receive)
        except TimeoutError:
            raise BodyTooSlow(
                f"The request's body did not arrive within {self._limits.body_timeout_s:g} s; "
                "send the whole of it at once."
            ) from None

    async def _collect(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        values = Values(self._limits.body_values)
        length = counted = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft("the client left while it sent its request")
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                if length > self._limits.body_bytes:
                    raise self._too_large()
                counted += self._count(max(0, length - _SMALL_NBYTES) - counted)
                values.add(parts[-1])
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self._nbytes -= counted

    def _count(self, nbytes: int) -> int:
        """Takes so many bytes more into account. Raises Overloaded."""
        if self._nbytes + nbytes > self._limits.all_bodies_bytes:
            raise Overloaded(
                f"This server is reading {self._nbytes} bytes of other requests, and takes "
                f"{self._limits.all_bodies_bytes} at a time; try again, or send less text."
            )
        self._nbytes += nbytes
        return nbytes

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request's body is larger than {self._limits.body_bytes} bytes, the most taken here.")


class Values:
    """Counts the values of one JSON text, which comes in parts, before it is parsed: each takes a hundred times as long
    to parse as its bytes take to be counted. Of a text that is no JSON the count is good up to its fault.

    Works on whole parts at once: a loop over their bytes, or over their strings, would take longer than to parse them.
    """

    def __init__(self, most: int) -> None:
        self.count = 1
        self._most = most
        self._inside = 0  # 1 within a string
        self._escape = b""  # the first half of one that the parts cut

    def add(self, part: bytes) -> None:
        """Counts those of the next part. Raises Refusal where there are too many."""
        outside = self._outside(self._escape + part)
        self.count += sum(map(outside.count, _MARKS))
        self._check(self.count)

    def _check(self, count: int) -> None:
        if count > self._most:
            raise Refusal(
                f"The request's body holds more than {self._most} values (strings, numbers, arrays and objects), "
                "the most that this server takes; send fewer, or send them as text.",
                None,
                "too_many_values",
            )

    def _outside(self, text: bytes) -> bytes:
        """What of a text stands outside of strings."""
        self._escape = b"\\" if (len(text) - len(text.rstrip(b"\\"))) % 2 else b""
        text = text.removesuffix(self._escape)
        if b"\\" in text:
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        quotes = text.count(b'"')
        self._check(quotes // 2 // _STRINGS_A_VALUE)
        pieces = text.split(b'"')
        outside = b"".join(pieces[self._inside :: 2])
        self._inside ^= quotes % 2
        return outside


async def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object (RFC 8259) in these bytes. Raises Refusal, with the place where it is none.

    Of a long one others have their turn between two steps. In a thread each step would hold them up just as long.
    """
    is_long = len(body) > _AT_ONCE_NBYTES
    try:
        text = body.decode("utf-8-sig")
        if is_long:
            await asyncio.sleep(0)
        has_surrogates = _SURROGATE.search(text)
        if is_long:
            await asyncio.sleep(0)
        value = _decode(text)
        if is_long:
            await asyncio.sleep(0)
        if has_surrogates:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise _invalid(r"a string in it holds half of a surrogate pair (\ud800 to \udfff by itself)") from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise _invalid("its arrays and objects are nested too deeply") from None
    except ValueError as error:  # NaN, or a number of hundreds of digits
        raise _invalid(str(error)[:100]) from None
    if type(value) is not dict:
        raise Refusal('The request\'s body must be a JSON object, {"model": …, "messages": […]}.', None, "invalid_type")
    return value


def _integer(text: str) -> int:
    _check_digits(text)
    return int(text)


def _decimal(text: str) -> float:
    _check_digits(text)
    return float(text)


def _check_digits(text: str) -> None:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number in it has more than {_MOST_DIGITS} digits")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _invalid(why: str) -> Refusal:
    return Refusal(f"The request's body is not valid JSON: {why}.", None, "invalid_json")


# Made once: json.loads makes one for each text, where it is told how to read numbers.
_decode = json.JSONDecoder(parse_constant=_no_number, parse_int=_integer, parse_float=_decimal).decode
