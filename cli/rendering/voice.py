"""How `slabwire run` speaks: lines for people or documents for programs, from any of its threads."""

from __future__ import annotations

import signal
import sys
import threading

import click

from ...runtime.logs.full_disk import survive_full_disk
from .presentation import print_json


class Voice:
    """Where nobody reads the output any more (`slabwire run | head`), the graph is asked to end, once.

    A full disk costs what cannot be written to it, and nothing else.
    """

    def __init__(self, form: str) -> None:
        self._form = form
        self._is_heard = True
        if sys.stdout is sys.__stdout__:
            survive_full_disk()

    @property
    def as_json(self) -> bool:
        return self._form == "json"

    def say(self, text: str, /, **document: object) -> None:
        """One or the other, as it was asked for."""
        if not self._is_heard:
            return
        try:
            if self.as_json:
                print_json(document)
            else:
                click.echo(text)
        except BrokenPipeError:
            self._is_heard = False
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGTERM)
