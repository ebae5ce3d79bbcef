"""The engine's bookkeeping, over a network that is small enough to know by heart: every answer must be its own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recital import CONTEXT, SMALL, engine_of, recited, sequence_of
from slabwire.actors.llm.engine.engine import CHUNK, CHUNK_BESIDE_OTHERS, Engine
from slabwire.actors.llm.engine.sampler import BadLogits, Sampler
from slabwire.actors.llm.engine.sequence import Sequence
from slabwire.actors.llm.engine.slots import STEP_TOKENS, Slots


def drain(engine: Engine, answers: dict[Sequence, tuple[str, str | None]]) -> None:
    for output in engine.step():
        text, reason = answers.get(output.sequence, ("", None))
        assert reason is None, "nothing comes after the end"
        answers[output.sequence] = text + output.text, output.finish_reason


prompts = st.lists(st.integers(1, 40), min_size=2, max_size=90)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.tuples(prompts, st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=8),
    count=st.integers(1, 4),
    exact=st.booleans(),
    leaving=st.sets(st.integers(0, 7)),
)
def test_every_answer_is_its_own(
    asked: list[tuple[list[int], int, int]], count: int, exact: bool, leaving: set[int]
) -> None:
    """Whoever else comes, waits, ends or is cancelled meanwhile."""
    with engine_of(count, exact=exact) as (engine, _):
        answers: dict[Sequence, tuple[str, str | None]] = {}
        sequences = []
        for index, (prompt, limit, steps) in enumerate(asked):
            sequences.append(sequence_of(prompt, limit))
            engine.admit(sequences[-1])
            for _ in range(steps):
                drain(engine, answers)
            if index in leaving:
                engine.cancel(sequences[index])
        while engine.has_work:
            drain(engine, answers)
        for index, sequence in enumerate(sequences):
            expected = recited(*asked[index][:2])
            text, reason = answers.get(sequence, ("", None))
            if index in leaving and reason is None:
                assert expected[0].startswith(text)
            else:
                assert (text, reason) == expected
        assert (engine.running, engine.waiting) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(prompt=prompts, known=st.integers(0, 90), other=prompts, sizes=st.lists(st.integers(1, 32), max_size=6))
def test_a_known_beginning_gives_the_same_answer(
    prompt: list[int], known: int, other: list[int], sizes: list[int]
) -> None:
    """Pages hold what another sequence with this beginning has left in its slot."""
    with engine_of(2) as (engine, network):
        first = sequence_of(prompt[:known] + other, 1)
        engine.admit(first)
        while engine.has_work:
            engine.step()
        pages: list[tuple[NDArray[np.float32], int]] = []
        start = 0
        for size in sizes:
            tokens = min(size, min(known, len(prompt)) - start)
            if tokens > 0:
                rows = np.full((2, 1, 32, 16), np.nan, np.float32)
                engine.slots.save(first.slot, start, tokens, rows)
                pages.append((rows, tokens))
                start += tokens
        network.chunks.clear()
        second = sequence_of(prompt, 8)
        second.held = True
        answers: dict[Sequence, tuple[str, str | None]] = {}
        engine.admit(second)
        assert not engine.has_work or engine.step() == []
        assert engine.seat() == [second]
        assert not engine.has_work
        for rows, tokens in pages:
            engine.load(second, rows, tokens)
        second.held = False
        while engine.has_work:
            drain(engine, answers)
        assert answers[second] == recited(prompt, 8)
        assert second.cached == min(start, len(prompt) - 2)
        assert sum(network.chunks) == len(prompt) - second.cached


@given(length=st.integers(2, 250))
def test_no_chunk_is_a_single_token(length: int) -> None:
    with engine_of(1) as (engine, network):
        engine.admit(sequence_of([1] * length, 1))
        while engine.has_work:
            engine.step()
        assert sum(network.chunks) == length
        assert all(2 <= chunk <= CHUNK + 1 for chunk in network.chunks)


def test_others_are_held_up_by_short_chunks_only() -> None:
    with engine_of(2) as (engine, network):
        talker = sequence_of([4, 1], 200)
        engine.admit(talker)
        engine.step()
        network.chunks.clear()
        engine.admit(sequence_of([2] * 200, 1))
        tokens = 0
        while len(network.chunks) < 5:
            tokens += sum(output.sequence is talker for output in engine.step())
        assert network.chunks == [CHUNK_BESIDE_OTHERS] * 5
        assert tokens == 5


def test_prompts_take_turns() -> None:
    """A short one does not wait for the end of those that came before it."""
    with engine_of(3) as (engine, network):
        sequences = [sequence_of([5] * length, 1) for length in (200, 200, 20)]
        for each in sequences:
            engine.admit(each)
        ended: list[Sequence] = []
        while engine.has_work:
            ended += [output.sequence for output in engine.step() if output.is_last]
        assert ended[0] is sequences[2]
        assert len(network.chunks) == 4 + 4 + 1


def test_one_that_fails_ends_alone() -> None:
    class Choosy(Sampler):
        def choose(self, logits: NDArray[np.float32]) -> int:
            raise BadLogits("not a number")

    with engine_of(2) as (engine, _):
        good, bad = sequence_of([7, 8, 9], 4), Sequence([3, 4], limit=4, sampler=Choosy(0))
        engine.admit(bad)
        engine.admit(good)
        answers: dict[Sequence, tuple[str, str | None]] = {}
        failed = []
        while engine.has_work:
            for output in engine.step():
                if output.error is not None:
                    failed.append(output.sequence)
                else:
                    text, _ = answers.get(output.sequence, ("", None))
                    answers[output.sequence] = text + output.text, output.finish_reason
        assert failed == [bad]
        assert answers[good] == recited([7, 8, 9], 4)


def test_exact_never_decodes_alone() -> None:
    with engine_of(3, exact=True) as (engine, network):
        engine.admit(sequence_of([3, 4], 6))
        while engine.has_work:
            engine.step()
        assert set(network.batches) == {2}


def test_a_slot_takes_memory_as_it_grows() -> None:
    with engine_of(2) as (engine, _):
        assert engine.slots.nbytes_held == 0
        engine.admit(sequence_of([1, 2], 1))
        engine.step()
        assert engine.slots.nbytes_held == min(STEP_TOKENS, CONTEXT) * 2 * 16 * 4


def test_a_page_that_is_not_full_holds_nothing_of_what_was_in_its_block() -> None:
    slots = Slots(SMALL, 1, CONTEXT)
    slots.hold(0, 8)
    slots.array[:, 0, :, :8] = 1
    page = np.full((*slots.array.shape[:1], slots.array.shape[2], 8, slots.array.shape[4]), 77, np.float32)
    slots.save(0, 2, 5, page)
    assert np.all(page[:, :, :5] == 1)
    assert np.all(page[:, :, 5:] == 0)
    slots.close()
