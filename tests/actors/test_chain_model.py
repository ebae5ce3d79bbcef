"""Fan-out, forwarding, growth and in-flight tables against a plain model, with deaths of every party as steps."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exchange import Exchange
from party import Here

OWNER, LEFT, RIGHT = 1, 2, 3
CAPACITY, LEASES, MOST_KEPT, ROWS = 4, 64, 8, 7
LENGTH = 60  # numbers of 8 bytes: a block


class ChainMachine(RuleBasedStateMachine):
    """One party sends to two others, of which the left one forwards to the right one as well.

    The model: which values wait in which lane, and which are kept or begun by whom. A value's block is out as long as
    it is anywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exchange = Exchange(OWNER, LEFT, RIGHT, may_grow=True)
        connect = self.exchange.connect
        self.to_left, self.to_right = connect(OWNER, LEFT, CAPACITY, LEASES), connect(OWNER, RIGHT, CAPACITY, LEASES)
        self.onward = connect(LEFT, RIGHT, CAPACITY, LEASES)
        self.exchange.add_slab(OWNER, 2048, 1)  # so that it grows at once
        self.parties = {each: Here(self.exchange, each) for each in (OWNER, LEFT, RIGHT)}
        self.lanes: dict[int, deque[int]] = {each: deque() for each in (self.to_left, self.to_right, self.onward)}
        self.kept: dict[int, dict[str, int]] = {LEFT: {}, RIGHT: {}}
        self.begun: dict[int, dict[int, list[int]]] = {LEFT: {}, RIGHT: {}}
        self.sent = 0

    def _into(self, who: int) -> list[int]:
        return [self.to_left] if who == LEFT else [self.to_right, self.onward]

    def _waiting(self, who: int) -> list[int]:
        return [lane for lane in self._into(who) if self.lanes[lane]]

    # -- sending -----------------------------------------------------------------------------------------------------

    @rule(fan=st.sampled_from(["left", "right", "both"]), loaned=st.booleans())
    def send(self, fan: str, loaned: bool) -> None:
        lanes = {"left": [self.to_left], "right": [self.to_right], "both": [self.to_left, self.to_right]}[fan]
        went = self.parties[OWNER].do("send_loan" if loaned else "send", lanes, np.full(LENGTH, self.sent))
        self._went(lanes, went, self.sent)
        self.sent += 1

    def _went(self, lanes: list[int], went: list[bool], value: int) -> None:
        assert went == [len(self.lanes[lane]) < CAPACITY for lane in lanes]
        for lane, gone in zip(lanes, went, strict=True):
            if gone:
                self.lanes[lane].append(value)

    @precondition(lambda self: self.kept[LEFT])
    @rule(which=st.integers(0, 100))
    def forward(self, which: int) -> None:
        name = sorted(self.kept[LEFT])[which % len(self.kept[LEFT])]
        self._went([self.onward], self.parties[LEFT].do("forward", name, [self.onward]), self.kept[LEFT][name])

    # -- receiving ---------------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from([LEFT, RIGHT]), which=st.integers(0, 1), keep=st.booleans())
    def take(self, who: int, which: int, keep: bool) -> None:
        waiting = self._waiting(who)
        if waiting and len(self.kept[who]) < MOST_KEPT:
            lane = waiting[which % len(waiting)]
            value = self.lanes[lane].popleft()
            name = f"{value} by {lane} after {self.sent} and {len(self.lanes[lane])}" if keep else ""
            assert set(self.parties[who].do("receive", lane, name).tolist()) == {value}
            if keep:
                self.kept[who][name] = value

    @rule(who=st.sampled_from([LEFT, RIGHT]), which=st.integers(0, 100))
    def let_go(self, who: int, which: int) -> None:
        if self.kept[who]:
            name = sorted(self.kept[who])[which % len(self.kept[who])]
            self.parties[who].do("let_go", name)
            del self.kept[who][name]

    @rule(who=st.sampled_from([LEFT, RIGHT]), which=st.integers(0, 1))
    def begin(self, who: int, which: int) -> None:
        waiting = self._waiting(who)
        if waiting and len(self.begun[who]) < ROWS:
            lane = waiting[which % len(waiting)]
            row = self.parties[who].do("begin", lane)
            assert row not in self.begun[who]
            self.begun[who][row] = [self.lanes[lane].popleft(), 1]

    @rule(who=st.sampled_from([LEFT, RIGHT]), which=st.integers(0, 100))
    def finish(self, who: int, which: int) -> None:
        if self.begun[who]:
            row = sorted(self.begun[who])[which % len(self.begun[who])]
            self.parties[who].do("finish", row)
            del self.begun[who][row]

    # -- deaths ------------------------------------------------------------------------------------------------------

    @rule(half=st.sampled_from(["nothing", "loaned", "written"]))
    def owner_dies(self, half: str) -> None:
        if half == "loaned":
            self.parties[OWNER].do("take_loan", "mine", LENGTH * 8, 1)
        elif half == "written" and len(self.lanes[self.to_left]) < CAPACITY:
            self.parties[OWNER].do("write", self.to_left, np.full(LENGTH, 999))
        self._replace(OWNER)

    @rule(who=st.sampled_from([LEFT, RIGHT]), looking=st.booleans())
    def reader_dies(self, who: int, looking: bool) -> None:
        """Also with a record in hand that it has not given back."""
        if looking and self._waiting(who):
            self.parties[who].do("look", self._waiting(who)[0], keep="in hand")
        self._replace(who)
        self.kept[who].clear()
        again = self.parties[who].do("begin_again")
        for state in self.begun[who].values():
            state[1] += 1
        assert {row: [int(value[0]), attempt] for row, (attempt, value) in again.items()} == self.begun[who]

    def _replace(self, who: int) -> None:
        self.parties[who].die()
        self.abandoned = [*getattr(self, "abandoned", []), self.parties[who]]
        self.parties[who] = Here(self.exchange, who)

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def what_is_kept_has_not_changed(self) -> None:
        for who, kept in self.kept.items():
            for name, value in kept.items():
                assert set(self.parties[who].do("contents", name).tolist()) == {value}
            for row, (value, _) in self.begun[who].items():
                assert set(self.parties[who].do("contents", f"row {row}").tolist()) == {value}

    @invariant()
    def as_many_wait_as_were_sent_and_not_taken(self) -> None:
        for who in (LEFT, RIGHT):
            for lane in self._into(who):
                assert self.parties[who].do("stats", lane, "consumer")["waiting"] == len(self.lanes[lane])

    @invariant()
    def a_block_is_out_as_long_as_its_value_is_anywhere(self) -> None:
        living = {value for lane in self.lanes.values() for value in lane}
        living |= {value for kept in self.kept.values() for value in kept.values()}
        living |= {value for begun in self.begun.values() for value, _ in begun.values()}
        self.parties[LEFT].do("out")  # it lets go of what its reader has let go of
        assert self.parties[OWNER].do("out") == len(living)

    def teardown(self) -> None:
        for each in (*self.parties.values(), *getattr(self, "abandoned", [])):
            each.close()
        self.exchange.close()


ChainMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChain = ChainMachine.TestCase
