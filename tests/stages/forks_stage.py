"""Actors whose handlers start processes, in each of the ways that Python has."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from typing import Any

import numpy as np

import slabwire
from slabwire import Actor, Output

# Tells how a program finds its signals: the handlers of some, and the mask. SIGHUP is left out: under nohup it is
# ignored by all that the tests start.
SIGNALS = """
import signal
names = ("SIGINT", "SIGTERM", "SIGCHLD", "SIGUSR1", "SIGUSR2")
handlers = {each: signal.getsignal(getattr(signal, each)) for each in names}
usual = {**dict.fromkeys(names, signal.SIG_DFL), "SIGINT": signal.default_int_handler}
print([*(each for each in names if handlers[each] != usual[each]), *signal.pthread_sigmask(signal.SIG_BLOCK, [])])
"""


def square(n: int) -> int:
    return n * n


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Starts(Actor):
    """Each answer of a list ends with the worker's pid."""

    out = Output(int)

    def on_start(self) -> None:
        fork = multiprocessing.get_context("fork")
        with fork.Pool(1) as pool:
            self.squares = pool.map(square, [5])
        self.pool = ProcessPoolExecutor(1, mp_context=fork)
        self.squares.append(self.pool.submit(square, 6).result())

    def on_stop(self) -> None:
        self.pool.shutdown()

    def pooled(self, method: Any) -> list[int]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            return [*self.squares, *pool.map(square, [1, 2]), os.getpid()]

    async def executed(self, method: Any) -> list[int]:
        loop, context = asyncio.get_running_loop(), multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            kept = await loop.run_in_executor(self.pool, square, 7)
            return [kept, *await asyncio.gather(*(loop.run_in_executor(pool, square, n) for n in (1, 2))), os.getpid()]

    def terminated(self) -> list[Any]:
        children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(3)]
        for each in children:
            each.start()
            each.terminate()
            each.join()
        return [*(each.exitcode for each in children), os.getpid()]

    def programs(self) -> list[Any]:
        sleeper = subprocess.Popen(["sleep", "60"], preexec_fn=os.setsid)
        sleeper.send_signal(signal.SIGINT)
        asked = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, check=True)
        try:
            subprocess.run(["sleep", "60"], timeout=0.01, check=False)
        except subprocess.TimeoutExpired:
            return [sleeper.wait(), asked.stdout.strip(), os.getpid()]
        return []

    async def awaited_programs(self) -> list[Any]:
        sleeper = await asyncio.create_subprocess_exec("sleep", "60")
        sleeper.terminate()
        asked = await asyncio.create_subprocess_exec(sys.executable, "-c", SIGNALS, stdout=subprocess.PIPE)
        said, _ = await asked.communicate()
        return [await sleeper.wait(), said.decode().strip(), os.getpid()]

    def terminal(self) -> list[Any]:
        pid, screen = pty.fork()
        if not pid:
            os.execvp("true", ["true"])
        status = _status(pid)
        os.close(screen)
        return [status, os.getpid()]

    def shared(self) -> list[Any]:
        context = multiprocessing.get_context("fork")
        memory: Any = shared_memory.SharedMemory(create=True, size=64)
        queue: Any = context.Queue()
        with context.Manager() as manager:
            named = manager.dict()
            child = context.Process(target=lambda: (named.update(n=1), queue.put(memory.buf[0])))
            memory.buf[0] = 3
            child.start()
            found = [queue.get(), dict(named)]
            child.join()
        memory.close()
        memory.unlink()
        return [*found, child.exitcode, os.getpid()]

    def ends(self, how: str) -> list[int] | None:
        child = os.fork()
        if not child:
            _end_plainly(self, how)
            return None
        return [_status(child), os.getpid()]

    async def ends_later(self, how: str) -> list[int] | None:
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            if how == "await":
                future: asyncio.Future[None] = asyncio.Future(loop=asyncio.SelectorEventLoop())
                await future
            _end_plainly(self, how)
            return None
        status = await asyncio.to_thread(_status, child)
        return [status, os.getpid()]

    async def awaits_at_once(self) -> list[int] | None:
        never = asyncio.get_running_loop().create_future()
        child = os.fork()
        if not child:
            await never
            return None
        status = await asyncio.to_thread(_status, child)
        return [status]

    def items(self, how: str) -> Iterator[int]:
        child = os.fork()
        if not child:
            if how == "yield":
                yield 1
            _end_plainly(self, how)
            return
        yield _status(child)
        yield os.getpid()

    def pass_on(self, n: int) -> None:
        self.emit("out", n)


def _end_plainly(actor: Actor, how: str) -> None:
    """What a forked child does, that has much at hand which is its parent's."""
    signals = {"terminate": signal.SIGTERM, "user": signal.SIGUSR1}
    if how == "raise":
        raise ValueError("from a child")
    if how == "exit":
        sys.exit(7)
    if how in signals:
        os.kill(os.getpid(), signals[how])
        time.sleep(60)
    if how == "loop":
        os._exit(asyncio.run(asyncio.sleep(0, 5)))
    if how == "old loop":
        os._exit(asyncio.get_event_loop_policy().new_event_loop().run_until_complete(asyncio.sleep(0, 6)))
    if how == "context":
        os._exit(actor.context.attempt)
    if how == "child of a child":
        child = os.fork()
        if not child:
            os._exit(20)
        os._exit(_status(child) + 4)
    uses: dict[str, Callable[[], object]] = {
        "emit": lambda: actor.emit("out", 1),
        "loan": lambda: actor.loan(4, np.float32),
        "keep": lambda: actor.keep("x", slabwire.Layout("test fork")),
        "listen": lambda: actor.listen("tcp://127.0.0.1:0"),
        "call": lambda: asyncio.run(actor.call("starts.terminal")),
    }
    if how in uses:
        try:
            uses[how]()
        except slabwire.SlabwireError as error:
            os._exit(3 if "a process that a handler has forked has no part in the graph" in str(error) else 2)


def next_number(n: int) -> int:
    return n + 1
