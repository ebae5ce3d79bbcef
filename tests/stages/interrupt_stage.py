"""A program whose calls are interrupted at random lines, as by Ctrl-C: `python interrupt_stage.py FORM`.

What an interrupt kept from being closed ends with this process.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import slabwire
from slabwire import Actor, Graph

_CALLS = 60


class Interrupted(BaseException):
    """As KeyboardInterrupt, but of another signal."""


class Answers(Actor):
    def echo(self, number: int) -> int:
        return number

    def upto(self, number: int) -> Iterator[int]:
        yield from range(number)


def definition(name: str) -> Graph:
    graph = Graph(name)
    answers = graph.add(Answers, name="answers")
    graph.expose(answers.echo, answers.upto)
    return graph


@contextmanager
def interrupts(kind: signal.Signals, error: type[BaseException]) -> Iterator[tuple[Callable[[], None], ...]]:
    """Two functions: between calls of the first and of the second the error may be raised in this thread, once."""
    is_open = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal is_open
        if is_open:
            is_open = False
            raise error

    def begin() -> None:
        nonlocal is_open
        is_open = True
        begun.set()

    def end() -> None:
        nonlocal is_open
        is_open = False

    before = signal.signal(kind, stop)
    main, dice = threading.get_ident(), random.Random(7)
    begun, over = threading.Event(), threading.Event()

    def send() -> None:
        while True:
            begun.wait()
            begun.clear()
            if over.is_set():
                return
            time.sleep(dice.random() ** 3 * 0.02)
            signal.pthread_kill(main, kind)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield begin, end
    finally:
        signal.signal(kind, signal.SIG_IGN)
        over.set()
        begun.set()
        sender.join()
        signal.signal(kind, before)


def ask(
    ways: list[Callable[[int], bool]], kind: signal.Signals, error: type[BaseException], calls: int
) -> tuple[int, int]:
    """Asks again and again by all ways; returns how often an answer came, and how often an interrupt."""
    answered = interrupted = 0
    with interrupts(kind, error) as (begin, end):
        for number in range(calls):
            try:
                begin()
                assert ways[number % len(ways)](number)
                end()
                answered += 1
            except error:
                interrupted += 1
    return answered, interrupted


def main(form: str) -> None:
    in_process = form == "in_process"
    graph = definition(f"interrupts-{form}")
    with graph.run(in_process=True) if in_process else graph.run(listen="tcp://127.0.0.1:0") as running:
        client: Any = running.client
        if form == "remote":
            client = slabwire.connect(running.status()["gateway"]["listen"][0])

        def called(number: int) -> bool:
            return bool(client.call("answers.echo", number, timeout_s=60) == number)

        def streamed(number: int) -> bool:
            return list(client.stream("answers.upto", number % 5, timeout_s=60)) == list(range(number % 5))

        def left(number: int) -> bool:
            return bool(next(client.stream("answers.upto", 1000, timeout_s=60)) == 0)

        wrong = []
        over = threading.Event()

        def others() -> None:
            number = 0
            while not over.is_set():
                number += 1
                try:
                    if client.call("answers.echo", number, timeout_s=60) != number:
                        wrong.append(number)
                except slabwire.SlabwireError:  # an interrupt has torn the connection that threads share
                    continue

        # In one process a thread beside the main one would drive the graph, and hear of no interrupt.
        thread = threading.Thread(target=others, daemon=True)
        if not in_process:
            thread.start()
            signals: Any = signal.SIGUSR1, Interrupted, _CALLS
        else:
            signals = signal.SIGINT, KeyboardInterrupt, 20 * _CALLS
        answered, interrupted = ask([called, streamed, left], *signals)
        over.set()
        if not in_process:
            thread.join()
        after = [client.call("answers.echo", number, timeout_s=60) for number in range(300)] == list(range(300))
        print(json.dumps({"answered": answered, "interrupted": interrupted, "wrong": wrong, "after": after}))


if __name__ == "__main__":
    main(sys.argv[1])
