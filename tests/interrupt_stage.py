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
    """As KeyboardInterrupt, which pytest takes for itself."""


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
def interrupts() -> Iterator[Callable[[], None]]:
    """Raises Interrupted in this thread at a random moment after each call of what it gives, or not at all."""

    def stop(_number: int, _frame: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, stop)
    main, dice = threading.get_ident(), random.Random(7)
    begun, over = threading.Event(), threading.Event()

    def send() -> None:
        while True:
            begun.wait()
            begun.clear()
            if over.is_set():
                return
            time.sleep(dice.random() ** 3 * 0.02)
            signal.pthread_kill(main, signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield begun.set
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        over.set()
        begun.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def ask(ways: list[Callable[[int], bool]]) -> tuple[int, int]:
    """Asks again and again by all ways; returns how often an answer came, and how often an interrupt."""
    answered = interrupted = 0
    with interrupts() as begin:
        for number in range(_CALLS):
            try:
                begin()
                assert ways[number % len(ways)](number)
                answered += 1
            except Interrupted:
                interrupted += 1
    return answered, interrupted


def main(form: str) -> None:
    with definition(f"interrupts-{form}").run(listen="tcp://127.0.0.1:0") as running:
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

        thread = threading.Thread(target=others, daemon=True)
        thread.start()
        answered, interrupted = ask([called, streamed, left])
        over.set()
        thread.join()
        after = [client.call("answers.echo", number, timeout_s=60) for number in range(300)] == list(range(300))
        print(json.dumps({"answered": answered, "interrupted": interrupted, "wrong": wrong, "after": after}))


if __name__ == "__main__":
    main(sys.argv[1])
