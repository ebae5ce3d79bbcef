"""The client of all servers: a process that reads very many streams, and times some of them.

A hundred streams, evenly taken from all, are decrypted as soon as something comes by them. The others are emptied a few
times a second, and the tokens in their records counted: who looks rarely is not woken by each write, which would cost
the server more, and leaves the machine to the server.
"""

from __future__ import annotations

import asyncio
import select
from time import monotonic
from typing import Any

from ....runtime.host.descriptors import require_free
from ...harness.contestant import BenchError
from .opening import open_all, trust_in
from .streams import CountedStream, TimedStream
from .token_records import TokenRecords

_TIMED = 100
_SPARE_DESCRIPTORS = 32
_SLICE = 64
_SWEEP_EVERY_S = 0.25
# Longer than all are swept in.
_SETTLES_IN_S = 1.0
_MOST_AT_ONCE = 256


class Client:
    """In the process: what it is asked for, in this order."""

    def __init__(self, certificate: str) -> None:
        self._trust = trust_in(certificate)
        self._timed: list[TimedStream] = []
        self._counted: list[CountedStream] = []
        self._arrivals = select.epoll()
        self._by_descriptor: dict[int, TimedStream] = {}
        self._is_hurried = False
        self._sweeping: asyncio.Task[None] | None = None

    def open(self, port: int, count: int) -> None:
        """So many streams, whose answers begin. Raises BenchError."""
        require_free(count + _SPARE_DESCRIPTORS, f"a client with {count} streams")
        every = -(-count // _TIMED)
        for number, secured in enumerate(open_all(self._trust, port, count)):
            if number % every:
                self._counted.append(CountedStream(secured))
            else:
                self._timed.append(TimedStream(secured, number))
        for each in self._timed:
            self._by_descriptor[each.socket.fileno()] = each
            self._arrivals.register(each.socket, select.EPOLLIN)
        # An epoll instance is readable while one of its descriptors is (epoll(7)).
        asyncio.get_running_loop().add_reader(self._arrivals, self._take_timed)
        self._sweeping = asyncio.create_task(self._sweep())

    async def settle(self) -> None:
        """Waits until nothing has come for a while: neither tokens, nor what keeps waiting clients patient."""
        before = -1
        while (now := self._nbytes()) != before:
            before = now
            await asyncio.sleep(_SETTLES_IN_S)

    def begin(self) -> None:
        """Measures from now on. All streams have settled after their first tokens."""
        event_nbytes = {each.event_nbytes for each in self._timed}
        if broken := self._broken():
            raise BenchError(f"{broken} of {len(self._timed) + len(self._counted)} streams ended before it began")
        if len(event_nbytes) != 1 or 0 in event_nbytes:
            raise BenchError(f"events of tokens have {sorted(event_nbytes)} bytes; all must have the same length")
        records = TokenRecords(event_nbytes.pop())
        for each in self._timed:
            each.reset()
        for other in self._counted:
            other.count(records)

    async def until(self, tokens: int, within_s: float) -> dict[str, Any]:
        """Waits for so many tokens since `begin`, so long at most: what came, and what has gone wrong."""
        until = monotonic() + within_s
        self._is_hurried = True
        while self._tokens() < tokens and monotonic() < until and not self._broken():
            await asyncio.sleep(0.02)
        self._is_hurried = False
        return {
            "tokens": self._tokens(),
            "came_ns": max(each.came_ns for each in self._timed),
            "broken": self._broken(),
            "wrong": self._wrong(),
            "latencies_us": [one for each in self._timed for one in each.latencies_us],
            "gaps_us": [one for each in self._timed for one in each.gaps_us],
        }

    def _take_timed(self) -> None:
        for descriptor, _ in self._arrivals.poll(0, _MOST_AT_ONCE):
            stream = self._by_descriptor[descriptor]
            stream.take()
            if stream.is_broken:
                self._arrivals.unregister(descriptor)
                del self._by_descriptor[descriptor]

    async def _sweep(self) -> None:
        """Slice after slice, so that those that are timed wait for none but one."""
        slices = [self._counted[at : at + _SLICE] for at in range(0, len(self._counted), _SLICE)]
        while slices:
            for some in slices:
                for each in some:
                    if not each.is_broken:
                        each.take()
                await asyncio.sleep(0 if self._is_hurried else _SWEEP_EVERY_S / len(slices))

    # -- what came ---------------------------------------------------------------------------------------------------

    def _nbytes(self) -> int:
        return sum(each.plain_nbytes for each in self._timed) + sum(each.nbytes for each in self._counted)

    def _tokens(self) -> int:
        return sum(each.tokens for each in self._timed) + sum(each.tokens for each in self._counted)

    def _broken(self) -> int:
        """Streams that have ended, or whose connection was broken."""
        return sum(each.is_broken for each in self._timed) + sum(each.is_broken for each in self._counted)

    def _wrong(self) -> int:
        """Tokens of another stream, or in a wrong order; and streams by which something else came."""
        wrong = sum(each.wrong + (not each.is_whole) for each in self._timed)
        return wrong + sum(not each.is_whole for each in self._counted)
