"""The benches of the chat service: that they run, check what they measure and leave nothing. Never how fast it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_files import artifacts, cache_directory
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.requests.limits import Limits
from slabwire.bench.chat.bare_engine import BareEngine
from slabwire.bench.chat.hostile_bodies import ACCEPTED, REFUSED, plain
from slabwire.bench.chat.https_stream import HttpsStream, _answer
from slabwire.bench.chat.stalls import Listener
from slabwire.bench.harness.answers import Answer, decode_rate
from slabwire.bench.harness.contestant import BenchError
from slabwire.bench.harness.conversations import Conversations, continued
from slabwire.bench.harness.process import Clock, Memory, mapped_files
from waiting import wait_until

WAYS = ["bare", "llm", "cache", "https"]
MS = 1_000_000


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Graphs of this test stand apart from any that this user has running; the model is converted already."""
    artifacts()
    cache = cache_directory()
    chosen = {"SLABWIRE_RUN_DIR": str(tmp_path_factory.mktemp("r"))}
    return {**os.environ, **chosen, **({"SLABWIRE_CACHE_DIR": str(cache)} if cache else {})}


def slabwire(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "slabwire", "bench", *arguments]


def document(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    command = slabwire(*arguments, "--format", "json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def chat(environment: dict[str, str]) -> dict[str, Any]:
    return document(environment, "chat", "--quick", "--seed", "3")


@pytest.mark.long  # half a minute of one round
def test_every_way_is_measured_at_one_and_at_eight_streams(chat: dict[str, Any]) -> None:
    found = [(each["streams"], each["way"]) for each in chat["tokens_per_s"]]
    assert found == [(streams, way) for streams in (1, 8) for way in WAYS]
    assert all(each["median"] > 0 and each["with_prompts"]["median"] > 0 for each in chat["tokens_per_s"])
    assert all(each["times_bare"] == 1 for each in chat["tokens_per_s"] if each["way"] == "bare")


@pytest.mark.long  # half a minute of one round
def test_each_floor_has_its_time_and_its_processor_time(chat: dict[str, Any]) -> None:
    gaps = {each["way"]: each["us"]["median"] for each in chat["token"]}
    added = {each["way"]: each["added_us"] for each in chat["token"]}
    assert list(gaps) == WAYS
    assert added["bare"] is None
    assert added["https"]["median"] == pytest.approx(gaps["https"] - gaps["cache"])
    used = {each["way"]: each["cpu_us"] for each in chat["token"]}
    assert all(
        set(each) == {"engine", "prefixes", "cache", "ingress", "supervisor", "client"} for each in used.values()
    )
    assert used["bare"]["ingress"] < used["https"]["ingress"]
    assert used["llm"]["cache"] < used["cache"]["cache"]


@pytest.mark.long  # half a minute of one round
def test_the_first_token_cold_and_with_a_beginning_that_is_known(chat: dict[str, Any]) -> None:
    cold, cached = chat["first_token"]["cold"], chat["first_token"]["cached"]
    assert 480 <= cold["prompt_tokens"] <= 544
    assert cold["cached_tokens"] < 12
    assert cached["prompt_tokens"] > cached["cached_tokens"] >= cold["prompt_tokens"] - 1
    assert cached["median"] < cold["median"]


@pytest.mark.long  # half a minute of one round
def test_what_is_demanded_stands_beside_what_is(chat: dict[str, Any]) -> None:
    assert [each.get("least", each.get("most")) for each in chat["bars"]] == [0.9, 0.9, 0.1]
    for each in chat["bars"]:
        value = each["value"]
        assert each["is_met"] == (value >= each["least"] if "least" in each else value <= each["most"])
    assert chat["rounds"] == 1
    assert chat["seed"] == 3
    assert "onnxruntime" in chat["machine"]["versions"]


def test_footprint(environment: dict[str, str]) -> None:
    found = document(environment, "footprint", "--idle-s", "0.2")
    one, two = found["memory"]["one"], found["memory"]["two"]
    assert set(one) == set(found["idle"]) == {"llm", "prefixes", "cache", "ingress", "supervisor"}
    assert set(two) == {"llm[0]", "llm[1]", "prefixes", "cache", "ingress", "supervisor"}
    for each in [*one.values(), *two.values()]:
        assert 0 < each["private"] <= each["pss"] <= each["rss"]
    assert found["added_bytes"] == two["llm[0]"]["pss"] + two["llm[1]"]["pss"] - one["llm"]["pss"]
    idle, added = found["bars"]
    assert idle["value"] == pytest.approx(sum(found["idle"].values()))
    assert added["value"] == pytest.approx(found["added_bytes"] / one["llm"]["pss"])


@pytest.mark.parametrize(("bench", "processes"), [("chat", 2), ("footprint", 1)])
def test_ctrl_c_leaves_nothing(environment: dict[str, str], bench: str, processes: int) -> None:
    process = subprocess.Popen(
        slabwire(bench), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) >= processes)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in out + errors


def test_the_bare_engine_answers_and_says_what_it_cannot(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLABWIRE_RUN_DIR", "SLABWIRE_CACHE_DIR"):
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    story = Conversations().story()
    with BareEngine(sorted(os.sched_getaffinity(0))) as engine:
        answers = asyncio.run(engine.ask([story, story], 6, 0.0))
        assert answers[0].text == answers[1].text
        assert [len(each.pieces) for each in answers] == [each.completion_tokens for each in answers] == [6, 6]
        with pytest.raises(BenchError, match="bare engine failed: max_tokens is 0"):
            asyncio.run(engine.ask([story], 0, 0.0))
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="has ended"):
            asyncio.run(engine.ask([story], 1, 0.0))


def test_conversations_begin_each_with_another_number() -> None:
    conversations = Conversations()
    made = [conversations.story() for _ in range(500)] + [conversations.document() for _ in range(500)]
    beginnings = [each[0]["content"] for each in made]
    assert len(set(beginnings)) == 1000
    assert len({len(each) for each in beginnings}) == 1
    more = continued(made[0], "Once upon a time.")
    assert more[:2] == made[0]
    assert [each["role"] for each in more] == ["system", "user", "assistant", "user"]


def answer(moments_ms: Sequence[int], completion_tokens: int | None = None) -> Answer:
    """A piece at each moment, asked for at 0; of a token each, unless there are more tokens."""
    pieces = [moment * MS for moment in moments_ms]
    return Answer(0, pieces, "text", 9, len(pieces) if completion_tokens is None else completion_tokens, 0)


def test_the_rate_of_decoding_is_that_of_the_time_when_all_decode() -> None:
    early, late = answer([100, 200, 300, 400]), answer([300, 400, 500, 600])
    assert decode_rate([early]) == pytest.approx(10)
    assert decode_rate([early, late]) == pytest.approx(20)
    assert decode_rate([early, answer([400, 500])]) == 0.0
    assert decode_rate([answer([100, 200, 300, 400], completion_tokens=8)]) == pytest.approx(20)
    assert (early.first_s, early.gap_us) == (0.1, 100_000.0)


def test_an_answer_whose_usage_says_otherwise_is_no_measurement() -> None:
    answer([1, 2, 3]).check("somebody")
    answer([1, 2, 3], completion_tokens=9).check("somebody")
    for wrong in (answer([1, 2, 3], completion_tokens=2), answer([1, 2, 3], completion_tokens=40), answer([1])):
        with pytest.raises(BenchError, match=r"somebody: \d pieces came"):
            wrong.check("somebody")


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def test_events_make_an_answer() -> None:
    role, one, two = ({"choices": [{"delta": {"content": text}}], "usage": None} for text in ("", "On", "ce"))
    counts = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    last = event({"choices": [], "usage": counts}) + b"data: [DONE]\n\n"
    came = [(1, event(role)), (2, event(one)), (3, b": ping\n\n"), (4, event(two)), (5, last)]
    assert _answer(0, came) == Answer(0, [2, 4], "Once", 9, 2, 3)
    with pytest.raises(BenchError, match="before it was complete"):
        _answer(0, came[:-1])
    with pytest.raises(BenchError, match="the ingress ended a stream: the model died"):
        _answer(0, [(1, event({"error": {"message": "the model died"}}))])


def test_time_and_memory_of_a_process() -> None:
    before = Clock.of(os.getpid())
    wait_until(lambda: (Clock.of(os.getpid()) - before).ran_ns > MS)
    memory = Memory.of(os.getpid())
    assert 0 < memory.private <= memory.pss <= memory.rss
    assert any("python" in path for path in mapped_files(os.getpid()))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert mapped_files(ended.pid) == {}
    with pytest.raises(BenchError, match=f"process {ended.pid} cannot be read"):
        Clock.of(ended.pid)
    with pytest.raises(BenchError, match=f"process {ended.pid} cannot be read"):
        Memory.of(ended.pid)


def test_the_bodies_that_cost_much_are_what_an_ingress_may_be_sent() -> None:
    for body in (*REFUSED, *ACCEPTED, plain(100)):
        made = body.make(7)
        assert 0 < len(made) <= Limits().body_bytes, body.name
        assert made != body.make(8) or body in REFUSED


def test_the_longest_gap_is_that_beside_the_request(tmp_path: Path) -> None:
    certificate = development_certificate("localhost", tmp_path).public
    listener = Listener(HttpsStream("https://localhost:1", str(certificate), "model"))
    listener.moments += [1.0, 3.0, 3.1, 3.2, 3.3, 3.9, 4.0, 4.1, 9.0]
    assert listener.longest_s(3.25, 3.95) == pytest.approx(4.9)
    listener.moments[-1:] = [4.2, 4.3, 4.4, 4.5, 9.0]
    assert listener.longest_s(3.35, 3.95) == pytest.approx(0.6)
    assert listener.longest_s(0.5, 0.6) == 0.0


@pytest.mark.long
def test_each_body_is_sent_beside_a_stream(environment: dict[str, str]) -> None:
    found = document(environment, "stalls", "--quick")
    assert [each["body"] for each in found["refused"]] == [each.name for each in REFUSED]
    assert all(each["status"] == 400 and each["longest_s"] > 0 for each in found["refused"])
    assert all(each["prompt_tokens"] > 0 and each["plain_s"] > 0 for each in found["taken"])
    assert [each["most"] for each in found["bars"]] == [2.0, 0.02]
