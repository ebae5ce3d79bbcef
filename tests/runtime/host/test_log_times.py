"""Which time lines of a worker's log have, whoever wrote them and however."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Actor, Graph
from slabwire.cli.rendering.logfile import Line, LogFile, date
from slabwire.runtime.launch.running import Running
from slabwire.runtime.logs.log_rotation import logs_in, put_aside
from slabwire.runtime.logs.log_times import Seen, read_times, times_aside, times_of, write_times
from slabwire.runtime.logs.log_watch import LogWatch
from slabwire.runtime.logs.stamped_output import Stamped, _Place
from slabwire.runtime.postmortem.report_store import reports
from waiting import wait_until

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")


MUCH = 3 << 20  # more than a pipe holds


class Says(Actor):
    """Ways to write a line."""

    def printed(self, text: str) -> None:
        print(text, "said", "in", "pieces")

    def raw(self, text: str) -> None:
        os.write(2, f"{text}\n".encode())

    def child(self, text: str) -> None:
        subprocess.run(["echo", text], check=True)

    def forked(self, text: str) -> None:
        if not (pid := os.fork()):
            print(text)
            os._exit(0)
        os.waitpid(pid, 0)

    def much(self) -> None:
        print("p" * MUCH)
        os.write(2, b"r" * MUCH + b"\n")

    def dies(self, text: str) -> None:
        print(text, end="")
        os.kill(os.getpid(), signal.SIGKILL)


class Beside(Actor):
    def printed(self, text: str) -> None:
        print(text)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("saying")
    says, beside = graph.add(Says, worker="both", max_attempts=1), graph.add(Beside, worker="both")
    graph.expose(says.printed, says.raw, says.child, says.forked, says.much, says.dies, beside.printed)
    with graph.run() as running:
        yield running


def logged(*words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "slabwire", "logs", "saying", "both", *words, "--format", "json"]
    return [json.loads(each) for each in subprocess.run(command, capture_output=True, text=True).stdout.splitlines()]


@pytest.mark.parametrize("ways", [("printed", "forked"), ("raw", "child")])
def test_each_line_has_the_time_at_which_it_was_written(ways: tuple[str, str], running: Running) -> None:
    """What only the supervisor sees has the time by which it saw it: so each waits until that was noted."""
    log = running.directory / "logs" / "both.log"
    spans: list[tuple[str, float, float]] = []
    for number in range(3):
        way, text, before_s = ways[number % 2], f"line {number}", time.time()
        running.client.call(f"says.{way}", text)
        after_s = time.time()
        size = log.stat().st_size
        wait_until(lambda: read_times(times_of(log))[-1:] and read_times(times_of(log))[-1][0] >= size)  # noqa: B023
        spans.append((text, before_s, after_s))
    said = {line["text"].removesuffix(" said in pieces"): line["unix_s"] for line in logged()}
    for text, before_s, after_s in spans:
        assert before_s - 0.01 <= said[text] <= after_s  # the clock of files ticks slowly
    since = slabwire_time(spans[1][2])
    assert [line["text"][:6] for line in logged("--since", since)] == ["line 2"]


def slabwire_time(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s)) + f".{int(unix_s % 1 * 1e6):06d}"


def test_the_last_words_of_one_that_was_killed(running: Running) -> None:
    running.client.call("beside.printed", "beside")
    with pytest.raises(slabwire.DeadLetter):
        running.client.call("says.dies", "never ended")
    texts = [line["text"] for line in logged("--grep", "^(beside|never)")]
    assert texts == ["beside", "never ended"]
    assert next(reports("saying"))["log"].endswith("Z never ended")


def test_nobody_waits_for_a_supervisor_that_was_stopped(running: Running) -> None:
    running.client.call("says.much")  # the way there is opened by the supervisor
    pid = running.status()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        running.client.call("says.much")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [len(line["text"]) for line in logged()] == [MUCH, MUCH] * 2


# -- the streams -----------------------------------------------------------------------------------------------------


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        place = _Place()
        self.out, self.err = Stamped(self.descriptor, place), Stamped(self.descriptor, place)

    def lines(self) -> list[bytes]:
        """Without the stamps, which must be there."""
        found = self.path.read_bytes().split(b"\n")
        assert all(map(STAMP.match, found[:-1]))
        return [STAMP.sub(b"", each, count=1) for each in found]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "a.log")
    yield made
    os.close(made.descriptor)


def test_pieces_make_one_line_and_streams_do_not_mix(log: Log) -> None:
    for piece in (b"one ", b"line", b"\n", b"", b"two\nthree\n\nfour", b"\n"):
        assert log.out.write(piece) == len(piece)
    log.out.write(b"begun")
    assert log.lines()[-1] == b"begun"  # at once: the next line may be the last
    log.err.write(b"from elsewhere\n")
    log.out.write(b" and ended\n")
    expected = [b"one line", b"two", b"three", b"", b"four", b"begun", b"from elsewhere", b" and ended", b""]
    assert log.lines() == expected


def test_anything_may_be_printed(log: Log) -> None:
    pieces = [b"\xff\x00\r\n", b"x" * (10 << 20) + b"\n", memoryview(b"view\n"), bytearray(b"array\n")]
    for piece in pieces:
        assert log.out.write(piece) == len(piece)
    assert log.lines() == [b"\xff\x00\r", b"x" * (10 << 20), b"view", b"array", b""]


# -- the reader ------------------------------------------------------------------------------------------------------


def test_what_was_seen_since_the_line_above_takes_the_time_of_the_look() -> None:
    texts = ["C before", "2026-01-31T12:00:00.000000Z one", "C at once", "C an hour later", "C then", "C just now"]
    at = 1769860800.0
    looks = [
        Seen(0.0, at - 50),
        Seen(at - 50, at + 0.3),
        Seen(at - 50, at + 0.3),
        Seen(at + 0.3, at + 3600),
        Seen(at + 0.3, at + 3600),
        Seen(at + 3600, 0.0),
    ]
    dated = date((Line("a", text) for text in texts), None, at + 9999, looks)
    assert [line.unix_s - at for line in dated if line.unix_s] == [-50, 0, 0, 3600, 3600, 9999]


def test_looks_find_what_has_grown_and_go_aside_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "scale.log"
    times = LogWatch(tmp_path)

    def write(text: str, at_s: int) -> None:
        with path.open("a") as log:
            log.write(f"{text}\n")
        os.utime(path, (at_s, at_s))
        write_times(times.grown(logs_in(path.parent)))

    write("one", 100)
    write("two\nand", 200)
    assert times.grown(logs_in(path.parent)) == {}
    with path.open("a") as log:
        log.write("three\n")
    write_times(times.grown(logs_in(path.parent)))
    os.truncate(times_of(path), times_of(path).stat().st_size - 3)  # killed while it wrote
    put_aside(path)
    assert times_aside(path).exists()
    assert not times_of(path).exists()
    write("four", 400)
    write("five", 500)
    log_file = LogFile(path)
    dated = {line.text: line.unix_s for line in log_file.read()}
    log_file.close()
    assert dated == {"one": 100, "two": 200, "and": 200, "three": 400, "four": 400, "five": 500}
    os.truncate(path, 0)
    write("six", 600)
    assert read_times(times_of(path)) == [(4, 600.0)]
