"""How `slabwire run` speaks: lines for people or documents for programs, from any of its threads."""

from __future__ import annotations

import signal
import sys
import threading

from ...runtime.logs.full_disk import survive_full_disk
from .presentation import say


class Voice:
    """Where nobody reads the output any more (`slabwire run | head`), the graph is asked to end, once.

    A full disk costs what cannot be written to it, and nothing else.
    """

    def __init__(self, form: str) -> None:
        self._form = form
        self._is_heard = True
        if sys.stdout is sys.__stdout__:
            survive_full_disk()

    def say(self, text: str, /, **document: object) -> None:
        """One or the other, as it was asked for."""
        if not self._is_heard:
            return
        try:
            say(self._form, text, **document)
        except BrokenPipeError:
            self._is_heard = False
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGTERM)
