"""What takes connections from a listening socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable

from http_stage import listen
from slabwire.actors.ingress.tls.acceptor import SILENT_FOR_S, Acceptor
from tls_stage import run


class Doorman:
    """Lets everybody in, at once or once there is `room`."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.came: list[socket.socket] = []
        self.turned_away = 0
        self.listener = listen("tcp://127.0.0.1:0")
        self.address: tuple[str, int] = self.listener.getsockname()
        self.acceptor = Acceptor(self.listener, self.take)
        self.acceptor.open()
        self.clients: list[socket.socket] = []

    def take(self, connection: socket.socket) -> Awaitable[None] | None:
        if self.room.is_set():
            self.came.append(connection)
            return None
        return self.take_later(connection)

    async def take_later(self, connection: socket.socket) -> None:
        try:
            await self.room.wait()
        except BaseException:
            self.turned_away += 1
            connection.close()
            raise
        self.came.append(connection)

    def client(self, said: bytes = b"x") -> None:
        self.clients.append(socket.create_connection(self.address))
        self.clients[-1].sendall(said)

    async def close(self) -> None:
        await self.acceptor.close()
        for each in [*self.came, *self.clients]:
            each.close()


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0.001)


def test_while_there_is_no_room_the_others_wait_in_the_kernel() -> None:
    async def scene() -> None:
        doorman = Doorman()
        doorman.room.clear()
        for _ in range(3):
            doorman.client()
        await asyncio.sleep(0.05)
        assert doorman.came == []
        assert doorman.acceptor.is_busy
        doorman.room.set()
        await until(lambda: len(doorman.came) == 3)
        await doorman.close()
        assert not doorman.acceptor.is_busy

    run(scene)


def test_one_that_is_shut_brings_in_whom_it_has_taken_and_may_be_opened_again() -> None:
    async def scene() -> None:
        doorman = Doorman()
        doorman.room.clear()
        for _ in range(2):
            doorman.client()
        await until(lambda: doorman.acceptor._bringing_in)
        doorman.acceptor.shut()
        doorman.room.set()
        await until(lambda: not doorman.acceptor.is_busy)
        assert len(doorman.came) == 1
        doorman.acceptor.open()
        await until(lambda: len(doorman.came) == 2)
        await doorman.close()

    run(scene)


def test_one_that_is_closed_turns_away_who_has_no_room_also_in_the_turn_of_his_coming() -> None:
    async def scene() -> None:
        doorman = Doorman()
        doorman.room.clear()
        doorman.client()
        while doorman.acceptor._bringing_in is None:
            await asyncio.sleep(0)
        await doorman.close()
        assert doorman.turned_away == 1
        assert doorman.came == []

    run(scene)


def test_who_says_nothing_comes_later() -> None:
    async def scene() -> None:
        doorman = Doorman()
        began = asyncio.get_running_loop().time()
        doorman.client(b"")
        await until(lambda: doorman.came)
        assert asyncio.get_running_loop().time() - began > SILENT_FOR_S / 2
        await doorman.close()

    run(scene)
