"""Kill -9 of each process of a chat service, at each moment: what clients see of it, and that it works on."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from chat_service import MODEL, Answer, ChatService, serving, user
from tiny_llm import write_tiny_llm
from waiting import wait_until, worker_of

CONTEXT = 1 << 14  # an answer that fills it takes seconds: longer than it takes to kill who makes it
PAGE_NBYTES = 4 * 32 * 32 * 4
HELLO = user("Hello.")
GO_ON = user("Go on and on.")
LONG = user("All that has been said so far. " * 12)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ChatService]:
    with serving(tmp_path, str(write_tiny_llm(tmp_path)), context=CONTEXT) as service:
        yield service


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for answers meanwhile."""
    with ThreadPoolExecutor() as pool:
        yield pool


def worked_on(service: ChatService) -> None:
    """Waits until the model has gone some steps with the one request that it has."""
    for _ in range(5):
        wait_until(lambda: service.answers(1))


def in_flight(service: ChatService, count: int) -> None:
    wait_until(lambda: service.running.client.call("ingress.describe")["running"] == count)


def is_loading(service: ChatService, name: str) -> bool:
    return str(worker_of(service.running, name)["state"]) == "restarting"


def check_interrupted(events: list[Any], actor: str) -> None:
    """The last event says that, and by whom; it is not pretended that the answer is whole."""
    error = events[-1]["error"]
    assert error["code"] == "interrupted"
    assert f"{actor} died in the middle" in error["message"]
    assert "[DONE]" not in events
    assert all(choice["finish_reason"] is None for event in events[:-1] for choice in event["choices"])


# -- idle --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llm", "cache", "prefixes"])
def test_the_next_request_waits_for_the_successor(service: ChatService, name: str) -> None:
    expected = service.ask(HELLO, seed=1).text
    service.kill(name)
    assert service.ask(HELLO, seed=2).text == expected
    assert worker_of(service.running, name)["restarts"] == 1
    service.wait_idle()


def test_the_ingress_comes_back_at_its_port_with_its_certificate(service: ChatService) -> None:
    expected, certificate = service.ask(HELLO, seed=1).text, service.certificate.read_bytes()
    service.replace("ingress")
    assert service.ask(HELLO, seed=2).text == expected
    assert service.certificate.read_bytes() == certificate
    assert service.running.client.call("ingress.describe")["url"] == service.url


# -- starting ----------------------------------------------------------------------------------------------------------


def test_killed_again_while_it_loads_and_a_request_waits(service: ChatService, aside: ThreadPoolExecutor) -> None:
    expected = service.ask(HELLO, seed=1).text
    loading = service.successor("llm", service.kill("llm"))
    os.kill(loading, signal.SIGSTOP)
    assert is_loading(service, "llm")
    answer = aside.submit(service.ask, HELLO, seed=2)
    in_flight(service, 1)
    service.kill("llm", loading)
    assert answer.result().text == expected
    assert worker_of(service.running, "llm")["restarts"] == 2


def test_killed_while_it_converts_the_model(service: ChatService, tmp_path: Path) -> None:
    expected, models = service.ask(HELLO, seed=1).text, tmp_path / "cache" / "models"
    shutil.rmtree(models)
    converting = service.successor("llm", service.kill("llm"))
    wait_until(lambda: list(models.glob("*.unfinished")))
    assert service.pid("llm") == converting
    service.kill("llm", converting)
    assert service.ask(HELLO, seed=2).text == expected
    (made,) = (each for each in models.iterdir() if each.is_dir())
    assert not made.name.endswith(".unfinished")


# -- between two tokens ------------------------------------------------------------------------------------------------


def test_a_stream_ends_with_an_error_that_says_so(service: ChatService) -> None:
    expected = service.ask(HELLO, seed=1).text
    with service.stream(GO_ON) as stream:
        assert stream.until_text()
        service.kill("llm")
        check_interrupted(stream.rest(), "llm")
    assert service.ask(HELLO, seed=2).text == expected
    service.wait_idle()


@pytest.mark.parametrize("name", ["cache", "prefixes"])
def test_a_stream_goes_on_when_a_cache_dies(service: ChatService, name: str) -> None:
    """The words do not come by it."""
    with service.stream(GO_ON, max_tokens=2000) as stream:
        assert stream.until_text()
        service.replace(name)
        assert service.answers(1)
        events = stream.rest()
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1] == "[DONE]"
    service.wait_idle()


def test_leaving_ends_the_work_when_the_cache_has_died(service: ChatService) -> None:
    with service.stream(GO_ON) as stream:
        assert stream.until_text()
        service.replace("cache")
        assert service.answers(1)
    service.wait_idle()


def test_openais_client_raises_it(service: ChatService) -> None:
    with service.client() as client:
        stream = client.chat.completions.create(model=MODEL, messages=GO_ON, temperature=0, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        while not next(stream).choices[0].delta.content:
            continue
        service.kill("llm")
        with pytest.raises(openai.APIError, match="llm died in the middle of this answer; ask again") as caught:
            list(stream)
        assert caught.value.code == "interrupted"
        again = client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0, max_tokens=8)
        assert again.choices[0].finish_reason == "length"


def test_an_answer_that_does_not_stream_is_unavailable(service: ChatService, aside: ThreadPoolExecutor) -> None:
    with service.client() as client:
        answer: Future[Any] = aside.submit(
            client.chat.completions.create, model=MODEL, messages=GO_ON, temperature=0, stream=False
        )
        worked_on(service)
        service.kill("llm")
        with pytest.raises(openai.InternalServerError, match="died in the middle") as caught:
            answer.result()
    assert (caught.value.status_code, caught.value.code) == (503, "interrupted")
    assert caught.value.response.headers["retry-after"]


def test_who_still_waited_for_a_slot_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, str(write_tiny_llm(tmp_path)), context=CONTEXT, slots=1) as service:
        expected = service.ask(HELLO, max_tokens=8, seed=1).text
        with service.stream(GO_ON) as running, service.stream(HELLO, max_tokens=8, seed=2) as waiting:
            assert running.until_text()
            wait_until(lambda: service.answers(1, waiting=1))
            service.kill("llm")
            check_interrupted(running.rest(), "llm")
            events = waiting.rest()
        assert "".join(each["choices"][0]["delta"].get("content") or "" for each in events[:-1]) == expected
        assert events[-1] == "[DONE]"


def test_the_end_of_the_ingress_ends_connections_and_their_work(service: ChatService) -> None:
    expected = service.ask(HELLO, seed=1).text
    with service.stream(GO_ON) as stream:
        assert stream.until_text()
        assert service.answers(1)
        killed = service.kill("ingress")
        assert "[DONE]" not in stream.rest()
        wait_until(lambda: service.answers(0))
    service.wait_ready("ingress", killed)
    assert service.ask(HELLO, seed=2).text == expected


# -- pages of keys and values ------------------------------------------------------------------------------------------


def accounts(service: ChatService, seed: int) -> tuple[Any, int]:
    """An answer's tokens with their probabilities, to the last digit, and how much of its prompt was cached."""
    with service.client() as client:
        completion = client.chat.completions.create(
            model=MODEL, messages=LONG, temperature=0, max_tokens=24, seed=seed, logprobs=True, top_logprobs=5
        )
    logprobs, usage = completion.choices[0].logprobs, completion.usage
    assert logprobs is not None
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached in (0, usage.prompt_tokens - 2)
    return logprobs.model_dump(), cached or 0


def test_a_successor_uses_the_pages_of_the_dead(service: ChatService) -> None:
    expected, cached = accounts(service, 1)
    assert cached == 0
    pages = service.wait_for_pages(10)
    service.replace("llm")
    assert service.describe()["stats"]["requests"] == 0
    again, cached = accounts(service, 2)
    assert again == expected
    assert cached > 300
    assert service.describe()["cache"]["prefixes_pages"] == pages


def test_the_end_of_the_prefix_cache_gives_the_pages_back(service: ChatService) -> None:
    """All is forgotten, and its memory is the model's again; then it is learnt anew."""
    expected, _ = accounts(service, 1)
    held = service.wait_for_pages(10) * PAGE_NBYTES
    assert slab_used(service) >= held
    service.replace("prefixes")
    assert accounts(service, 2) == (expected, 0)
    service.wait_for_pages(10)
    wait_until(lambda: held <= slab_used(service) < 2 * held)
    again, cached = accounts(service, 3)
    assert again == expected
    assert cached > 300


def slab_used(service: ChatService) -> int:
    return int(worker_of(service.running, "llm")["slab_used_bytes"])


# -- all of it ---------------------------------------------------------------------------------------------------------


def test_all_die_in_turn_while_clients_ask(tmp_path: Path, aside: ThreadPoolExecutor) -> None:
    """Each request is answered as it always is, or fails with an error that says what happened."""
    questions = [user(f"Question {number}: what comes next?") for number in range(4)]
    done = threading.Event()

    def keep_asking(service: ChatService, number: int, expected: str) -> int:
        answered = 0
        while not (done.is_set() and answered):
            try:
                assert service.ask(questions[number], seed=answered, max_tokens=60).text == expected
                answered += 1
            except openai.APIConnectionError:
                continue  # the ingress is gone
            except openai.APIError as error:
                if error.code != "interrupted":
                    raise
        return answered

    with serving(tmp_path, str(write_tiny_llm(tmp_path)), exact=True) as service:
        expected = [service.ask(each, max_tokens=60).text for each in questions]
        asking = [aside.submit(keep_asking, service, number, text) for number, text in enumerate(expected)]
        try:
            for name in ("llm", "cache", "prefixes", "ingress", "llm"):
                service.replace(name)
        finally:
            done.set()
        assert all(each.result() for each in asking)
        service.wait_idle()
        answers: list[Answer] = [service.ask(each, seed=-1, max_tokens=60) for each in questions]
        assert [each.text for each in answers] == expected


def test_a_long_question_ends_with_an_error_that_says_so(service: ChatService) -> None:
    with service.stream(LONG) as stream:
        assert stream.until_text()
        service.ask(LONG, seed=1)  # the memory of the first request must not be given to this one
        service.kill("llm")
        check_interrupted(stream.rest(), "llm")


@pytest.mark.parametrize("name", ["cache", "prefixes"])
def test_long_answers_stream_on_after_the_end_of_a_cache(service: ChatService, name: str) -> None:
    for seed in range(8):
        if seed == 3:
            service.replace(name)
        assert service.ask(HELLO, max_tokens=100, seed=seed).finish_reason == "length"
