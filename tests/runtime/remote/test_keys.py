"""`slabwire keys`: complete folders or none, for their owner alone, and never a secret on the screen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq.auth
from click.testing import CliRunner, Result

from slabwire.cli.root import root
from slabwire.runtime.errors import StartError
from slabwire.runtime.remote import curve_keyring as keyring
from slabwire.runtime.remote import curve_keys as keys_of
from slabwire.runtime.remote.curve_keys import Admission, ClientKeys, ServerKeys

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


def mounted(keys: Path, folder: Path, version: str = "..2026_01_01") -> Path:
    """A folder of keys as Kubernetes mounts a secret: files are links into the folder that `..data` is a link to."""
    (folder / version).mkdir(parents=True)
    for path in keys.rglob("*"):
        if path.is_file():
            copy = folder / version / path.relative_to(keys)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o440)
    (folder / "..fresh").symlink_to(version)
    (folder / "..fresh").rename(folder / "..data")
    for path in keys.iterdir():
        if not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(f"..data/{path.name}")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    keyring.new_server(tmp_path / "server")
    keyring.add_client(tmp_path / "server", "someone", tmp_path / "someone")
    return tmp_path


def test_secrets_as_kubernetes_mounts_them_are_read(made: Path) -> None:
    server, client = mounted(made / "server", made / "mounted"), mounted(made / "someone", made / "theirs")
    found = ServerKeys(server)
    assert ClientKeys(client).server == found.pair.public
    admission = Admission(found.clients)
    someone = ClientKeys(client).pair.public
    assert admission.callback("", someone)
    keyring.add_client(made / "server", "other", made / "other")
    (made / "server" / "clients" / "someone.key").unlink()
    mounted(made / "server", server, "..2026_01_02")
    assert not admission.callback("", someone)
    assert admission.callback("", ClientKeys(made / "other").pair.public)


@pytest.mark.parametrize(
    ("mode", "user", "group", "why"),
    [
        (0o400, 0, 9000, ""),
        (0o440, 0, 9000, ""),
        (0o440, 1000, 9000, ""),
        (0o640, 1000, 9000, ""),
        (0o440, 0, 1000, ""),
        (0o600, 1000, 4000, ""),
        (0o444, 0, 9000, "others on this host"),
        (0o604, 1000, 1000, "others on this host"),
        (0o602, 1000, 1000, "others on this host"),
        (0o440, 0, 4000, "group 4000, which is none of ours, may read it"),
        (0o440, 1000, 0, "group 0, which is none of ours, may read it"),
        (0o460, 0, 9000, "group 9000 may change it"),
        (0o440, 2000, 9000, "it belongs to user 2000"),
        (0o400, 2000, 9000, "it belongs to user 2000"),
    ],
)
def test_a_group_of_ours_may_read_a_secret(
    made: Path, monkeypatch: pytest.MonkeyPatch, mode: int, user: int, group: int, why: str
) -> None:
    """User 1000, of group 1000 and of 9000 besides."""
    path = made / "someone" / "client.key_secret"
    path.chmod(mode)
    fields = list(path.stat())
    fields[4:6] = user, group
    status = os.stat_result(fields)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [9000])
    assert why in (found := keys_of._why_open(status))
    assert bool(why) == bool(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user is root's")
def test_what_another_user_or_group_may_read_is_refused(made: Path) -> None:
    secret = made / "someone" / "client.key_secret"
    for user, group, why in ((12345, os.getegid(), "it belongs to user 12345"), (0, 54321, "group 54321")):
        os.chown(secret, user, group)
        secret.chmod(0o440)
        with pytest.raises(StartError, match=f"{secret} holds a secret, and .*{why}.*; chmod 600"):
            ClientKeys(made / "someone")
    os.chown(secret, 0, os.getegid())
    ClientKeys(made / "someone")
