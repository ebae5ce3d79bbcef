"""A graph inside somebody else's asyncio service: here a line protocol on loopback that counts words.

    python examples/embedded.py

The service owns the event loop, the signals and the clean-up; the graph comes and goes with an `async with`. When the
service dies, however it dies, the graph drains and stops.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from slabwire import Actor, Graph, SlabwireError


class Words(Actor):
    """In a process of its own, so a long text does not hold up the service's event loop."""

    def count(self, text: str) -> dict[str, int]:
        return dict(Counter(text.lower().split()).most_common(3))


graph = Graph("embedded")
words = graph.add(Words)
graph.expose(words.count)


async def serve(ready: asyncio.Future[int], stop: asyncio.Event) -> None:
    """One JSON answer a line, until `stop`; `ready` gets the port."""
    async with graph.run() as running:

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                try:
                    answer = await running.client.call("words.count", line.decode(), timeout_s=10)
                except SlabwireError as error:
                    answer = {"error": error.code, "text": str(error)}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
            ready.set_result(server.sockets[0].getsockname()[1])
            await stop.wait()


async def ask(port: int, text: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode() + b"\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer.decode().strip()


async def main() -> None:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(ready, stop))
        port = await ready
        texts = ["the cat and the dog and the bird", "no news is good news", "one"]
        for text, answer in zip(texts, await asyncio.gather(*(ask(port, text) for text in texts)), strict=True):
            print(f"{text!r}: {answer}")
        stop.set()


if __name__ == "__main__":
    asyncio.run(main())
