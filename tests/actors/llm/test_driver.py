"""The engine as its driver turns it: who comes, goes, waits for pages or ends meanwhile, and what is told of a step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recital import Recital, engine_of, recited, sequence_of
from slabwire import Draining
from slabwire.actors.llm.driver import Driver
from slabwire.actors.llm.engine.engine import Engine
from slabwire.actors.llm.engine.sampler import Sampler
from slabwire.actors.llm.engine.sequence import Output, Sequence

PROMPT = [7, 8, 9]
# Of the loop. The driver steps in each turn: nothing here takes a thousand of them.
MOST_TURNS = 10_000


class Driven:
    """An engine with its driver, and all that was told of it."""

    def __init__(self, engine: Engine, network: Recital) -> None:
        self.engine, self.network = engine, network
        self.steps: list[list[Output]] = []
        self.ended: list[Sequence] = []
        self.driver = Driver(engine, self.steps.append, self._note_end)

    def _note_end(self, sequence: Sequence) -> None:
        held = self.engine.slots.array[0, sequence.slot, 0, : sequence.done, 0]
        assert held.astype(int).tolist() == sequence.tokens[: sequence.done]
        self.ended.append(sequence)

    def outputs(self, sequence: Sequence) -> list[Output]:
        return [output for step in self.steps for output in step if output.sequence is sequence]

    def answer(self, sequence: Sequence) -> tuple[str, str | None]:
        """Its text so far, and why it ended."""
        outputs = self.outputs(sequence)
        assert not any(each.is_last for each in outputs[:-1]), "nothing comes after the end"
        return "".join(each.text for each in outputs), outputs[-1].finish_reason if outputs else None

    def error(self, sequence: Sequence) -> Exception | None:
        return self.outputs(sequence)[-1].error

    async def idle(self) -> None:
        """Waits until the engine has nothing to do."""
        await turn_until(lambda: not self.engine.has_work)

    async def steps_more(self, count: int) -> None:
        """Waits until so many more steps have given something."""
        wanted = len(self.steps) + count
        await turn_until(lambda: len(self.steps) >= wanted)


async def turn_until(is_so: Callable[[], bool]) -> None:
    """Lets the loop turn until something is so."""
    for _ in range(MOST_TURNS):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("the engine does not turn")


def drive(slots: int, act: Callable[[Driven], Awaitable[None]]) -> None:
    """Runs `act` beside the driver of an engine, and closes that."""

    async def main(engine: Engine, network: Recital) -> None:
        driven = Driven(engine, network)
        try:
            await act(driven)
        finally:
            await driven.driver.close()
        assert (engine.running, engine.waiting, engine.has_work) == (0, 0, False)

    with engine_of(slots) as (engine, network):
        asyncio.run(main(engine, network))


prompts = st.lists(st.integers(1, 40), min_size=2, max_size=90)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(
        st.tuples(prompts, st.integers(1, 12), st.integers(0, 6), st.none() | st.integers(0, 5)),
        min_size=1,
        max_size=8,
    ),
    slots=st.integers(1, 4),
    leaving=st.dictionaries(st.integers(0, 7), st.integers(0, 12)),
)
def test_every_answer_is_its_own(
    asked: list[tuple[list[int], int, int, int | None]], slots: int, leaving: dict[int, int]
) -> None:
    """Whoever else comes, waits for pages, ends or is cancelled meanwhile."""

    async def act(driven: Driven) -> None:
        sequences = [sequence_of(prompt, limit) for prompt, limit, _, _ in asked]

        async def ask(index: int) -> None:
            turns, pages = asked[index][2:]

            async def load(sequence: Sequence) -> None:
                for _ in range(pages or 0):
                    assert sequence.done == 0
                    await asyncio.sleep(0)

            for _ in range(turns):
                await asyncio.sleep(0)
            await driven.driver.admit(sequences[index], load if pages is not None else None)

        async def leave(index: int) -> None:
            for _ in range(leaving[index]):
                await asyncio.sleep(0)
            asking[index].cancel()
            driven.driver.cancel(sequences[index])

        asking = [asyncio.ensure_future(ask(index)) for index in range(len(asked))]
        left = [asyncio.ensure_future(leave(index)) for index in leaving if index < len(asked)]
        await asyncio.gather(*asking, *left, return_exceptions=True)
        await driven.idle()
        for index, sequence in enumerate(sequences):
            expected, answer = recited(*asked[index][:2]), driven.answer(sequence)
            if index in leaving and answer[1] is None:
                assert expected[0].startswith(answer[0])
            else:
                assert answer == expected
        assert {each for each in sequences if driven.answer(each)[1]} == set(driven.ended)
        assert (driven.engine.running, driven.engine.waiting) == (0, 0)

    drive(slots, act)


def test_all_that_a_step_has_made_is_told_at_once() -> None:
    async def act(driven: Driven) -> None:
        sequences = [sequence_of([number, 4, number], 40) for number in range(1, 9)]
        for each in sequences:
            await driven.driver.admit(each)
        await driven.idle()
        tokens = sum(len(each.chosen) for each in sequences)
        assert sum(map(len, driven.steps)) == tokens
        # Prompts are taken in one after the other; from then on each step gives a token to each that is not at its end.
        assert len(driven.steps) <= len(sequences) + max(len(each.chosen) for each in sequences)
        assert all(len({id(output.sequence) for output in step}) == len(step) > 0 for step in driven.steps)

    drive(8, act)


def test_a_slot_is_free_before_the_next_step() -> None:
    async def act(driven: Driven) -> None:
        first, second = sequence_of(PROMPT, 200), sequence_of([3, 4], 1)
        await driven.driver.admit(first)
        await driven.driver.admit(second)
        await driven.steps_more(2)
        assert (driven.engine.running, driven.engine.waiting) == (1, 1)
        driven.driver.cancel(first)
        assert (driven.engine.running, driven.engine.waiting) == (1, 0)
        seen = len(driven.outputs(first))
        await driven.steps_more(1)
        assert driven.answer(second) == recited([3, 4], 1)
        assert len(driven.outputs(first)) == seen
        driven.driver.cancel(first)
        driven.driver.cancel(second)
        driven.driver.cancel(sequence_of(PROMPT, 1))
        assert driven.ended == [second]

    drive(1, act)


def test_others_go_on_while_one_waits_for_its_pages() -> None:
    async def act(driven: Driven) -> None:
        may_load = asyncio.Event()

        async def load(sequence: Sequence) -> None:
            assert sequence.slot >= 0
            await may_load.wait()

        waiting, other = sequence_of(PROMPT, 5), sequence_of([3, 4], 5)
        admitted = asyncio.ensure_future(driven.driver.admit(waiting, load))
        await asyncio.sleep(0)
        await driven.driver.admit(other)
        await driven.idle()
        assert driven.answer(other) == recited([3, 4], 5)
        assert driven.outputs(waiting) == []
        assert not admitted.done()
        may_load.set()
        await admitted
        await driven.idle()
        assert driven.answer(waiting) == recited(PROMPT, 5)

    drive(2, act)


def test_one_that_leaves_while_it_waits_for_pages_makes_room_for_any_other() -> None:
    """For one that has no pages to wait for, with the engine at rest; and for one that is then told to load."""

    async def never(sequence: Sequence) -> None:
        await asyncio.Event().wait()

    async def at_once(sequence: Sequence) -> None:
        assert sequence.slot == 0

    async def act(driven: Driven) -> None:
        for load in (None, at_once):
            gone, other = sequence_of(PROMPT, 5), sequence_of([3, 4], 5)
            held = asyncio.ensure_future(driven.driver.admit(gone, never))
            await asyncio.sleep(0)
            admitted = asyncio.ensure_future(driven.driver.admit(other, load))
            await asyncio.sleep(0)
            assert not driven.engine.has_work
            held.cancel()
            driven.driver.cancel(gone)
            await admitted
            await driven.idle()
            assert driven.answer(other) == recited([3, 4], 5)
            assert driven.outputs(gone) == []

    drive(1, act)


def test_what_loading_raises_is_told_to_who_asked() -> None:
    async def load(sequence: Sequence) -> None:
        raise ValueError("no such page")

    async def act(driven: Driven) -> None:
        sequence = sequence_of(PROMPT, 5)
        with pytest.raises(ValueError, match="no such page"):
            await driven.driver.admit(sequence, load)
        driven.driver.cancel(sequence)
        assert driven.engine.running == 0
        assert driven.steps == []

    drive(1, act)


def test_one_that_fails_ends_alone() -> None:
    class Choosy(Sampler):
        def choose(self, logits: NDArray[np.float32]) -> int:
            raise ValueError("none of these")

    async def act(driven: Driven) -> None:
        good, bad = sequence_of(PROMPT, 4), Sequence([3, 4], limit=4, sampler=Choosy(0))
        await driven.driver.admit(bad)
        await driven.driver.admit(good)
        await driven.idle()
        assert str(driven.error(bad)) == "none of these"
        assert driven.answer(good) == recited(PROMPT, 4)
        assert driven.ended == [good]

    drive(2, act)


def test_a_step_that_fails_ends_those_in_the_making_and_no_later_one() -> None:
    async def act(driven: Driven) -> None:
        may_load = asyncio.Event()

        async def load(sequence: Sequence) -> None:
            await may_load.wait()

        waiting, running, queued = sequence_of(PROMPT, 5), sequence_of([3, 4], 200), sequence_of([5, 6], 5)
        admitted = asyncio.ensure_future(driven.driver.admit(waiting, load))
        await asyncio.sleep(0)
        await driven.driver.admit(running)
        await driven.driver.admit(queued)
        await driven.steps_more(2)
        decode = driven.network.decode

        def fail(first: int, tokens: list[int], done: list[int]) -> NDArray[np.float32]:
            raise MemoryError("no room")

        driven.network.decode = fail  # type: ignore[method-assign]
        await driven.steps_more(1)
        driven.network.decode = decode  # type: ignore[method-assign]
        assert [type(driven.error(each)) for each in (running, queued)] == [MemoryError, MemoryError]
        assert driven.engine.running == 1
        may_load.set()
        await admitted
        await driven.idle()
        assert driven.answer(waiting) == recited(PROMPT, 5)
        assert driven.ended == [waiting]

    drive(2, act)


def test_an_answer_is_told_even_where_what_follows_it_fails() -> None:
    async def act(driven: Driven) -> None:
        def fail(sequence: Sequence) -> None:
            raise ValueError("no memory for its pages")

        driver = Driver(driven.engine, driven.steps.append, fail)
        for prompt in (PROMPT, [3, 4]):
            sequence = sequence_of(prompt, 3)
            await driver.admit(sequence)
            await driven.idle()
            assert driven.answer(sequence) == recited(prompt, 3)
        await driver.close()

    drive(1, act)


def test_closing_ends_what_is_in_the_making() -> None:
    async def act(driven: Driven) -> None:
        async def never(sequence: Sequence) -> None:
            await asyncio.Event().wait()

        running, held, queued = sequence_of(PROMPT, 200), sequence_of([3, 4], 5), sequence_of([5, 6], 5)
        await driven.driver.admit(running)
        loading = asyncio.ensure_future(driven.driver.admit(held, never))
        await asyncio.sleep(0)
        await driven.driver.admit(queued)
        await driven.steps_more(2)
        await driven.driver.close()
        assert [type(driven.error(each)) for each in (running, held, queued)] == [Draining] * 3
        assert driven.ended == []
        assert (driven.engine.running, driven.engine.waiting) == (0, 0)
        with pytest.raises(Draining, match="the model is being stopped"):
            await driven.driver.admit(sequence_of(PROMPT, 1))
        loading.cancel()
        told = len(driven.steps)
        await asyncio.sleep(0.01)
        assert len(driven.steps) == told

    drive(2, act)
