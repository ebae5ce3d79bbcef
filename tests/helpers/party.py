"""A party at an exchange, driven step by step: in this process, or in one of its own that obeys over a pipe."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exchange import Exchange
from slabwire.runtime.message.header import Header, Kind, read_header
from slabwire.runtime.message.lending import holder_of
from slabwire.runtime.message.payload import Payload
from slabwire.shm.consumer import Consumer
from slabwire.shm.lease import Lease


class Party:
    """One endpoint and what it keeps. Every method takes and returns plain data, so that it may be called from afar."""

    def __init__(self, exchange: Exchange, identifier: int) -> None:
        self.endpoint = exchange.endpoint(identifier)
        self.table = exchange.table(identifier)
        rows = [left for left in self.table.live() if left.row]
        self.endpoint.recover((left.lane, read_header(self.table.record(left.row), 0)) for left in rows)
        self.kept: dict[str, Any] = {}

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, lanes: list[int], value: Any) -> list[bool]:
        """Sends one value along lanes, packed once; for each whether it had room."""
        return self._publish(lanes, value)

    def send_loan(self, lanes: list[int], value: NDArray[Any]) -> list[bool]:
        """The same, written in place into a loan of the pool."""
        loan = self.endpoint.pool.loan(value.shape, value.dtype)
        loan[...] = value
        return self._publish(lanes, loan)

    def send_part_of_loan(self, lanes: list[int], length: int, start: int, step: int) -> list[bool]:
        """Every `step`-th number of a loan that counts from 0."""
        loan = self.endpoint.pool.loan((length,), np.int64)
        loan[:] = np.arange(length)
        return self._publish(lanes, loan[start::step])

    def forward(self, name: str, lanes: list[int]) -> list[bool]:
        """Sends on what was kept by that name."""
        return self._publish(lanes, self.kept[name])

    def _publish(self, lanes: list[int], value: Any) -> list[bool]:
        payload = Payload(value, self.endpoint.pool)
        producers = [self.endpoint.producers[each] for each in lanes]
        went = []
        for producer in producers:
            went.append(payload.can_go(producer))
            if went[-1]:
                payload.publish(producer, Kind.DATA, 0, (0,) * 13)
        payload.close()
        return went

    def write(self, lane: int, value: Any) -> None:
        """Writes a record, block and all, and does not publish it."""
        producer = self.endpoint.producers[lane]
        payload = Payload(value, self.endpoint.pool)

        class Unpublished:
            def __getattr__(self, name: str) -> Any:
                return (lambda: None) if name == "publish" else getattr(producer, name)

        payload.publish(Unpublished(), Kind.DATA, 0, (0,) * 13)  # type: ignore[arg-type]
        self.kept["written"] = payload

    def take_loan(self, name: str, nbytes: int, fill: int) -> None:
        self.kept[name] = self.endpoint.pool.loan((nbytes,), np.uint8)
        self.kept[name][:] = fill

    # -- receiving ---------------------------------------------------------------------------------------------------

    def available(self, lane: int) -> int:
        return self.endpoint.consumers[lane].available()

    def receive(self, lane: int, keep: str = "") -> Any:
        """The next value; by a name it is kept as well."""
        value = self.look(lane, keep)
        self.endpoint.consumers[lane].commit()
        return value

    def look(self, lane: int, keep: str = "") -> Any:
        """The next value, whose record is not given back."""
        consumer = self.endpoint.consumers[lane]
        if not consumer.available():
            raise LookupError(f"lane {lane} is empty")
        value = self.endpoint.open(consumer, _header(consumer), consumer.cursor)
        if keep:
            self.kept[keep] = value
        return _copied(value)

    # -- inputs that outlive their record ----------------------------------------------------------------------------

    def begin(self, lane: int) -> int:
        """Copies the next record into the table and gives it back; its value is kept by the name of its row."""
        consumer = self.endpoint.consumers[lane]
        value = self.look(lane, keep="begun")
        row = self.table.keep(lane, consumer.cursor, 1, consumer.record(consumer.cursor))
        consumer.commit()
        self.kept[f"row {row}"] = self.kept.pop("begun")
        del value
        return row

    def begin_again(self) -> dict[int, tuple[int, Any]]:
        """What a predecessor had begun: by row, which attempt this is, and the value, which is kept."""
        found = {}
        for left in self.table.live():
            self.table.restart(left.row, left.attempt + 1)
            record = self.table.record(left.row)
            value = self.endpoint.open(self.endpoint.consumers[left.lane], read_header(record, 0), left.sequence)
            self.kept[f"row {left.row}"] = value
            found[left.row] = left.attempt + 1, _copied(value)
        return found

    def finish(self, row: int) -> None:
        self.table.clear(row)
        del self.kept[f"row {row}"]

    # -- what is kept ------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> tuple[str, tuple[int, ...], bool]:
        """Dtype, shape, and whether it may be written, of what is kept."""
        array = self.kept[name]
        return array.dtype.name, array.shape, array.flags.writeable

    def contents(self, name: str) -> Any:
        return _copied(self.kept[name])

    def view(self, name: str, of: str, way: Callable[[Any], Any]) -> None:
        """Keeps a view of what is kept; of `way` only its name goes to another process."""
        self.kept[name] = way(self.kept[of])

    def let_go(self, name: str) -> None:
        del self.kept[name]

    # -- blocks ------------------------------------------------------------------------------------------------------

    def out(self) -> int:
        """Blocks that are out, after a look for those that came back."""
        self.endpoint.reap()
        return self.endpoint.pool.blocks_out

    def free(self) -> int:
        self.endpoint.reap()
        return self.endpoint.pool.stats()["free"]

    def stats(self, lane: int, role: str) -> dict[str, int]:
        end = (self.endpoint.producers if role == "producer" else self.endpoint.consumers)[lane]
        return end.stats()

    def write_again(self, fill: int) -> None:
        """Takes every free block and fills it: what somebody still reads must not be among them."""
        pool = self.endpoint.pool
        self.endpoint.reap()
        blocks = [pool.take(size) for size, free in list(pool._free.items()) for _ in range(len(free))]
        for block in blocks:
            np.frombuffer(block.bytes(), np.uint8)[:] = fill
        for block in blocks:
            pool.reclaim(block)

    # -- ends --------------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Makes this object harmless, as if its process had been killed: nothing of it says anything any more."""
        for value in [*self.kept.values()]:
            for array in _arrays(value):
                if isinstance(lease := holder_of(array), Lease):
                    lease.source = None  # type: ignore[assignment]
        for producer in self.endpoint.producers.values():
            for _, holder in producer.holders.values():
                if hasattr(holder, "source"):
                    holder.source = None
            producer.holders.clear()
            producer.forwards.clear()

    def close(self) -> None:
        self.kept.clear()
        self.endpoint.close()


def _header(consumer: Consumer) -> Header:
    return read_header(consumer.segment.bytes, consumer.offset())


def _arrays(value: Any) -> list[NDArray[Any]]:
    if isinstance(value, np.ndarray):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [array for each in inner for array in _arrays(each)]


def _copied(value: Any) -> Any:
    """The same value without shared memory."""
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


class Driven(Protocol):
    """A party wherever it is."""

    def do(self, what: str, *arguments: Any, **named: Any) -> Any: ...
    def die(self) -> None: ...
    def close(self) -> None: ...


class Here:
    """In this process, with mappings of its own."""

    def __init__(self, exchange: Exchange, identifier: int) -> None:
        self._party: Party | None = Party(exchange, identifier)
        self._abandoned: list[Party] = []

    def do(self, what: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self._party, what)(*arguments, **named)

    def die(self) -> None:
        if self._party is not None:
            self._party.abandon()
            self._abandoned.append(self._party)  # nothing of it may be collected while others go on
            self._party = None

    def close(self) -> None:
        for each in (self._party, *self._abandoned):
            if each is not None:
                each.close()
        self._party = None
        self._abandoned.clear()


class There:
    """In a process of its own."""

    def __init__(self, exchange: Exchange, identifier: int) -> None:
        self._pipe, far = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                self._pipe.close()
                _obey(Party(exchange, identifier), far)
                status = 0
            finally:
                os._exit(status)
        far.close()
        self._pipe.recv()  # it is there, and has taken over

    def do(self, what: str, *arguments: Any, **named: Any) -> Any:
        _say(self._pipe, (what, arguments, named))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def die(self) -> None:
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def close(self) -> None:
        if self._pid:
            _say(self._pipe, ("close", (), {}))
            self._end(0, 0)

    def _end(self, by: int, status: int) -> None:
        if self._pid:
            os.kill(self._pid, by)
            assert os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]) == status
            self._pid = 0
            self._pipe.close()


def _obey(party: Party, pipe: Connection) -> None:
    _say(pipe, "ready")
    while True:
        what, arguments, named = pipe.recv()
        try:
            answer = getattr(party, what)(*arguments, **named)
        except Exception as error:
            answer = error
        if what == "close":
            return
        _say(pipe, answer)


def _say(pipe: Connection, what: Any) -> None:
    pipe.send_bytes(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))  # below 5 an array loses its order of bytes


KINDS: dict[str, type[Here] | type[There]] = {"one process": Here, "two processes": There}
