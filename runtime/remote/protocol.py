"""The protocol between a remote client and a graph's gateway: heads of messages, and what is allowed. No I/O.

A message is a ZeroMQ multipart message: a head, a payload, then one frame a tensor; see `frame_codec` for the latter
two. `docs/wire.md` describes every byte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgpack

from ..errors import ProtocolError

VERSION = 1
# A head is under 300 bytes. A longer one is an attack.
LARGEST_HEAD_NBYTES = 4096
# Unpacked, a payload may grow sixtyfold (one byte can stand for an empty list). What is large belongs into tensors.
LARGEST_PAYLOAD_NBYTES = 16 << 20
# Of all frames together, and of one: it bounds what a peer can make us hold for one message.
LARGEST_MESSAGE_NBYTES = 256 << 20
# Tensors beyond these travel inside the payload. A message of many small frames costs 2 µs a frame.
MOST_TENSORS = 256
# A client that is granted more than this would make the gateway keep it all.
MOST_CREDIT = 1024
# Of the items of a stream that a client sends: while so much of them is on its way, or in the gateway, none follows. As
# much as a network of 1 Gbit/s and 30 ms holds; 64 such streams fit a client's share of the gateway.
SENT_WINDOW_NBYTES = 4 << 20
LARGEST_ID = (1 << 63) - 1
LONGEST_TIMEOUT_S = 1e9
_LONGEST_TEXT = 1024

Frame = bytes | memoryview


class FrameKind(StrEnum):
    """What a message is for; the comments say who sends it and what its payload is."""

    HELLO = "hello"  # client, first of all: nil
    WELCOME = "welcome"  # gateway, in answer: the graph's name, its ports, the limits
    CALL = "call"  # client: fields by name
    CANCEL = "cancel"  # client: it has lost interest in a call; nil
    CREDIT = "credit"  # client: it has room for more items of a stream; gateway: of one that the client sends; nil
    BYE = "bye"  # client: it goes, its calls are cancelled; nil
    REPLY = "reply"  # gateway: the one answer, ends the call
    ITEM = "item"  # gateway: one item of a stream; client: of the one that its call sends
    ITEMS = "items"  # gateway, to a client that takes it: items and ends of many streams; see `items_message`
    END = "end"  # gateway: the stream is over; client: the one that its call sends is; nil
    ERROR = "error"  # gateway: the call failed (id 0: the whole conversation); client: its call's stream did; text
    PING = "ping"  # client, also before its hello: are you there; nil
    PONG = "pong"  # gateway, in answer; nil


class Head(NamedTuple):
    """The first frame. `id` is chosen by the client, unique among its calls in flight; 0 for what concerns no call.
    `items`: in a hello and in its welcome, whether streams come by messages of many items. `sends`: in a welcome,
    whether calls may send streams; in a call, whether it does. `nbytes`: in a gateway's credit, how much it has passed
    on of what came.
    """

    kind: str
    id: int = 0
    port: str = ""
    stream: bool = False
    timeout_s: float | None = None
    credit: int = 0
    traceparent: str = ""
    code: str = ""
    key: str = ""
    not_begun: bool = False
    items: bool = False
    sends: bool = False
    nbytes: int = 0


_DEFAULTS = Head("")._asdict()
_TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "id": (int,),
    "port": (str,),
    "stream": (bool,),
    "timeout_s": (float, int, type(None)),
    "credit": (int,),
    "traceparent": (str,),
    "code": (str,),
    "key": (str,),
    "not_begun": (bool,),
    "items": (bool,),
    "sends": (bool,),
    "nbytes": (int,),
}
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{16})([0-9a-f]{16})-[0-9a-f]{16}-[0-9a-f]{2}")


def pack_head(head: Head) -> bytes:
    """The frame of a head; what has its default is left out."""
    said = {name: value for name, value in head._asdict().items() if value != _DEFAULTS[name]}
    packed: bytes = msgpack.packb({"version": VERSION, **said})
    return packed


def unpack_head(frames: Sequence[Frame]) -> Head:
    """The head of a received message. Raises ProtocolError for anything that the protocol does not allow."""
    _check_sizes(frames)
    try:
        document = msgpack.unpackb(frames[0], max_array_len=16, max_map_len=64, max_ext_len=0)
    except Exception as error:  # msgpack's own errors have no common base
        raise ProtocolError(f"the head of a message is no msgpack: {error}") from None
    if not isinstance(document, dict):
        raise ProtocolError(f"the head of a message is a {type(document).__name__}; it must be a map")
    _check_version(document.get("version"))
    known = {name: _checked(name, document[name]) for name in _TYPES if name in document}
    if "kind" not in known:
        raise ProtocolError("the head of a message says no kind")
    head = Head(**known)
    _check_numbers(head)
    return head


def _check_sizes(frames: Sequence[Frame]) -> None:
    if not 2 <= len(frames) <= 2 + MOST_TENSORS:
        raise ProtocolError(f"a message has {len(frames)} frames; it must have from 2 to {2 + MOST_TENSORS}")
    if len(frames[0]) > LARGEST_HEAD_NBYTES:
        raise ProtocolError(f"the head of a message has {len(frames[0])} bytes; at most {LARGEST_HEAD_NBYTES} are read")
    total = sum(map(len, frames))
    if total > LARGEST_MESSAGE_NBYTES:
        raise ProtocolError(f"a message has {total} bytes; at most {LARGEST_MESSAGE_NBYTES} are taken")


def _check_version(version: object) -> None:
    if version != VERSION or isinstance(version, bool):
        theirs = f"version {version}" if isinstance(version, int) else "no version that can be read"
        older = "that side" if isinstance(version, int) and version < VERSION else "this side"
        raise ProtocolError(
            f"the other side speaks {theirs} of the protocol, this side version {VERSION}; update slabwire on {older}"
        )


def _checked(name: str, value: Any) -> Any:
    if type(value) not in _TYPES[name]:
        raise ProtocolError(f"{name!r} in the head of a message is a {type(value).__name__}")
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ProtocolError(
            f"{name!r} in the head of a message has {len(value)} characters; {_LONGEST_TEXT} are allowed"
        )
    return value


def _check_numbers(head: Head) -> None:
    if not 0 <= head.id <= LARGEST_ID:
        raise ProtocolError(f"the id {head.id} is not from 0 to {LARGEST_ID}")
    if not 0 <= head.credit <= MOST_CREDIT:
        raise ProtocolError(f"a credit of {head.credit} items is not from 0 to {MOST_CREDIT}")
    if not 0 <= head.nbytes <= LARGEST_ID:
        raise ProtocolError(f"{head.nbytes} bytes are not from 0 to {LARGEST_ID}")
    seconds = head.timeout_s
    if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_TIMEOUT_S):
        raise ProtocolError(f"a timeout of {seconds} s is not from 0 to {LONGEST_TIMEOUT_S:g}")


def trace_of(traceparent: str) -> tuple[int, int]:
    """The trace id of a W3C traceparent, in two halves; zeros where there is none that can be read."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return (int(found[1], 16), int(found[2], 16)) if found else (0, 0)
