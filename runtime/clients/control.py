"""Asks the supervisor of a running graph, over ZeroMQ: what the CLI does."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Any, Self

import zmq

from ..control.verbs import VERBS, Verb
from ..errors import Disconnected, ProtocolError, error_from_wire
from ..host.descriptors import FOR_A_CONNECTION, require_free
from ..host.inherited import fill_standard_descriptors
from ..host.run_directory import graph_directory, is_running, list_graphs, own_socket
from ..host.sealed_document import pack_document, unpack_document
from ..spelling import did_you_mean

# A supervisor answers in well under a millisecond, one that is swapping or has just been locked in may take seconds.
ANSWER_WITHIN_S = 5.0


_LOOK_EVERY_S = 0.25


class Control:
    """A connection to the graph `name` of this user on this host. One thread.

    Raises Disconnected, saying what does run, when there is no such graph or it does not answer; UnusableDirectory
    where the run directory is not this user's alone.
    """

    def __init__(self, name: str, timeout_s: float = ANSWER_WITHIN_S) -> None:
        fill_standard_descriptors()
        require_free(FOR_A_CONNECTION, f"connecting to graph {name!r}")
        self.name = name
        self._timeout_s = timeout_s
        if not is_running(graph_directory(name)):
            raise not_running(name)
        address = f"ipc://{own_socket(name, 'control')}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(address)
        self._last_token = 0

    def request(self, verb: Verb, *, within_s: float | None = None) -> dict[str, Any]:
        """The answer to one request, which may take `within_s` where it is no matter of a moment. Raises what the
        supervisor refuses with.
        """
        self._last_token += 1
        self._socket.send(pack_document(VERBS.document(verb, token=self._last_token)))
        while True:
            self._await_word(VERBS.name_of(verb), self._timeout_s if within_s is None else within_s)
            answer = unpack_document(self._socket.recv())
            if answer.get("token") == self._last_token:
                break
        if not answer.get("ok"):
            raise error_from_wire(str(answer.get("code")), str(answer.get("error")))
        result = answer.get("result")
        if not isinstance(result, dict):
            raise ProtocolError(f"the supervisor of {self.name!r} gave no answer to {VERBS.name_of(verb)!r}")
        return result

    def _await_word(self, verb: str, within_s: float) -> None:
        """Returns when something has come. One that has died is not waited for."""
        until = monotonic() + within_s
        while not self._socket.poll(int(min(within_s, _LOOK_EVERY_S) * 1000)):
            if not is_running(graph_directory(self.name)):
                raise Disconnected(f"graph {self.name!r} has ended")
            if monotonic() >= until:
                raise Disconnected(
                    f"the supervisor of graph {self.name!r} did not answer {verb!r} within {within_s:g} s"
                )

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def not_running(name: str) -> Disconnected:
    """The error for a graph that is not there."""
    running = list_graphs()
    hint = did_you_mean(name, running)
    listed = (
        f"; running: {', '.join(running)}" if running else "; no graph is running, start one with `slabwire run FILE`"
    )
    return Disconnected(f"no graph named {name!r} is running{hint}{listed}")
