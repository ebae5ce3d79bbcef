"""A chat model, ready to answer: tokenizer, template and engine, made from one GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter
from typing import Any

from ...runtime.host.heap import give_heap_back
from ..completion import MOST_LOGPROBS, MOST_STOP_CHARACTERS, MOST_STOPS, BadMessages, prompt_too_long
from .engine.engine import SMALLEST_CHUNK, Engine
from .engine.network import Network
from .engine.sampler import Sampler, check_sampling
from .engine.sequence import Sequence
from .engine.slots import Slots
from .model_file.architecture import Architecture
from .model_file.artifacts import prepare
from .model_file.checkpoint import locate
from .model_file.gguf import Gguf
from .text.template import ChatTemplate
from .text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChatModel:
    """One thread. Whoever made it closes it."""

    name: str
    identity: bytes  # of the weights and of how they are computed
    created: int
    tokenizer: Tokenizer
    template: ChatTemplate
    engine: Engine
    context: int

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        slots: int = 8,
        context: int = 2048,
        threads: int = 1,
        seats: str = "",
        exact: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> ChatModel:
        """From the file that `model` names, or from the default model. `progress` is told what takes time.

        Raises ModelFileError for a file that cannot be used, OutOfMemory where the slots would find no room.
        """
        path = locate(model, progress=progress)
        artifacts = prepare(path, progress=progress)
        began = perf_counter()
        with Gguf(path) as gguf:
            architecture = Architecture.of(gguf)
            tokenizer = Tokenizer(gguf.metadata)
            template = ChatTemplate(str(gguf.metadata.get("tokenizer.chat_template", "")))
        context = min(context, architecture.context)
        places = Slots(architecture, slots, context)
        network = Network(artifacts.model_path, architecture, places, threads, seats)
        loaded = cls(
            path.stem,
            blake2b(artifacts.folder.name.encode(), digest_size=16).digest(),
            int(path.stat().st_mtime),
            tokenizer,
            template,
            Engine(network, places, tokenizer, exact=exact),
            context,
        )
        loaded._warm_up()
        give_heap_back()
        progress(f"loaded {path.stem} in {perf_counter() - began:.1f} s: {slots} slots of {context} tokens")
        return loaded

    def _warm_up(self) -> None:
        """One short answer: it reads the weights in, so that the first request does not wait for that."""
        sequence = self.sequence(self.tokenizer.encode("Once upon", special=False), max_tokens=2)
        self.engine.admit(sequence)
        while self.engine.has_work:
            self.engine.step()

    def prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation, up to where the answer begins. Any thread, one at a time.

        Raises BadMessages and PromptTooLong.
        """
        return self.template.prompt_tokens(messages, self.tokenizer, self.context)

    def sequence(
        self,
        prompt: list[int],
        *,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
    ) -> Sequence:
        """An answer to begin. Raises PromptTooLong, or BadMessages that names the setting."""
        if len(prompt) < SMALLEST_CHUNK:
            raise BadMessages(f"the conversation is {len(prompt)} tokens long; it must be {SMALLEST_CHUNK} at least")
        room = self.context - len(prompt)
        if room < 1:
            count = f"{len(prompt)} tokens" + (" or more" if room < 0 else "")  # of a longer one the rest is not made
            raise prompt_too_long(
                f"the conversation has {count}, and the model's context holds {self.context} together with the answer; "
                "shorten the messages or leave out older ones",
                self.context,
            )
        if max_tokens is not None and max_tokens < 1:
            raise BadMessages(f"max_tokens is {max_tokens}; it must be at least 1")
        if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
            raise BadMessages(f"logprobs is {logprobs}; it must be from 0 to {MOST_LOGPROBS}")
        check_sampling(temperature, top_p, seed)
        stops = stop or []
        if len(stops) > MOST_STOPS or not all(0 < len(each) <= MOST_STOP_CHARACTERS for each in stops):
            raise BadMessages(
                f"stop must be at most {MOST_STOPS} strings, of 1 to {MOST_STOP_CHARACTERS} characters each"
            )
        return Sequence(
            prompt,
            limit=min(room, max_tokens or room),
            sampler=Sampler(temperature, top_p, seed),
            stops=stops,
            logprobs=logprobs,
        )

    def close(self) -> None:
        """Gives the memory of the slots back."""
        self.engine.slots.close()
