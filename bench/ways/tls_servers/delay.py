"""A proxy that lets every byte arrive later, as a network does. What it adds is half a round trip each way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

_HOST = "127.0.0.1"
_READ_NBYTES = 1 << 16
# Of its end: nothing more comes.
_END = b""


class Delay:
    """In a process: relays what comes to its port. TCP's own handshake is not delayed: the kernel does that."""

    def __init__(self, round_trip_ms: float) -> None:
        self._one_way_s = round_trip_ms / 2e3
        self._servers: list[asyncio.Server] = []

    async def listen(self, target: int) -> int:
        """A port of its own before that one."""

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(_HOST, target)
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

        server = await asyncio.start_server(relay, _HOST, 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What is read later leaves later: the order stays."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - loop.time())
                if data == _END:
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        with suppress(OSError):
            while data := await reader.read(_READ_NBYTES):
                under_way.put_nowait((loop.time() + self._one_way_s, data))
        under_way.put_nowait((loop.time() + self._one_way_s, _END))
        with suppress(OSError):
            await delivering
        writer.close()
