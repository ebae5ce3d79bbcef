"""Logs when there is no room for them, and logs that grow too long."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from slabwire.cli.rendering.logfile import LogFile, LogFolder
from slabwire.runtime.logs import log_watch
from slabwire.runtime.logs.full_disk import Output
from slabwire.runtime.logs.log_rotation import aside, logs_in, long_logs, put_aside


@pytest.fixture
def descriptor() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def test_what_finds_no_room_is_counted_and_said_later(tmp_path: Path, descriptor: int) -> None:
    with Output(descriptor) as output:
        assert output.write(b"lost") == 4
        assert output.write(b"lost too") == 8
        room = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(room, descriptor)
        os.close(room)
        assert output.write(b"kept\n") == 5
        assert output.missing == 0
    os.close(descriptor)
    text = (tmp_path / "log").read_text()
    assert text == "\n(12 bytes of output are missing here: No space left on device)\nkept\n"


def test_other_errors_are_not_hidden(descriptor: int) -> None:
    output = Output(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        output.write(b"x")


def test_a_long_log_is_put_aside_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "scale.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"one\ntwo\n")
        assert long_logs(logs_in(tmp_path), 8) == []
        assert long_logs(logs_in(tmp_path), 7) == [path]
        put_aside(path)
        writer.write(b"three\n")
    assert (aside(path).read_text(), path.read_text()) == ("one\ntwo\n", "three\n")
    put_aside(path)
    assert (aside(path).read_text(), path.read_text()) == ("three\n", "")
    assert long_logs(logs_in(tmp_path / "gone"), 0) == []


def test_a_follower_reads_on_in_what_was_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "scale.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"one\n")
        log = LogFile(path)
        assert [line.text for line in log.read()] == ["one"]
        writer.write(b"two\nthree, which is lo")
        put_aside(path)
        writer.write(b"ng\nfour\n")
        assert [line.text for line in log.read()] == ["two", "three, which is long", "four"]
        log.close()
    with LogFolder(tmp_path) as logs:
        assert [line.text for line in logs.read()] == ["one", "two", "three, which is long", "four"]


def test_logs_are_put_aside_again_when_threads_can_be_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = 0

    async def to_thread(_write: object, rows: dict[Path, bytes], long: list[Path]) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("can't start new thread")
        assert (rows, [path.name for path in long]) == ({}, ["one.log"])
        raise asyncio.CancelledError

    monkeypatch.setattr(log_watch, "LOOK_EVERY_S", 0)
    monkeypatch.setattr(log_watch, "long_logs", lambda _: [tmp_path / "one.log"])
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(log_watch.LogWatch(tmp_path).watch())
    assert asked == 2
