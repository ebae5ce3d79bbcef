"""The engine's bookkeeping, over a network that is small enough to know by heart: every answer must be its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slabwire.actors.llm.engine.engine import CHUNK, CHUNK_BESIDE_OTHERS, Engine
from slabwire.actors.llm.engine.sampler import BadLogits, Sampler
from slabwire.actors.llm.engine.sequence import Sequence
from slabwire.actors.llm.engine.slots import STEP_TOKENS, Slots
from slabwire.actors.llm.model_file.architecture import Architecture

VOCABULARY = 64
END = 0
CONTEXT = 256
SMALL = Architecture(
    layers=1,
    width=16,
    hidden=16,
    heads=1,
    kv_heads=1,
    head_dim=16,
    rope_theta=1e4,
    epsilon=1e-5,
    context=CONTEXT,
    vocabulary=VOCABULARY,
)


def next_token(tokens: list[int]) -> int:
    """What the network below says after these tokens; about every fortieth answer ends in a step."""
    mixed = 17
    for token in tokens:
        mixed = (mixed * 31 + token + 1) % 10007
    return mixed % 40 + 1 if mixed % 41 else END


class Recital:
    """Writes each token where its keys would lie, and judges by all that lies there, as attention does."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.chunks: list[int] = []
        self.batches: list[int] = []

    def _take_in(self, slot: int, tokens: list[int], done: int) -> NDArray[np.float32]:
        self.slots.hold(slot, done + len(tokens))
        rows = self.slots.array[:, slot, 0]
        rows[:, done : done + len(tokens)] = np.array(tokens, np.float32)[None, :, None]
        logits = np.zeros(VOCABULARY, np.float32)
        logits[next_token(rows[0, : done + len(tokens), 0].astype(int).tolist())] = 1
        return logits

    def prefill(self, slot: int, tokens: NDArray[np.int64], done: int) -> NDArray[np.float32]:
        self.chunks.append(len(tokens))
        return self._take_in(slot, tokens.tolist(), done)

    def decode(self, first: int, tokens: list[int], done: list[int]) -> NDArray[np.float32]:
        self.batches.append(len(tokens))
        rows = zip(tokens, done, strict=True)
        return np.stack([self._take_in(first + index, [token], length) for index, (token, length) in enumerate(rows)])


class Letters:
    """A tokenizer whose tokens are letters."""

    def token_bytes(self, token: int) -> bytes:
        return chr(64 + token).encode()

    def is_control(self, token: int) -> bool:
        return token == END


def recited(prompt: list[int], limit: int) -> tuple[str, str]:
    """The whole answer, and why it ends, as one would work it out by hand."""
    tokens, text = list(prompt), ""
    for _ in range(limit):
        token = next_token(tokens)
        if token == END:
            return text, "stop"
        tokens.append(token)
        text += chr(64 + token)
    return text, "length"


@contextmanager
def engine_of(count: int, *, exact: bool = False) -> Iterator[tuple[Engine, Recital]]:
    slots = Slots(SMALL, count, CONTEXT)
    network = Recital(slots)
    try:
        yield Engine(network, slots, Letters(), exact=exact), network  # type: ignore[arg-type]
    finally:
        slots.close()


def sequence_of(prompt: list[int], limit: int) -> Sequence:
    return Sequence(prompt, limit=limit, sampler=Sampler(0))


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
