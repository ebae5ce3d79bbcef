"""The client SDK for ordinary code: `slabwire.connect(...)`, `call`, `stream`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ...shm.bell import now_ns
from ..dataplane.async_calls import message_for
from ..dataplane.caller import Pending, deadline_of, result_of
from ..errors import ClientClosed, Disconnected, Overloaded, SlabwireError, untouched
from ..host.attempt import attempt
from ..message.header import Kind
from .control import ANSWER_WITHIN_S
from .local import LocalConnection
from .retry import Attempts, Retry, key_of, retry_of
from .shared_connection import SharedConnection

if TYPE_CHECKING:
    pass

T = TypeVar("T")

# A call without a timeout of its own waits this long.
CALL_TIMEOUT_S = 60.0
# While a graph is awaited that does not run yet.
LOOK_AGAIN_S = 0.05


class Client:
    """Talks to a running graph on this host through shared memory. Threads may share it; each call blocks its own.

    When the graph has ended, calls in flight fail with Disconnected; the next call connects anew. `retries` is the
    default of its verbs; `wait_s` is how long it waits for a graph that does not run yet. Close it, or use it in a
    `with`. Raises Disconnected if no such graph runs.
    """

    def __init__(self, name: str, *, retries: int | Retry = 0, wait_s: float = 0.0) -> None:
        self.name = name
        self._retry = retry_of(retries)
        self._shared = _awaited(name, deadline_of(wait_s))
        self._renewing = threading.Lock()  # held by the one thread that connects anew
        self._closed = False
        self._streams: dict[Pending, tuple[SharedConnection, int]] = {}  # that are open, with the thread of each

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        spec = self._connection.routing.spec
        return [str(route.entry) for route in spec.routes[: spec.exposed]]

    @property
    def _connection(self) -> LocalConnection:
        return self._shared.local

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
        work began, and with an `idempotency_key` (True makes one) those after, too. Arrays that come back are read-only
        views of shared memory, given back when the last of them dies. Raises DeadlineExceeded, UnknownPort,
        MessageError, OutOfMemory (this client's slabs hold 1 GiB at most), Overloaded, Disconnected, ClientClosed, or
        HandlerError for what the handler raised.
        """
        deadline_ns = deadline_of(timeout_s)
        if retries is None and idempotency_key is None and self._retry is None:
            shared = self._live(deadline_ns)
            message = message_for(shared.local.routing, target, args, fields, inside=False, stream=False)
            pending = shared.begin(target, message, deadline_ns)
            try:
                shared.wait(pending, deadline_ns, target)
            except BaseException:
                shared.cancel(pending)
                raise
            return result_of(*pending.take())
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        _, pending = self._started(target, args, fields, deadline_ns, retry, key, stream=False)
        return result_of(*pending.take())

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

        It may be begun again, as a call, until its first item has come.
        """
        self._check(target, args, fields)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        return self._items(target, args, fields, deadline_of(timeout_s), retry, key)

    def _items(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        retry: Retry | None,
        key: str,
    ) -> Generator[Any, None, None]:
        # The work begins with the first `next`: an iterator that nobody starts is never told that it ends.
        shared, pending = self._started(target, args, fields, deadline_ns, retry, key, stream=True)
        self._streams[pending] = shared, threading.get_ident()
        try:
            while True:
                shared.wait(pending, deadline_ns, target)
                kind = pending.next_kind()
                if kind == Kind.END:
                    return
                yield result_of(*pending.take())  # no name here keeps the item, or the error
                if kind == Kind.REPLY:
                    return
        finally:
            self._streams.pop(pending, None)
            shared.cancel(pending)

    def _started(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        deadline_ns: int,
        retry: Retry | None,
        key: str,
        *,
        stream: bool,
    ) -> tuple[SharedConnection, Pending]:
        """A request of which something has come back, which is no error after which it is made again."""

        def start() -> tuple[SharedConnection, Pending]:
            shared = self._live(deadline_ns)
            message = message_for(shared.local.routing, target, args, fields, inside=False, stream=stream)
            pending = shared.begin(target, message, deadline_ns, key)
            try:
                shared.wait(pending, deadline_ns, target)
                if pending.next_kind() == Kind.ERROR:
                    result_of(*pending.take())
            except BaseException:
                shared.cancel(pending)
                raise
            return shared, pending

        return again(start, Attempts(retry, key, deadline_ns)) if retry is not None else start()

    def _check(self, target: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        """Says at once what is wrong with a request that is sent later."""
        if self._closed:
            raise self._closed_error()
        message_for(self._connection.routing, target, args, fields, inside=False, stream=True)

    def _live(self, deadline_ns: int) -> SharedConnection:
        """The connection, made anew if the graph has ended since. Raises Disconnected."""
        shared = self._shared
        if shared.is_there() and not self._closed:
            return shared
        got: list[bool] = []
        try:
            got += attempt(self._renewing, max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else -1)
            if not got[0]:
                raise late_answer(self.name)
            if self._closed:
                raise self._closed_error()
            if self._shared is shared:
                self._shared = _connected(self.name, deadline_ns)
                shared.close()
            return self._shared
        finally:
            if True in got:
                self._renewing.release()

    def _closed_error(self) -> ClientClosed:
        return ClientClosed(f"this client of graph {self.name!r} is closed")

    def withdraw(self) -> None:
        """Ends the streams that this thread has begun: it is about to wait for something else, and reads none of them.
        What other threads wait for goes on.
        """
        for pending, (shared, thread) in list(self._streams.items()):
            if thread == threading.get_ident():
                shared.fail(
                    pending, ClientClosed(f"graph {self.name!r} was stopped by whoever was to read this stream")
                )

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled. Arrays that were received stay valid."""
        with self._renewing:
            self._closed = True
            self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connected(name: str, deadline_ns: int) -> SharedConnection:
    """Asks once, within the deadline."""
    try:
        return SharedConnection(name, seconds_for_an_answer(deadline_ns))
    except (Disconnected, Overloaded) as error:
        raise untouched(error) from None


def _awaited(name: str, until_ns: int) -> SharedConnection:
    """Asks until the graph runs."""
    while True:
        try:
            return SharedConnection(name, ANSWER_WITHIN_S)
        except Disconnected:
            if now_ns() >= until_ns:
                raise
        time.sleep(LOOK_AGAIN_S)


def seconds_for_an_answer(deadline_ns: int) -> float:
    """How long the supervisor may take to answer, if that must be before a deadline (0: none)."""
    return min(ANSWER_WITHIN_S, max(0.0, (deadline_ns - now_ns()) / 1e9)) if deadline_ns else ANSWER_WITHIN_S


def late_answer(name: str) -> SlabwireError:
    """The error of a call whose time ran out while another one connected anew."""
    return untouched(Disconnected(f"graph {name!r} has ended, and no new one of that name has answered in time"))


def again(start: Callable[[], T], attempts: Attempts) -> T:
    """What `start` gives, by as many attempts as may be made."""
    while True:
        try:
            return start()
        except SlabwireError as error:
            pause_s = attempts.pause_s(error, now_ns())
            if pause_s is None:
                raise
        time.sleep(pause_s)
