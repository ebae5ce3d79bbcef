"""The actor that answers conversations with a language model, its words as they come."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ...runtime.actor.actor import Actor
from ...runtime.actor.handler import resumable
from ...runtime.actor.reply_stream import ReplyStream
from ...runtime.errors import Interrupted
from .answer import Answer

if TYPE_CHECKING:
    from .engine.sequence import Output, Sequence

logger = logging.getLogger("slabwire")

_PROMPTS_NICE = 5

# A short question in a chat template takes about forty tokens.
LEAST_CONTEXT = 64


class LanguageModel(Actor):
    """A chat model from a GGUF file, answering up to `slots` conversations side by side, of `context` tokens each.

    `model` is a path, or the name of a model that is known; without it, SmolLM2-135M-Instruct. `prefixes` names an
    actor that remembers keys and values of earlier prompts (a PrefixCache). With `exact` an answer does not depend on
    how many others are made beside it, bit by bit, which costs a single one some of its speed.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        slots: int = 8,
        context: int = 2048,
        prefixes: str | None = None,
        exact: bool = False,
    ) -> None:
        for name, value, least in (("slots", slots, 1), ("context", context, LEAST_CONTEXT)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        self._model_name = model
        self._slots = slots
        self._context = context
        self._exact = exact
        self._prefixes = prefixes

    async def on_start(self) -> None:
        # Here and not above: whoever only draws or checks the graph needs no ONNX Runtime.
        from ..onnx_runtime import pool_seats
        from .chat_model import ChatModel
        from .driver import Driver
        from .pages import PageStore

        self._model = ChatModel.load(
            self._model_name,
            slots=self._slots,
            context=self._context,
            threads=self.context.threads,
            seats=pool_seats(self.context.threads, self.context.cores),
            exact=self._exact,
            progress=logger.info,
        )
        self._pages: PageStore | None = None
        if self._prefixes:
            self._pages = PageStore(self, self._prefixes, self._model.engine, self._model.identity)
            await self._pages.check()
        self._loop = asyncio.get_running_loop()
        self._answers: dict[Sequence, Answer] = {}
        self._driver = Driver(self._model.engine, self._send, self._pages.offer if self._pages else lambda _: None)
        # One thread: prompts wait for each other, and all together take no more of the model's time than one. Linux has
        # priorities for threads, and by this one it gets a quarter of a core that the engine's thread wants as well.
        self._prompts = ThreadPoolExecutor(1, "prompts", initializer=os.nice, initargs=(_PROMPTS_NICE,))
        self._counts = {"requests": 0, "prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}

    async def on_stop(self) -> None:
        self._prompts.shutdown(wait=False, cancel_futures=True)
        await self._driver.close()
        if self._pages is not None:
            self._pages.close()
        self._model.close()

    @resumable
    def chat(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
        sent: int = 0,
    ) -> ReplyStream[dict[str, Any]]:
        """Answers `messages`, dicts of role and content. The items: see `completion.Accepted`, `Delta`, `Finished`.

        Raises BadMessages and PromptTooLong before the first item. An answer of which words were sent when the process
        died ends with Interrupted: another run might choose other words.
        """
        if sent > 1:
            raise Interrupted(f"{self.context.actor} died in the middle of this answer; ask again")
        stream: ReplyStream[dict[str, Any]] = self.reply_stream()
        settings = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stop": stop,
            "logprobs": logprobs,
        }
        beginning = self._loop.create_task(self._begin(stream, messages, settings, is_accepted=bool(sent)))
        stream.add_done_callback(lambda _: beginning.cancel())
        return stream

    async def _begin(
        self,
        stream: ReplyStream[dict[str, Any]],
        messages: list[dict[str, Any]],
        settings: dict[str, Any],
        *,
        is_accepted: bool,
    ) -> None:
        """All that comes before the first step of an answer; it is cancelled when the stream is over."""
        try:
            # In a thread: steps go on meanwhile, for the model and the tokenizer let it run.
            prompt = await self._loop.run_in_executor(self._prompts, self._model.prompt, messages)
            sequence = self._model.sequence(prompt, **settings)
            if not is_accepted:
                stream.send({"prompt_tokens": len(prompt)})
            if stream.is_open:  # who sends may learn that the caller is gone
                self._answers[sequence] = Answer(stream, sequence)
                stream.add_done_callback(lambda _: self._drop(sequence))
                await self._driver.admit(sequence, self._pages.load if self._pages is not None else None)
        except BaseException as error:
            stream.fail(error)

    def _drop(self, sequence: Sequence) -> None:
        """Nobody reads the answer any more, or it is whole: its slot is free before the next step."""
        del self._answers[sequence]
        self._driver.cancel(sequence)

    def _send(self, outputs: list[Output]) -> None:
        """What one step has made, to all readers at once."""
        items: list[tuple[ReplyStream[dict[str, Any]], dict[str, Any]]] = []
        whole, failed = [], []
        for output in outputs:
            answer = self._answers.get(output.sequence)
            if answer is None:
                continue  # who asks for room may learn that the callers of others are gone
            items += [(answer.stream, item) for item in answer.items(output)]
            if output.error is not None:
                failed.append((answer.stream, output.error))
            elif output.is_last:
                whole.append(answer.stream)
                self._counts["requests"] += 1
                for name, count in answer.counts.items():
                    self._counts[name] += count
        self.publish(items, ended=whole)
        for stream, error in failed:
            stream.fail(error)

    async def describe(self) -> dict[str, Any]:
        """What the model is, and how busy."""
        engine = self._model.engine
        return {
            "model": self._model.name,
            "created": self._model.created,
            "context": self._model.context,
            "slots": engine.slots.count,
            "running": engine.running,
            "waiting": engine.waiting,
            "stats": {
                **self._counts,
                "kv_bytes": engine.slots.nbytes_held,
                "prefix_failures": self._pages.failures if self._pages else 0,
            },
        }
