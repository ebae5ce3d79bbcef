"""The client for ordinary code: `slabwire.connect(...)`, `call`, `stream`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ...shm.bell import now_ns
from ..dataplane.pending import Pending, deadline_of
from ..errors import ClientClosed, SlabwireError
from ..message.header import Kind
from .connection import Connection, is_address
from .retry import Attempts, Retry, key_of, retry_of, sends_once

T = TypeVar("T")

# A call without a timeout of its own waits this long.
CALL_TIMEOUT_S = 60.0


class Client:
    """Calls the exposed ports of a running graph. Threads may share it; each call blocks its own thread.

    `where` is the graph's name on this host, reached through shared memory, or an address of its gateway,
    `tcp://host:port` or `ipc://path`, reached through ZeroMQ. `keys` is a folder that `slabwire keys add` has made, for
    addresses only. `retries` is the default of the calls; `wait_s` is how long a graph is awaited that does not run yet
    (None: 0 on this host, 5 at an address). When the graph goes away, calls in flight fail with Disconnected; the next
    call connects anew. A forked child needs a client of its own.

    Raises Disconnected where nothing answers, ProtocolError where the graph refuses these keys, StartError for keys
    that cannot be used. Close it, or use it in a `with`.
    """

    def __init__(
        self, where: str, keys: Path | str | None = None, *, retries: int | Retry = 0, wait_s: float | None = None
    ) -> None:
        self._retry = retry_of(retries)
        self._connection = _connected(where, keys, wait_s)
        self._streams: dict[Pending, tuple[Connection, int]] = {}  # that are open, with the thread of each

    @property
    def name(self) -> str:
        """Of the graph."""
        return self._connection.name

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        return self._connection.ports

    def call(
        self,
        target: str,
        /,
        *args: Any,
        timeout_s: float | None = CALL_TIMEOUT_S,
        retries: int | Retry | None = None,
        idempotency_key: str | bool | None = None,
        **fields: Any,
    ) -> Any:
        """The answer of port `target` (`"actor.port"`); values by position or by field name. None waits for ever.

        It is made again up to `retries` times, within `timeout_s`, after errors that pass: those that came before the
        work began, and with an `idempotency_key` (True makes one) those after, too. For a field that is a stream give
        any iterable: it is read while the call waits, no further ahead than the handler reads, and such a call is made
        once. What the iterable raises, the handler's loop raises as well, and then the call. Arrays that come back are
        read-only; on this host they are views of shared memory, given back when the last of them dies. Raises
        DeadlineExceeded, UnknownPort, MessageError, OutOfMemory (a client's slabs hold 1 GiB at most), Overloaded (a
        client may have 128 calls and streams in flight on this host, or as many as `Graph(client_calls=)` says, and
        1,024 at an address), Disconnected, ClientClosed, or HandlerError for what the handler raised.
        """
        deadline_ns = deadline_of(timeout_s)
        if retries is None and idempotency_key is None and self._retry is None:
            return self._answer(target, args, fields, deadline_ns, "")
        attempts = self._attempts(target, args, fields, retries, idempotency_key, deadline_ns)
        return _again(lambda: self._answer(target, args, fields, deadline_ns, attempts.key), attempts)

    def _attempts(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        retries: int | Retry | None,
        idempotency_key: str | bool | None,
        deadline_ns: int,
    ) -> Attempts:
        """How often a call may be made; once, if it sends a stream. Says at once what is wrong with its arguments."""
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        if self._connection.check(target, args, fields):
            sends_once(key, target)
            retry = None
        return Attempts(retry, key, deadline_ns)

    def _answer(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], deadline_ns: int, key: str) -> Any:
        pending = self._begun(target, args, fields, deadline_ns, key, stream=False)[1]
        if pending.stream is not None:
            pending.stream.close()
        return pending.result()

    def stream(
        self,
        target: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | bool | None = None,
        **fields: Any,
    ) -> Generator[Any, None, None]:
        """The items of a stream, as they come; leaving the loop cancels the rest. `timeout_s` is for all of it.

        What is wrong with the arguments is said at once. The work begins with the first `next`, which also reads the
        values that are sent. It may be begun again, as a call, until its first item has come. Raises what `call` does.
        """
        attempts = self._attempts(target, args, fields, retries, idempotency_key, deadline_of(timeout_s))
        return self._items(target, args, fields, attempts)

    def _items(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], attempts: Attempts
    ) -> Generator[Any, None, None]:
        # The work begins with the first `next`: an iterator that nobody starts is never told that it ends.
        def start() -> tuple[Connection, Pending]:
            connection, pending = self._begun(target, args, fields, attempts.deadline_ns, attempts.key, stream=True)
            if pending.next_kind() is Kind.ERROR:
                _end(connection, pending)
                pending.result()
            return connection, pending

        connection, pending = _again(start, attempts)
        self._streams[pending] = connection, threading.get_ident()
        try:
            while (kind := pending.next_kind()) is not Kind.END:
                yield pending.result()  # no name here keeps the item, or the error
                if kind is Kind.REPLY:
                    return
                connection.wait(pending, attempts.deadline_ns, target)
        finally:
            self._streams.pop(pending, None)
            _end(connection, pending)

    def _begun(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], deadline_ns: int, key: str, *, stream: bool
    ) -> tuple[Connection, Pending]:
        """A request of which something has come back, over a connection that is made anew where the graph has ended."""
        connection = self._connection
        while not connection.is_there():
            connection = self._connection = connection.renewed(deadline_ns)
        pending = connection.begin(target, args, fields, deadline_ns, key, stream=stream)
        try:
            connection.wait(pending, deadline_ns, target)
        except BaseException:
            _end(connection, pending)
            raise
        return connection, pending

    def withdraw(self) -> None:
        """Ends the streams that this thread has begun: it is about to wait for something else, and reads none of them.
        What other threads wait for goes on.
        """
        for pending, (connection, thread) in list(self._streams.items()):
            if thread == threading.get_ident():
                connection.cancel(pending)
                pending.arrived.clear()
                pending.arrived.append((Kind.ERROR, withdrawn_error(connection.whose)))

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled, later ones raise ClientClosed. Arrays that were received
        stay valid. Any thread.
        """
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connected(where: str, keys: Path | str | None, wait_s: float | None) -> Connection:
    if is_address(where, keys):
        from .remote_connection import RemoteConnection

        return RemoteConnection(where, keys, wait_s)
    from .shared_connection import awaited

    return awaited(where, deadline_of(wait_s or 0.0))


def _end(connection: Connection, pending: Pending) -> None:
    """Nobody waits for the rest of a call; nothing more is read of the stream that it sends."""
    connection.cancel(pending)
    if pending.stream is not None:
        pending.stream.close()


def _again(start: Callable[[], T], attempts: Attempts) -> T:
    """What `start` gives, by as many attempts as may be made."""
    while True:
        try:
            return start()
        except SlabwireError as error:
            pause_s = attempts.pause_s(error, now_ns())
            if pause_s is None:
                raise
        time.sleep(pause_s)


def withdrawn_error(whose: str) -> ClientClosed:
    """What the reader of a stream hears whose own thread or task has stopped the graph."""
    return ClientClosed(f"{whose} was stopped by whoever was to read this stream")
