"""`slabwire bench fidelity`: how near the language model's logits are to those of its weights in float32.

The float32 ones are computed here (reference.py), and held against those stored in tests/data, which the test suite
measures by. Divergences are exact, over the whole vocabulary; beside each stands what the stored references make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ...actors.llm.model_file.architecture import Architecture
from ...actors.llm.model_file.artifacts import Artifacts, prepare
from ...actors.llm.model_file.checkpoint import locate
from ...actors.llm.model_file.gguf import Gguf
from ...actors.llm.text.tokenizer import Tokenizer
from ...cli.rendering.presentation import format_option, print_json, print_table
from ..harness.contestant import Seats
from ..harness.machine import describe
from .corpus import TEXTS
from .divergence import LEAST_TOP_1, MOST_MEAN_KL, Fidelity
from .logits import Prompts, decode_logits, llama_cpp_logits, prefill_logits
from .reference import reference_logits, rounded
from .stored_reference import StoredReference

STORED = Path(__file__).resolve().parents[2] / "tests" / "data" / "reference_logits.npz"
# Stored log-probabilities were rounded by 0.004 at most; another BLAS library adds in another order, which moves them
# by less than a tenth of that.
TOLERANCE = 0.01
_HEADS = ("computed by", ">mean KL", ">max KL", ">top-1", ">max logit difference", ">mean KL by the stored")

Ways = dict[str, Callable[[], NDArray[np.float32]]]


@dataclass(frozen=True)
class Measured:
    """One way's logits beside the reference's: exactly, and by what is stored of the reference."""

    way: str
    exact: Fidelity
    difference: float
    stored: Fidelity


@click.command()
@click.option("--write", is_flag=True, help="Store the float32 references, in place of those that are there.")
@format_option
def command(write: bool, form: str) -> None:
    """KL divergence and top-1 agreement of prefill and decode with float32, beside llama.cpp where it is installed.

    The texts are those of bench/fidelity/corpus.py. It takes half a minute.
    """
    if not find_spec("onnxruntime"):  # else the model would be downloaded before anybody says so
        raise click.ClickException("onnxruntime is not installed; run `make setup-dev`, or pip install -e '.[llm]'")
    path = locate(progress=_say)
    artifacts = prepare(path, progress=_say)
    with Gguf(path) as gguf:
        prompts = prompts_of(gguf)
        reference = np.concatenate(reference_logits(gguf, prompts))
        if write:
            STORED.parent.mkdir(exist_ok=True)
            StoredReference.of(artifacts.sha256, prompts, reference).save(STORED)
        stored = references(artifacts, prompts, reference)
        results = list(_measure(_ways(gguf, artifacts, prompts), reference, stored))
    document = _document(results, stored.difference(reference))
    if form == "json":
        print_json(document)
    else:
        _show(results, document)


def prompts_of(gguf: Gguf) -> Prompts:
    """The texts of the corpus as tokens."""
    tokenizer = Tokenizer(gguf.metadata)
    return [np.array(tokenizer.encode(text, special=True), np.int64) for text in TEXTS.values()]


def references(artifacts: Artifacts, prompts: Prompts, reference: NDArray[np.float32]) -> StoredReference:
    """Those stored. Raises ClickException for references of another model, of other texts, or of other figures."""
    if not STORED.is_file():
        raise click.ClickException(f"there are no references in {STORED}: give --write to make them")
    stored = StoredReference.load(STORED)
    if stored.model != artifacts.sha256:
        raise _outdated("of another model file")
    if [each.tolist() for each in stored.prompts] != [each.tolist() for each in prompts]:
        raise _outdated("of other tokens than the corpus has")
    difference = stored.difference(reference)
    if difference > TOLERANCE:
        raise _outdated(f"off by {difference:.3f} in a log-probability, where {TOLERANCE} may come from rounding")
    return stored


def _outdated(what: str) -> click.ClickException:
    return click.ClickException(f"the references in {STORED} are {what}; give --write if that is meant")


def _ways(gguf: Gguf, artifacts: Artifacts, prompts: Prompts) -> Ways:
    of, path = Architecture.of(gguf), artifacts.model_path
    ways: Ways = {
        "prefill": lambda: prefill_logits(path, of, prompts),
        "decode, one by one": lambda: decode_logits(path, of, prompts, together=False),
        f"decode, {len(prompts)} side by side": lambda: decode_logits(path, of, prompts, together=True),
    }
    if find_spec("llama_cpp"):
        ways["llama.cpp"] = lambda: llama_cpp_logits(gguf.path, prompts)
    # What the correction in the graph is for (actors/llm/model_file/quantisation.py).
    ways["float32, zero points rounded"] = lambda: np.concatenate(reference_logits(gguf, prompts, rounded))
    return ways


def _measure(ways: Ways, reference: NDArray[np.float32], stored: StoredReference) -> Iterator[Measured]:
    for way, compute in ways.items():
        logits = compute()
        difference = float(np.abs(logits - reference).max())
        yield Measured(way, Fidelity.between(reference, logits), difference, stored.fidelity(logits))


def _document(results: list[Measured], difference: float) -> dict[str, Any]:
    return {
        "bench": "fidelity",
        "positions": len(results[0].exact.kl),
        "bar": {"mean_kl": MOST_MEAN_KL, "top_1": LEAST_TOP_1},
        "processor": describe(Seats.choose())["processor"],
        "versions": {name: version(name) for name in ("numpy", "onnxruntime")},
        "stored_difference": difference,
        "results": [_entry(each) for each in results],
    }


def _entry(measured: Measured) -> dict[str, Any]:
    return {
        "way": measured.way,
        "mean_kl": measured.exact.mean_kl,
        "max_kl": measured.exact.max_kl,
        "top_1": measured.exact.top_1,
        "max_logit_difference": measured.difference,
        "stored_mean_kl": measured.stored.mean_kl,
        "is_good": measured.exact.is_good,
    }


def _row(measured: Measured) -> tuple[str, ...]:
    exact = measured.exact
    figures = (f"{exact.mean_kl:.2e}", f"{exact.max_kl:.2f}", f"{exact.top_1:.3f}", f"{measured.difference:.1f}")
    return (measured.way, *figures, f"{measured.stored.mean_kl:.2e}")


def _show(results: list[Measured], document: dict[str, Any]) -> None:
    title = f"{document['positions']} positions of {len(TEXTS)} texts, beside the same weights in float32"
    print_table(_HEADS, map(_row, results), title=title)
    click.echo(f"\nThe bar: mean KL at most {MOST_MEAN_KL:.0e} and top-1 at least {LEAST_TOP_1}; KL in nats")
    click.echo(f"The stored references differ from those computed now by {document['stored_difference']:.4f} at most")
    click.echo(", ".join([document["processor"], *(f"{name} {each}" for name, each in document["versions"].items())]))
    if not find_spec("llama_cpp"):
        click.echo("llama.cpp is not installed (pip install llama-cpp-python compiles it)")


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


if __name__ == "__main__":
    command()
