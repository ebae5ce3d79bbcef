"""`slabwire keys`: complete folders or none, for their owner alone, and never a secret on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth
from click.testing import CliRunner, Result

from slabwire.runtime import keyring
from slabwire.runtime.cli.root import root
from slabwire.runtime.keys import ClientKeys, ServerKeys

Keys = Callable[..., Result]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(root, ["keys", *words])


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_folders_are_what_both_sides_read(keys: Keys, tmp_path: Path) -> None:
    said = keys("new", "server").output + keys("add", "server", "someone").output
    server, client = tmp_path / "server", tmp_path / "someone"
    ends = ServerKeys(server), ClientKeys(client)
    assert ends[1].server == ends[0].pair.public
    assert zmq.auth.load_certificates(server / "clients") == {ends[1].pair.public: True}
    assert [mode_of(each) for each in (server, server / "clients", client)] == [0o700] * 3
    assert [mode_of(each) for each in (server / "server.key_secret", client / "client.key_secret")] == [0o600] * 2
    secrets = [end.pair.secret.decode() for end in ends]
    assert not any(each in said or each in repr(end) for each in secrets for end in ends)
    assert sorted(each.name for each in client.iterdir()) == ["client.key", "client.key_secret", "server.key"]


def test_programs_read_json(keys: Keys) -> None:
    made = json.loads(keys("new", "server", "--format", "json").output)
    added = json.loads(keys("add", "server", "one", "--output", "a/b", "--format", "json").output)
    assert made["folder"] == "server"
    assert added["folder"] == "a/b"
    listed = json.loads(keys("list", "server", "--format", "json").output)
    assert listed == {"folder": "server", "clients": {"one": added["public_key"]}}
    assert added["public_key"] in keys("list", "server").output


def test_nothing_is_overwritten(keys: Keys, tmp_path: Path) -> None:
    keys("new", "server")
    keys("add", "server", "someone")
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    for words, why in (
        (("new", "server"), "never overwritten"),
        (("add", "server", "someone", "--output", "other"), "is there already"),
        (("add", "server", "other", "--output", "someone"), "never overwritten"),
        (("add", "server", "../other"), "no name of a client"),
        (("add", "nowhere", "other"), "server.key is missing"),
        (("list", "nowhere"), "server.key_secret is missing"),
    ):
        result = keys(*words)
        assert result.exit_code == 1
        assert why in result.output
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before


def test_an_end_in_the_middle_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keyring, "_write", end)
    with pytest.raises(KeyboardInterrupt):
        keyring.new_server(tmp_path / "server")
    assert not list(tmp_path.iterdir())


def test_who_cannot_be_let_in_gets_no_folder(keys: Keys, tmp_path: Path) -> None:
    keys("new", "server")
    (tmp_path / "server" / "clients").rmdir()
    (tmp_path / "server" / "clients").write_text("")
    result = keys("add", "server", "someone")
    assert result.exit_code == 1
    assert "clients cannot be made: " in result.output
    assert [each.name for each in tmp_path.iterdir()] == ["server"]
    (tmp_path / "server" / "clients").unlink()
    assert keys("add", "server", "someone").exit_code == 0


def test_an_entry_that_cannot_be_written_is_taken_back(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys("new", "server")
    write = keyring._write

    def fill_the_disk(path: Path, text: str, mode: int) -> None:
        if path.parent.name == "clients":
            text = "\ud800"  # fails after the file was made, as a full disk does
        write(path, text, mode)

    monkeypatch.setattr(keyring, "_write", fill_the_disk)
    with pytest.raises(UnicodeEncodeError):
        keyring.add_client(tmp_path / "server", "someone", tmp_path / "someone")
    assert [each.name for each in tmp_path.iterdir()] == ["server"]
    assert not list((tmp_path / "server" / "clients").iterdir())


def test_words_that_are_none(keys: Keys) -> None:
    result = keys("ad", "server", "someone")
    assert result.exit_code == 2
    assert "did you mean" in result.output
