"""The engine alone: a process that loads the model as the actor does, and turns `Engine.step` in a loop.

    python -m slabwire.bench.chat.bare_engine --fd N --cpus 0,1 --parent PID

It takes an order, a line of JSON, and says what came of it when all is done: until then it does nothing but compute.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic_ns
from typing import IO, Any, Self

from ...actors.llm.chat_model import ChatModel
from ...runtime.errors import SlabwireError
from ...runtime.host.lifeline import die_with_parent
from ..harness.answers import Answer
from ..harness.contestant import BenchError
from ..harness.conversations import Messages

_END_WITHIN_S = 5.0
_PIECE_NBYTES = 1 << 16


class BareEngine:
    """The parent's side of it; `cpus` is where it may run. It is ready at the first `ask`."""

    name = "bare"
    title = "bare engine"

    def __init__(self, cpus: Sequence[int]) -> None:
        self._socket, far = socket.socketpair()
        with far:
            options = ["--fd", str(far.fileno()), "--cpus", ",".join(map(str, cpus)), "--parent", str(os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, *options], stdin=subprocess.DEVNULL, pass_fds=[far.fileno()]
            )
        self._socket.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, conversations: Sequence[Messages], max_tokens: int, temperature: float) -> list[Answer]:
        """All at once. Raises BenchError for what went wrong in the process."""
        order = {"conversations": list(conversations), "max_tokens": max_tokens, "temperature": temperature}
        said = json.loads(await self._reply(json.dumps(order).encode() + b"\n"))
        if "error" in said:
            raise BenchError(f"the bare engine failed: {said['error']}")
        return [Answer(**each) for each in said["answers"]]

    async def _reply(self, order: bytes) -> bytes:
        loop, line = asyncio.get_running_loop(), b""
        try:
            await loop.sock_sendall(self._socket, order)
            while not line.endswith(b"\n"):
                piece = await loop.sock_recv(self._socket, _PIECE_NBYTES)
                if not piece:
                    raise ConnectionResetError
                line += piece
        except ConnectionError:
            raise BenchError(f"the bare engine's process {self.pid} has ended; what it said stands above") from None
        return line

    def close(self) -> None:
        """Ends the process, also in the middle of an order."""
        self._process.terminate()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answers_of(
    model: ChatModel, conversations: Sequence[Messages], max_tokens: int, temperature: float
) -> list[Answer]:
    """Asks all at once, and turns the engine until nothing is left."""
    began_ns = monotonic_ns()
    sequences = [
        model.sequence(model.prompt(each), max_tokens=max_tokens, temperature=temperature) for each in conversations
    ]
    pieces: dict[Any, list[int]] = {each: [] for each in sequences}
    texts: dict[Any, list[str]] = {each: [] for each in sequences}
    for each in sequences:
        model.engine.admit(each)
    while model.engine.has_work:
        outputs = model.engine.step()
        moment = monotonic_ns()
        for output in outputs:
            if output.text:
                pieces[output.sequence].append(moment)
                texts[output.sequence].append(output.text)
    return [
        Answer(began_ns, pieces[each], "".join(texts[each]), len(each.prompt), len(each.chosen), each.cached)
        for each in sequences
    ]


def _serve(orders: IO[str], replies: IO[str]) -> None:
    model = ChatModel.load()
    for line in orders:
        try:
            reply: dict[str, Any] = {"answers": [asdict(each) for each in answers_of(model, **json.loads(line))]}
        except SlabwireError as error:
            reply = {"error": str(error)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpus", type=lambda text: set(map(int, text.split(","))), required=True)
    for name in ("fd", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    # Ctrl-C reaches the whole foreground group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(options.parent)
    os.sched_setaffinity(0, options.cpus)
    with socket.socket(fileno=options.fd) as connection, connection.makefile("rw") as stream:
        try:
            _serve(stream, stream)
        except SlabwireError as error:
            sys.exit(f"bare engine: {error}")


if __name__ == "__main__":
    main()
