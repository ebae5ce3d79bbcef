"""Both ends of a stream that a remote client sends, without a socket between them: credit, order, bounded memory."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.errors import MessageError, Overloaded, ProtocolError, SlabwireError
from slabwire.runtime.gateway import remote_sources
from slabwire.runtime.gateway.budget import Budget
from slabwire.runtime.gateway.remote_sources import RemoteSource, RemoteSources
from slabwire.runtime.remote import sent_stream
from slabwire.runtime.remote.frame_codec import pack_value
from slabwire.runtime.remote.protocol import Frame, FrameKind, Head, pack_head, unpack_head
from slabwire.runtime.remote.sent_stream import RemoteSentStream

WINDOW_NBYTES = 4000
NIL = b"\xc0"


class Wire:
    """The gateway's connection to a client; what it was told lies in `told`."""

    def __init__(self) -> None:
        self.told: deque[list[Frame]] = deque()

    def send(self, frames: list[Frame]) -> None:
        self.told.append(frames)


class Reader:
    """The handler at the end of a stream: `read` is what it has told of, its beginning counted."""

    def __init__(self) -> None:
        self.read = 0


def source(budget: Budget) -> tuple[RemoteSource, Wire, Reader]:
    wire, reader = Wire(), Reader()
    stream = RemoteSource(1, wire, budget, lambda: None)  # type: ignore[arg-type]
    stream.begin(lambda: reader.read)
    return stream, wire, reader


def begun(budget: Budget) -> tuple[RemoteSource, Wire]:
    """One whose handler has begun, and which has granted 64 items."""
    stream, wire, reader = source(budget)
    reader.read = 1
    assert taken(stream) is None
    return stream, wire


def taken(stream: RemoteSource) -> Any:
    """The next item; None where it has not come. Raises StopAsyncIteration, or the error that came."""
    try:
        coroutine = stream.__anext__()
        coroutine.send(None)
    except StopIteration as got:
        return got.value
    except RuntimeError:  # there is no loop to wait on
        return None
    raise AssertionError("it waits without a loop")


@given(st.lists(st.integers(0, 9000), max_size=150), st.lists(st.sampled_from("spgrt"), max_size=400), st.booleans())
def test_an_honest_client_is_never_refused_and_costs_little(sizes: list[int], turns: list[str], fails: bool) -> None:
    """In any order of sending, hearing, taking and reading everything comes, and in order."""

    def items() -> Any:
        yield from (bytes(each) for each in sizes)
        if fails:
            raise ValueError("broke off")

    outbox: deque[list[Frame]] = deque()
    budget = Budget(1 << 30)
    with pytest.MonkeyPatch.context() as patch:
        for module in (remote_sources, sent_stream):
            patch.setattr(module, "SENT_WINDOW_NBYTES", WINDOW_NBYTES)
        near = RemoteSentStream(outbox, 1, items())
        far, wire, reader = source(budget)
        got: list[int] = []
        ending = ""
        for turn in [*turns, *"spgrt" * (len(sizes) + 40)]:
            if turn == "s" and near.can_go():
                near.pull()
                near.push()
            elif turn == "p" and outbox:
                frames = outbox.popleft()
                far.put(unpack_head(frames), frames[1:])
            elif turn == "g" and wire.told:
                head = unpack_head(wire.told.popleft())
                near.grant(head.credit, head.nbytes)
            elif turn == "t":
                reader.read = 1 + len(got)
            elif turn == "r" and reader.read and not ending and len(got) < reader.read + 63 and far.can_give():
                try:
                    item = taken(far)
                except (StopAsyncIteration, SlabwireError) as end:
                    ending = str(end) or "end"
                else:
                    got += [] if item is None else [len(item)]
            assert len(got) <= max(0, reader.read - 1) + 64
            assert budget.used_nbytes < 2 * (WINDOW_NBYTES + max(sizes, default=0)) + 130 * 300
    assert got == sizes
    assert ending == ("the caller's stream: ValueError: broke off" if fails else "end")
    far.close()
    assert budget.used_nbytes == 0


def put(stream: RemoteSource, kind: FrameKind, *frames: Frame) -> None:
    stream.put(Head(kind, 1), frames or (NIL,))


def test_what_no_correct_client_sends_is_refused() -> None:
    stream, _, _ = source(Budget(1 << 20))
    with pytest.raises(ProtocolError, match="call 1 sends more than the 0 items that it may"):
        put(stream, FrameKind.ITEM)
    stream, _ = begun(Budget(1 << 20))
    for _ in range(64):
        put(stream, FrameKind.ITEM)
    with pytest.raises(ProtocolError, match="sends more than the 64 items"):
        put(stream, FrameKind.ITEM)
    put(stream, FrameKind.END)
    for kind in (FrameKind.ITEM, FrameKind.END, FrameKind.ERROR):
        with pytest.raises(ProtocolError, match="call 1 sends more of a stream that has ended"):
            put(stream, kind)


def test_what_takes_too_much_room_ends_the_stream_without_what_waits() -> None:
    budget = Budget(10_000)
    stream, _ = begun(budget)
    put(stream, FrameKind.ITEM, *pack_value(bytes(4000)))
    assert budget.used_nbytes > 4000
    put(stream, FrameKind.ITEM, *pack_value(bytes(8000)))
    assert budget.used_nbytes == 0
    put(stream, FrameKind.ITEM, *pack_value(bytes(9000)))
    assert budget.used_nbytes == 0
    with pytest.raises(Overloaded, match="send fewer streams of such items") as caught:
        taken(stream)
    assert not caught.value.not_begun
    stream.close()
    assert budget.used_nbytes == 0


def test_what_is_no_value_is_an_error_of_the_stream() -> None:
    stream, wire = begun(Budget(1 << 20))
    assert unpack_head(wire.told.popleft()) == Head(FrameKind.CREDIT, 1, credit=64)
    put(stream, FrameKind.ITEM, b"\xc1")
    with pytest.raises(MessageError):
        taken(stream)
    stream, _ = begun(Budget(1 << 20))
    stream.put(Head(FrameKind.ERROR, 1, code="no such code"), pack_value({"no": "text"}))
    with pytest.raises(SlabwireError, match="no such code"):
        taken(stream)


def test_a_call_that_has_ended_keeps_nothing_and_is_told_nothing() -> None:
    budget, wire = Budget(1 << 20), Wire()
    sources = RemoteSources(wire, budget)  # type: ignore[arg-type]
    stream = sources.open(1)
    stream.begin(lambda: 1)
    assert taken(stream) is None
    assert sources.put(Head(FrameKind.ITEM, 1), [bytes(100)])
    sources.close(1)
    assert budget.used_nbytes == 0
    assert not sources.put(Head(FrameKind.ITEM, 1), [bytes(100)])
    wire.told.clear()
    stream.begin(lambda: 65)
    assert taken(stream) is None
    assert (budget.used_nbytes, len(wire.told)) == (0, 0)
    sources.close(1)


def test_what_was_pulled_counts_until_it_was_read() -> None:
    budget, wire, reader = Budget(1 << 30), Wire(), Reader()
    sources = RemoteSources(wire, budget)  # type: ignore[arg-type]
    stream = sources.open(1)
    stream.begin(lambda: reader.read)
    reader.read = 1
    assert taken(stream) is None
    put(stream, FrameKind.ITEM, *pack_value(bytes(5 << 20)))
    put(stream, FrameKind.ITEM, NIL)
    assert stream.can_give()
    assert len(taken(stream)) == 5 << 20
    assert not stream.can_give()
    assert budget.used_nbytes > 5 << 20
    reader.read = 2
    sources.settle()
    assert budget.used_nbytes < 1000
    assert stream.can_give()
    sources.close(1)
    assert budget.used_nbytes == 0


STEPS = ["item", "end", "error", "read", "take", "close"]


@given(st.lists(st.sampled_from(STEPS), max_size=40), st.binary(max_size=20))
def test_whatever_a_client_sends_is_an_error_or_bounded(steps: list[str], payload: bytes) -> None:
    budget = Budget(1000)
    stream, _, reader = source(budget)
    for each in steps:
        try:
            if each == "read":
                reader.read += 1
                stream.settle()
            elif each == "take":
                taken(stream)
            elif each == "close":
                stream.close()
                break
            else:
                frames = [pack_head(Head(each, 1)), payload]
                stream.put(unpack_head(frames), frames[1:])
        except (SlabwireError, StopAsyncIteration):
            pass
        assert 0 <= budget.used_nbytes <= 1000
    stream.close()
    assert budget.used_nbytes == 0
