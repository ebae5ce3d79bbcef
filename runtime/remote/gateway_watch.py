"""Watches a gateway: asks it again and again, at each of its addresses, as clients do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

import zmq

from ..host.heartbeat import LOOK_EVERY_S, Heartbeat
from .knock import Knocker

logger = logging.getLogger("slabwire")

# Between an answer and the next question. A question costs both sides together half a millisecond of CPU time.
ASK_EVERY_S = 2.0


class Watch:
    """On the running loop, from now on. `addresses` has the gateway's key at each address, "" where it has none."""

    def __init__(self, knocker: Knocker, addresses: Mapping[str, str]) -> None:
        self._knocker = knocker
        self._server_keys = addresses
        self._pulses = {each: Heartbeat(time.monotonic()) for each in addresses}
        self._tasks = [asyncio.get_running_loop().create_task(self._ask_on(each)) for each in addresses]

    def silence(self) -> tuple[float, str]:
        """For how many seconds the gateway has not answered, and where: the address where that is longest."""
        return max((pulse.silent_s, address) for address, pulse in self._pulses.items())

    async def _ask_on(self, address: str) -> None:
        while True:
            await self._ask(address)
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, address: str) -> None:
        pulse = self._pulses[address]
        asking = self._knocker.knock(address, self._server_keys[address])
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=LOOK_EVERY_S)
                pulse.look(time.monotonic(), heard=asking.done())
            asking.result()
        except zmq.ZMQError as error:  # we have no descriptor to ask with, which says nothing of the gateway
            logger.warning("the gateway cannot be asked at %s: %s", address, error.strerror)
        finally:
            asking.cancel()

    def end(self) -> None:
        """Stops to ask."""
        for each in self._tasks:
            each.cancel()
