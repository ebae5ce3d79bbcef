"""A remote client may turn out to be gone, or have to go, at any message that is sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire.runtime.clients.async_connection import AsyncLocalConnection
from slabwire.runtime.gateway.budget import Budget
from slabwire.runtime.gateway.remote_streams import RemoteStreams
from slabwire.runtime.remote.protocol import Frame, FrameKind, Head


class Source(slabwire.Actor):
    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)

    def wide(self, n: int) -> Iterator[bytes]:
        for _ in range(n):
            yield bytes(5000)


class Going:
    """An inbound connection that ends, and with it all streams, when the message number `last` is sent to it."""

    is_behind = False

    def __init__(self, last: int) -> None:
        self.streams: RemoteStreams
        self._last = last

    def send(self, frames: list[Frame]) -> None:
        self._last -= 1
        if self._last == 0:
            self.streams.close()


@pytest.mark.parametrize("last", [1, 2, 7])
@pytest.mark.parametrize("takes_items", [True, False])
@pytest.mark.parametrize("port", ["source.upto", "source.wide"])
def test_a_client_that_goes_while_something_is_sent_ends_all_its_streams_once(
    port: str, takes_items: bool, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    graph = slabwire.Graph("going")
    source = graph.add(Source)
    graph.expose(source.upto, source.wide)

    async def main() -> None:
        def end(number: int, nbytes: int) -> None:
            ended.append((number, nbytes))

        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: wrong.append(about))
        connection = AsyncLocalConnection("going")
        await connection.open(0.0)
        peer, held, ended = Going(last), Budget(), list[tuple[int, int]]()
        peer.streams = streams = RemoteStreams(peer, connection, held, end, takes_items=takes_items)  # type: ignore[arg-type]
        for number in range(1, 21):
            head = Head(FrameKind.CALL, number, port, stream=True, credit=2 + number % 3)
            streams.begin(head, {"n": 3}, 0, 10)
        for _ in range(50):
            await asyncio.sleep(0.01)
        streams.close()  # those that wait for credit, where there were fewer messages
        assert sorted(ended) == [(number, 10) for number in range(1, 21)]
        assert (held.used_nbytes, wrong) == (0, [])
        await connection.close()

    with graph.run(drain_timeout_s=0.1):
        asyncio.run(main())
