"""Lane, slab and leases against a plain model, with deaths of either end as steps."""

from __future__ import annotations

import gc
from collections import deque
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge import Edge, Record, array_of, lease_of_record, lend, peek, send_block, send_number, write_record
from slabwire.shm.consumer import Consumer
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer
from slabwire.shm.slab import Slab

CAPACITY, LEASES = 4, 6
NBYTES = 200


class EdgeMachine(RuleBasedStateMachine):
    """The model: what was published and not given back, and which arrays the reader keeps.

    To *abandon* an end is to drop its objects with no clean-up, as a death does; arrays of a dead reader are nobody's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.edge = Edge(CAPACITY, LEASES)
        self.producer: Producer = self.edge.producer()
        self.consumer: Consumer = self.edge.consumer()
        self.pool: Pool = self.edge.pool(self.producer)
        self.pool.join(self.edge.grow(2048, 8))
        self.slab: Slab = self.edge.slab(1)
        self.sent = 0
        self.taken = 0
        self.waiting: deque[tuple[int, bool]] = deque()
        self.kept: list[tuple[int, Any]] = []
        self.loans: list[Any] = []
        self.abandoned: list[object] = []

    # -- the producer ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.waiting) < CAPACITY)
    @rule()
    def send_inline(self) -> None:
        assert self.producer.free_records()
        send_number(self.producer, self.sent)
        self._was_sent(is_block=False)

    @precondition(lambda self: len(self.waiting) < CAPACITY)
    @rule()
    def send_in_block(self) -> None:
        assert self.producer.free_records()
        if not self.producer.can_lend() or not self._has_block():
            return
        send_block(self.producer, self.pool, self.sent, NBYTES)
        self._was_sent(is_block=True)

    def _was_sent(self, *, is_block: bool) -> None:
        self.waiting.append((self.sent, is_block))
        self.sent += 1

    def _has_block(self) -> bool:
        self.producer.reap()
        self.pool.collect()
        return self.pool.stats()["free"] > 0

    @rule(value=st.integers(0, 250))
    def take_a_loan(self, value: int) -> None:
        if self._has_block() and len(self.loans) < 2:
            loan = self.pool.loan((NBYTES,), "u1")
            loan[:] = value
            self.loans.append((value, loan[::-1]))

    @precondition(lambda self: self.loans)
    @rule()
    def drop_a_loan(self) -> None:
        self.loans.pop(0)

    @rule()
    def reap(self) -> None:
        self.producer.reap()

    # -- the consumer ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.waiting)
    @rule(keep=st.booleans())
    def take(self, keep: bool) -> None:
        assert self.consumer.available()
        value, is_block = self.waiting.popleft()
        array = self._look(value, is_block=is_block)
        self.consumer.commit()
        self.taken += 1
        if keep and array is not None:
            self.kept.append((value, array[3:]))

    def _look(self, value: int, *, is_block: bool) -> Any:
        record = peek(self.consumer)
        assert (record.value, record.generation > 0) == (value, is_block)
        if not is_block:
            return None
        array = array_of(lease_of_record(self.consumer, record, self.consumer.cursor, self.slab), NBYTES)
        assert set(array.tolist()) == {value % 251}
        return array

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 100))
    def let_go(self, which: int) -> None:
        self.kept.pop(which % len(self.kept))

    # -- deaths ------------------------------------------------------------------------------------------------------

    @rule(half=st.sampled_from(["nothing", "taken", "lent", "written"]))
    def producer_dies(self, half: str) -> None:
        """Also in the middle of sending: with a block taken, lent, or a record written and not published."""
        if half != "nothing" and self._has_block() and self.producer.free_records() and self.producer.can_lend():
            block = self.pool.take(NBYTES)
            if half == "lent":
                lend(self.producer, block, 999)
            elif half == "written":
                write_record(self.producer, Record(999))
        self.pool._reap = lambda: None
        self.abandoned += [self.pool, self.producer]
        self.loans.clear()
        self.producer = self.edge.producer()
        self.pool = self.edge.recovered_pool(self.producer)
        assert self.producer.head == self.sent

    @rule(half=st.booleans())
    def consumer_dies(self, half: bool) -> None:
        """Also with a record read and not given back: its successor sees it again."""
        if half and self.waiting:
            assert self.consumer.available()
            value, is_block = self.waiting[0]
            self._forget(self._look(value, is_block=is_block))
        for _, array in self.kept:
            self._forget(array)
        self.kept.clear()
        self.consumer = self.edge.consumer()
        assert self.consumer.available() == len(self.waiting)
        self.consumer.release_all_but(self._rows_waiting())

    def _forget(self, array: Any) -> None:
        """A dead reader's lease says nothing when it goes."""
        if array is not None:
            base = array
            while not hasattr(base, "lease"):
                base = base.base
            base.lease.source = None

    def _rows_waiting(self) -> set[int]:
        rows = set()
        while self.consumer.available():
            record = peek(self.consumer)
            rows |= {record.row} if record.generation else set()
            self.consumer.cursor += 1
        self.consumer.cursor = self.consumer.tail
        return rows

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def kept_arrays_have_not_changed(self) -> None:
        for value, array in self.kept:
            assert set(array.tolist()) == {value % 251}
        for value, loan in self.loans:
            assert set(loan.tolist()) == {value}

    @invariant()
    def what_was_sent_waits_or_was_taken(self) -> None:
        assert self.producer.waiting == self.consumer.waiting() == len(self.waiting) == self.sent - self.taken

    @invariant()
    def no_block_is_missing_and_none_is_there_twice(self) -> None:
        stats = self.pool.stats()
        assert stats["out"] + stats["free"] == 8
        assert stats["used_nbytes"] == stats["out"] * 2048
        free = [block.index for block in self.pool._free[2048]]
        assert len(set(free)) == len(free)
        lent = {holder.index for _, holder in self.producer.holders.values()}  # type: ignore[attr-defined]
        assert not lent & set(free)

    def teardown(self) -> None:
        """When all is let go, everything comes back."""
        while self.waiting:
            self.take(keep=False)
        self.kept.clear()
        self.loans.clear()
        gc.collect(0)
        self.producer.reap()
        self.pool.collect()
        assert self.pool.blocks_out == 0
        assert self.pool.stats()["free"] == 8
        assert len(self.producer._free_rows) == LEASES
        self.pool.close()
        self.edge.close()


EdgeMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEdge = EdgeMachine.TestCase
