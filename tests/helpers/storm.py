"""Messages at a steady rate while processes are killed, and what became of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

import slabwire
from kill_stage import checksum, letter
from slabwire import Retry
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway

# So many items has each stream.
ITEMS = 5
# A graph may be away for as long as it likes: a storm ends by its own time limit.
OFTEN = Retry(times=10_000, first_s=0.01, most_s=0.5)


@dataclass
class Kill:
    """One process that was killed; `back_s` is how long it took until its successor's first answer came."""

    worker: str
    pid: int
    at: float
    back_s: float | None = None


@dataclass
class Storm:
    """What came of it. `hops` are the workers that stand behind an answer of each kind, in the order of its pids."""

    running: slabwire.Running
    rate: int
    total: int
    seed: int
    sent: int = 0
    answered: int = 0
    interrupted: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    gateways: int = 0  # that were killed
    _open: dict[str, list[Kill]] = field(default_factory=dict)

    def run(self, kills: int, *, remote: str | None = None) -> None:
        """Sends all messages, and kills actors at random moments meanwhile; the gateway too, if some go through it."""
        over = threading.Event()
        killer = threading.Thread(target=self._kill_all, args=(kills, self.total / self.rate, over, bool(remote)))
        killer.start()
        try:
            asyncio.run(self._send_all(remote))
        finally:
            over.set()
            killer.join()

    def report(self) -> str:
        back = [each.back_s for each in self.kills if each.back_s is not None]
        first = f"{median(back) * 1e3:.0f} ms (most {max(back) * 1e3:.0f})" if back else "-"
        return (
            f"{len(self.kills)} kills and {self.gateways} of the gateway under {self.rate} messages a second: "
            f"{self.sent} sent, {self.answered} answered, "
            f"{len(self.lost)} lost, {len(self.wrong)} wrong, {self.interrupted} streams asked for again; "
            f"first message of a successor after {first} in the median"
        )

    # -- kills -------------------------------------------------------------------------------------------------------

    def _kill_all(self, kills: int, within_s: float, over: threading.Event, has_gateway: bool) -> None:
        dice = random.Random(self.seed)
        moments = sorted(dice.uniform(0.02, 0.95) * within_s for _ in range(kills))
        began = time.monotonic()
        for number, moment in enumerate(moments):
            if number % 5 != 4:  # every fifth falls together with the one before
                over.wait(max(0.0, began + moment - time.monotonic()))
            while not over.is_set() and not self._kill(dice):
                time.sleep(0.001)  # all are on their way back already
            if has_gateway and number % 8 == 7 and not over.is_set():
                self._kill_gateway()

    def _kill(self, dice: random.Random) -> bool:
        workers = [each for each in self.running.status()["workers"] if each["state"] == "ready"]
        if not workers:
            return False
        victim = dice.choice(workers)
        name, pid = str(victim["name"]), int(victim["pid"])
        kill = Kill(name, pid, time.monotonic())
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if any(each.pid == pid for each in self.kills):
            return False  # a zombie
        self.kills.append(kill)
        self._open.setdefault(name, []).append(kill)
        return True

    def _kill_gateway(self) -> None:
        with Control(self.running.name) as control:
            pid = control.request(OpenGateway())["pid"]
        if pid:
            os.kill(pid, signal.SIGKILL)
            self.gateways += 1

    # -- messages ----------------------------------------------------------------------------------------------------

    async def _send_all(self, remote: str | None) -> None:
        loop = asyncio.get_running_loop()
        async with slabwire.connect_async(self.running.name, retries=OFTEN) as near:
            far = await slabwire.connect_async(remote, retries=OFTEN).open() if remote else None
            tasks: set[asyncio.Task[None]] = set()
            began = loop.time()
            for number in range(self.total):
                await asyncio.sleep(max(0.0, began + number / self.rate - loop.time()))
                client = far if far is not None and number % 10 == 9 else near
                tasks.add(loop.create_task(self._send(client, number)))
            await asyncio.gather(*tasks)
            if far is not None:
                await far.close()

    async def _send(self, client: Any, number: int) -> None:
        self.sent += 1
        name, ask = KINDS[number % len(KINDS)]
        try:
            await ask(self, client, number)
            self.answered += 1
        except slabwire.SlabwireError as error:
            self.lost.append(f"{name} {number}: {type(error).__name__}: {error}")

    def check(self, number: int, answer: Any, hops: tuple[str, ...], key: str | None = None) -> None:
        """Notes what is wrong with an answer, and which successors it came from."""
        x = answer["x"]
        expected = letter(number)
        if answer["n"] != number or answer["check"] != expected["check"] or checksum(number, x) != expected["check"]:
            self.wrong.append(f"{number}: came as {answer['n']}, {answer['check']}")
        if not np.array_equal(x, expected["x"]):
            self.wrong.append(f"{number}: other bytes")
        if key is not None and answer["key"] != key:
            self.wrong.append(f"{number}: asked by {key}, answered to {answer['key']}")
        now = time.monotonic()
        for hop, pid in zip(hops, answer["pids"], strict=True):
            for kill in self._open.get(hop, ()):
                if kill.back_s is None and pid != kill.pid and now > kill.at:
                    kill.back_s = now - kill.at


Ask = Callable[[Storm, Any, int], Awaitable[None]]


def _call(port: str, *hops: str, sees_key: bool = False) -> Ask:
    async def ask(storm: Storm, client: Any, number: int) -> None:
        key = f"{port} {number}"
        answer = await client.call(port, **letter(number), idempotency_key=key)
        storm.check(number, answer, hops, key if sees_key else None)

    return ask


async def _batch(storm: Storm, client: Any, number: int) -> None:
    storm.check(number, await client.call("batches.take", letter(number), idempotency_key=True), ("batches",))


async def _chain(storm: Storm, client: Any, number: int) -> None:
    storm.check(number, await client.call("make.take", number, idempotency_key=True), ("make", "middle", "last"))


def _stream(port: str) -> Ask:
    async def ask(storm: Storm, client: Any, number: int) -> None:
        while True:
            came = 0
            try:
                async for item in client.stream(port, number, ITEMS, idempotency_key=f"{port} {number}"):
                    storm.check(number + came, item, ("streams",))
                    came += 1
            except (slabwire.Interrupted, slabwire.Disconnected):
                if not came:
                    raise
                storm.interrupted += 1
                continue
            if came != ITEMS:
                storm.wrong.append(f"{port} {number}: {came} items of {ITEMS}")
            return

    return ask


KINDS: list[tuple[str, Ask]] = [
    ("plain", _call("plain.take", "plain", sees_key=True)),
    ("chain", _chain),
    ("coroutine", _call("waits.take", "plain", "waits", sees_key=True)),
    ("batch", _batch),
    ("plain", _call("plain.take", "plain", sees_key=True)),
    ("chain", _chain),
    ("resumable", _stream("streams.again")),
    ("batch", _batch),
    ("coroutine", _call("waits.take", "plain", "waits", sees_key=True)),
    ("once", _stream("streams.once")),
    ("plain", _call("plain.take", "plain", sees_key=True)),
]
