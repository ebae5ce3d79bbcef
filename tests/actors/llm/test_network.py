"""What the network computes, to the last bit: it must not depend on chunks, slots, pages, or on who else is there."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm_files import artifacts, checkpoint
from slabwire.actors.completion import PAGE_TOKENS
from slabwire.actors.llm.engine.engine import Engine
from slabwire.actors.llm.engine.network import Network
from slabwire.actors.llm.engine.sampler import Sampler
from slabwire.actors.llm.engine.sequence import Sequence
from slabwire.actors.llm.engine.slots import Slots
from slabwire.actors.llm.model_file.architecture import Architecture
from slabwire.actors.llm.model_file.artifacts import prepare
from slabwire.actors.llm.model_file.gguf import Gguf
from slabwire.actors.llm.text.tokenizer import Tokenizer
from tiny_llm import write_tiny_llm

Floats = NDArray[np.float32]
# So far may logits, which reach 28, move when one row is decoded alone. Some processors have another kernel for that,
# which rounds differently.
ALONE = 1.0
PROMPT = 90
TEXT = """The Thames is a river that flows through southern England including London. At 215 miles it is the longest
river entirely in England and the second-longest in the United Kingdom, after the River Severn. It rises in
Gloucestershire and flows into the North Sea by the Thames Estuary. On its way it passes through Oxford, Reading and
Windsor, and it drains the whole of Greater London. Its tidal part reaches up to Teddington Lock, and has a rise and
fall of seven metres."""


@dataclass(frozen=True)
class Machine:
    """A network with four slots, and text for it."""

    path: Path
    architecture: Architecture
    tokenizer: Tokenizer
    slots: Slots
    network: Network

    def prompt(self, start: int, count: int = PROMPT) -> list[int]:
        """`count` tokens of a text, from the token `start` on."""
        tokens = self.tokenizer.encode(TEXT, special=False)
        return (tokens * 4)[start : start + count]

    def prefill(self, slot: int, prompt: list[int], *, chunk: int = 1 << 20, done: int = 0) -> Floats:
        """Takes in what follows the first `done` tokens; logits of the last."""
        ends = [*range(done + chunk, len(prompt) - 1, chunk), len(prompt)]
        for start, end in zip([done, *ends], ends, strict=False):
            logits = self.network.prefill(slot, np.array(prompt[start:end], np.int64), start)
        return logits.copy()

    def decode(self, first: int, tokens: list[int], done: list[int]) -> Floats:
        return self.network.decode(first, tokens, done).copy()

    def rows(self, slot: int, count: int) -> Floats:
        """Keys and values of the first positions of a slot."""
        return self.slots.array[:, slot, :, :count].copy()

    def spoil(self, slot: int) -> None:
        """Fills a slot with what no answer could survive."""
        self.slots.hold(slot, 2 * PROMPT)
        self.slots.array[:, slot, :, : 2 * PROMPT] = 1e9

    def answers(self, sequences: list[Sequence], pages: Listed[Floats] = ()) -> list[list[int]]:
        """The tokens chosen for each when they are made together, all from the first step on.

        `pages` hold what is known of the first one's prompt.
        """
        engine = Engine(self.network, self.slots, self.tokenizer, exact=True)
        for each in sequences:
            engine.admit(each)
        engine.seat()
        for page in pages:
            engine.load(sequences[0], page, PAGE_TOKENS)
        while engine.has_work:
            engine.step()
        return [each.chosen for each in sequences]


@pytest.fixture(scope="module", params=["smollm2", "tiny"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if request.param == "tiny":
        folder = tmp_path_factory.mktemp("tiny")
        gguf_path = write_tiny_llm(folder)
        path = prepare(gguf_path, cache=folder / "cache", progress=print).model_path
    else:
        gguf_path, path = checkpoint(), artifacts().model_path
    with Gguf(gguf_path) as gguf:
        architecture, tokenizer = Architecture.of(gguf), Tokenizer(gguf.metadata)
    slots = Slots(architecture, 4, 512)
    network = Network(path, architecture, slots, threads=1)
    yield Machine(path, architecture, tokenizer, slots, network)
    slots.close()


def equal(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left, right))


@pytest.mark.parametrize("chunk", [2, 3, 16, 31, 64])
def test_it_does_not_matter_where_a_prompt_is_cut(machine: Machine, chunk: int) -> None:
    prompt = machine.prompt(0)
    whole = machine.prefill(0, prompt)
    machine.spoil(1)
    assert equal(machine.prefill(1, prompt, chunk=chunk), whole)
    assert equal(machine.rows(1, PROMPT), machine.rows(0, PROMPT))


@pytest.mark.parametrize("known", [2 * PAGE_TOKENS, PROMPT - 2, 40])
def test_pages_of_another_slot_are_as_good_as_computed(machine: Machine, known: int) -> None:
    """The last page is cut where the prompts part; what lies behind it is not looked at."""
    prompt = machine.prompt(0, known) + machine.prompt(200, PROMPT - known)
    computed = machine.prefill(0, prompt)
    machine.prefill(2, machine.prompt(0, known) + machine.prompt(100, 40))
    layers, _, heads, _, components = machine.slots.array.shape
    machine.spoil(3)
    for start in range(0, known, PAGE_TOKENS):
        page = np.full((layers, heads, PAGE_TOKENS, components), 1e9, np.float32)
        machine.slots.save(2, start, PAGE_TOKENS, page)
        machine.slots.load(3, start, page, min(PAGE_TOKENS, known - start))
    assert equal(machine.prefill(3, prompt, done=known), computed)
    assert equal(machine.rows(3, PROMPT), machine.rows(0, PROMPT))


def seat(machine: Machine) -> tuple[list[int], list[int]]:
    """Fills all slots to different lengths: a next token for each, and the lengths."""
    done = [PROMPT, 17, 64, 33]
    logits = [machine.prefill(slot, machine.prompt(50 * slot, length)) for slot, length in enumerate(done)]
    return [int(each.argmax()) for each in logits], done


def test_a_row_of_several_does_not_depend_on_how_many(machine: Machine) -> None:
    tokens, done = seat(machine)
    together = machine.decode(0, tokens, done)
    for first, end in ((0, 2), (1, 3), (2, 4), (0, 3), (1, 4)):
        assert equal(machine.decode(first, tokens[first:end], done[first:end]), together[first:end])


@pytest.mark.parametrize("machine", ["smollm2"], indirect=True)
def test_a_row_alone_is_nearly_the_same(machine: Machine) -> None:
    tokens, done = seat(machine)
    together = machine.decode(0, tokens, done)
    alone = np.concatenate([machine.decode(slot, [tokens[slot]], [done[slot]]) for slot in range(4)])
    assert np.abs(alone - together).max() < ALONE
    assert (alone.argmax(1) == together.argmax(1)).sum() >= 3


def test_a_slot_that_takes_its_prompt_in_is_not_harmed_by_others_that_decode(machine: Machine) -> None:
    prompt = machine.prompt(100)
    whole, rows = machine.prefill(1, prompt), machine.rows(1, PROMPT)
    tokens, done = seat(machine)
    apart = machine.decode(0, tokens, done)
    machine.spoil(1)
    for start in range(0, PROMPT, 30):
        beside = machine.decode(0, [tokens[0], 0, *tokens[2:]], [done[0], start, *done[2:]])
        assert equal(beside[[0, 2, 3]], apart[[0, 2, 3]])
        last = machine.prefill(1, prompt[: start + 30], done=start)
    assert equal(last, whole)
    assert equal(machine.rows(1, PROMPT), rows)


def test_threads_do_not_change_a_bit(machine: Machine) -> None:
    prompt = machine.prompt(10)
    other = Network(machine.path, machine.architecture, machine.slots, threads=2)
    expected = machine.prefill(0, prompt)
    assert equal(other.prefill(1, np.array(prompt, np.int64), 0), expected)
    last = int(expected.argmax())
    expected = machine.decode(0, [last] * 2, [PROMPT] * 2)
    assert equal(other.decode(0, [last] * 2, [PROMPT] * 2), expected)


def asked(machine: Machine) -> list[Sequence]:
    """Two greedy and two seeded answers, of prompts that end at different times."""
    samplers = [Sampler(0), Sampler(0.8, 0.95, 7), Sampler(0), Sampler(1.0, 1.0, 8)]
    lengths = [PROMPT, 9, 70, 33]
    return [
        Sequence(machine.prompt(40 * index, length), limit=16, sampler=sampler)
        for index, (length, sampler) in enumerate(zip(lengths, samplers, strict=True))
    ]


def test_exact_answers_made_together_are_those_made_alone(machine: Machine) -> None:
    together = machine.answers(asked(machine))
    alone = [machine.answers([each])[0] for each in asked(machine)]
    assert together == alone
    assert max(map(len, together)) == 16


def test_an_exact_answer_behind_pages_is_the_same(machine: Machine) -> None:
    first, again = asked(machine)[0], asked(machine)[0]
    (expected,) = machine.answers([first])
    layers, _, heads, _, components = machine.slots.array.shape
    pages = [np.empty((layers, heads, PAGE_TOKENS, components), np.float32) for _ in range(2)]
    for index, page in enumerate(pages):
        machine.slots.save(first.slot, index * PAGE_TOKENS, PAGE_TOKENS, page)
    machine.spoil(first.slot)
    assert machine.answers([again], pages) == [expected]
    assert again.cached == 2 * PAGE_TOKENS
