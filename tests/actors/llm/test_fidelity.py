"""The language model computes what its weights say: its logits beside float32 ones, stored and made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from numpy.typing import NDArray

from llm_files import artifacts, checkpoint
from slabwire.actors.llm.model_file import onnx_network as graph
from slabwire.actors.llm.model_file.architecture import Architecture
from slabwire.actors.llm.model_file.artifacts import Artifacts
from slabwire.actors.llm.model_file.gguf import Gguf
from slabwire.bench.fidelity import fidelity
from slabwire.bench.fidelity.corpus import TEXTS
from slabwire.bench.fidelity.divergence import LEAST_TOP_1, MOST_MEAN_KL, Fidelity
from slabwire.bench.fidelity.fidelity import STORED, TOLERANCE, prompts_of
from slabwire.bench.fidelity.logits import Prompts, decode_logits, prefill_logits
from slabwire.bench.fidelity.reference import reference_logits, rounded
from slabwire.bench.fidelity.stored_reference import StoredReference

Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with Gguf(checkpoint()) as opened:
        yield opened


@pytest.fixture(scope="module")
def stored() -> StoredReference:
    return StoredReference.load(STORED)


@pytest.fixture(scope="module")
def last(stored: StoredReference) -> tuple[NDArray[np.int64], StoredReference]:
    """The last of the stored prompts, and what is stored of it alone."""
    length = int(stored.lengths[-1])
    entries = int(stored.counts[-length:].sum())
    ends = (stored.ids[-entries:], stored.log_probabilities[-entries:], stored.log_rest[-length:])
    alone = StoredReference(stored.model, stored.lengths[-1:], stored.tokens[-length:], stored.counts[-length:], *ends)
    return stored.prompts[-1], alone


@pytest.fixture(scope="module")
def recomputed(gguf: Gguf, last: tuple[NDArray[np.int64], StoredReference]) -> Logits:
    return reference_logits(gguf, [last[0]])[0]


def holds(found: Fidelity) -> None:
    assert found.mean_kl <= MOST_MEAN_KL
    assert found.top_1 >= LEAST_TOP_1
    assert found.is_good


def test_references_are_of_the_model_and_of_the_corpus(gguf: Gguf, stored: StoredReference) -> None:
    assert stored.model == artifacts().sha256
    assert len(stored.prompts) == len(TEXTS)
    assert [each.tolist() for each in prompts_of(gguf)] == [each.tolist() for each in stored.prompts]
    assert len(stored.tokens) >= 270


def test_prefill_is_near_to_float32(gguf: Gguf, stored: StoredReference) -> None:
    holds(stored.fidelity(prefill_logits(artifacts().model_path, Architecture.of(gguf), stored.prompts)))


@pytest.mark.parametrize(
    "together", [True, pytest.param(False, marks=pytest.mark.long)], ids=["side by side", "one by one"]
)
def test_decode_is_near_to_float32(gguf: Gguf, stored: StoredReference, together: bool) -> None:
    path, architecture = artifacts().model_path, Architecture.of(gguf)
    holds(stored.fidelity(decode_logits(path, architecture, stored.prompts, together=together)))


def test_references_can_be_made_anew(last: tuple[NDArray[np.int64], StoredReference], recomputed: Logits) -> None:
    _, reference = last
    assert reference.difference(recomputed) <= TOLERANCE
    found = reference.fidelity(recomputed)
    assert found.max_kl < 1e-5
    assert found.agrees.all()


def test_the_graph_says_the_same_where_it_multiplies_in_float32(
    gguf: Gguf, last: tuple[NDArray[np.int64], StoredReference], recomputed: Logits, tmp_path: Path
) -> None:
    architecture = Architecture.of(gguf)
    exact = graph.write(gguf, architecture, tmp_path, accuracy_level=0)
    found = Fidelity.between(recomputed, prefill_logits(exact, architecture, [last[0]]))
    assert found.max_kl < 1e-7
    assert found.agrees.all()


def test_rounding_the_zero_points_is_seen(gguf: Gguf, last: tuple[NDArray[np.int64], StoredReference]) -> None:
    prompt, reference = last
    found = reference.fidelity(reference_logits(gguf, [prompt], rounded)[0])
    assert found.mean_kl > 0.1
    assert found.top_1 < 0.9


def random_logits(positions: int, vocabulary: int, seed: int) -> Logits:
    return np.random.default_rng(seed).normal(0, 3, (positions, vocabulary)).astype(np.float32)


def prompts_for(positions: int) -> Prompts:
    return np.split(np.arange(positions, dtype=np.int64), [positions // 3])


def test_divergence_by_hand() -> None:
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]], np.float32))
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.9, 0.05, 0.05]], np.float32)) + 7
    found = Fidelity.between(reference, other)
    assert found.kl == pytest.approx([0.25 * np.log(2), 0], abs=1e-6)
    assert found.agrees.tolist() == [False, True]
    assert (found.top_1, found.is_good) == (0.5, False)


def test_what_is_stored_bounds_the_divergence_from_below() -> None:
    reference = random_logits(6, 60000, seed=1) * 2
    other = reference + 0.1 * random_logits(6, 60000, seed=2)
    exact = Fidelity.between(reference, other)
    found = StoredReference.of("model", prompts_for(6), reference).fidelity(other)
    assert (found.kl <= exact.kl * 1.001).all()
    assert found.kl == pytest.approx(exact.kl, rel=0.2)
    assert (found.agrees == exact.agrees).all()


def test_a_small_vocabulary_is_stored_whole() -> None:
    reference, other = random_logits(5, 300, seed=3), random_logits(5, 300, seed=4)
    found = StoredReference.of("model", prompts_for(5), reference)
    assert found.fidelity(other).kl == pytest.approx(Fidelity.between(reference, other).kl, rel=1e-2)


def test_a_certain_reference() -> None:
    """All other tokens together have no probability that a float could hold, and that of another way is finite."""
    reference = np.full((1, 1000), -2000, np.float32)
    reference[0, 7] = 0
    found = StoredReference.of("model", prompts_for(1)[1:], reference)
    assert found.counts.tolist() == [1]
    assert found.fidelity(reference).kl == pytest.approx([0])
    assert found.fidelity(np.zeros((1, 1000), np.float32)).kl == pytest.approx([np.log(1000)])


def test_references_come_back_and_the_file_is_always_the_same(tmp_path: Path) -> None:
    reference = StoredReference.of("model", prompts_for(9), random_logits(9, 500, seed=5))
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    reference.save(first)
    StoredReference.load(first).save(second)
    assert first.read_bytes() == second.read_bytes()
    found = StoredReference.load(second)
    assert found.model == "model"
    assert [each.tolist() for each in found.prompts] == [each.tolist() for each in prompts_for(9)]
    assert found.difference(random_logits(9, 500, seed=5)) < 0.004


@pytest.mark.parametrize(
    ("model", "positions", "shift", "complaint"),
    [
        ("other", 9, 0.0, "of another model file"),
        ("model", 8, 0.0, "of other tokens"),
        ("model", 9, 0.1, r"off by 0\.\d+ in a log-probability"),
    ],
)
def test_outdated_references_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, positions: int, shift: float, complaint: str
) -> None:
    logits = random_logits(9, 500, seed=6)
    made = Artifacts(tmp_path, tmp_path, "model")
    monkeypatch.setattr(fidelity, "STORED", tmp_path / "stored.npz")
    with pytest.raises(click.ClickException, match="there are no references"):
        fidelity.references(made, prompts_for(9), logits)
    StoredReference.of(model, prompts_for(positions), logits[:positions]).save(fidelity.STORED)
    logits[:, ::2] += shift
    with pytest.raises(click.ClickException, match=complaint):
        fidelity.references(made, prompts_for(9), logits)
