"""Defaults of options from a file, below the environment and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_graphs import invoke
from slabwire.cli.exits import Exit
from slabwire.cli.settings import BadSettings, read_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kind_of(*words: str, environment: dict[str, str] | None = None) -> str:
    result = invoke("layout", *words, environment=environment)
    assert result.exit_code == Exit.OK, result.stderr
    return str(json.loads(result.stdout)["layouts"][0]["name"])


def test_option_over_environment_over_file(folder: Path) -> None:
    (folder / "slabwire.toml").write_text('[layout]\nkind = "bell"\nformat = "json"\n')
    assert kind_of() == "bell"
    assert kind_of(environment={"SLABWIRE_LAYOUT_KIND": "lane"}) == "lane"
    assert kind_of("--kind", "slab", environment={"SLABWIRE_LAYOUT_KIND": "lane"}) == "slab"


def test_where_the_file_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings() == ("", {})
    (folder / "pyproject.toml").write_text("[tool.slabwire.run]\ndrain-timeout = 5\n[tool.other]\n")
    assert read_settings() == ("pyproject.toml", {"run": {"drain_timeout": 5}})
    (folder / "slabwire.toml").write_text("")
    assert read_settings() == ("slabwire.toml", {})
    (folder / "mine.toml").write_text("[top]\nonce = true\n")
    monkeypatch.setenv("SLABWIRE_CONFIG", "mine.toml")
    assert read_settings() == ("mine.toml", {"top": {"once": True}})
    monkeypatch.setenv("SLABWIRE_CONFIG", "missing.toml")
    with pytest.raises(BadSettings, match=r"cannot read missing\.toml: No such file"):
        read_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[layuot]\n", "slabwire.toml: there is no command 'layuot'; did you mean 'layout'?"),
        ("[layout]\nknid = 1\n", "slabwire.toml: `slabwire layout` has no option 'knid'; did you mean 'kind'?"),
        ("kind = 1\n", "'kind' stands outside a command's table"),
        ("[layout\n", "cannot read slabwire.toml: "),
        ('[layout]\nkind = "lnae"\n', "slabwire.toml: kind of [layout]: there is no kind 'lnae'; did you mean 'lane'?"),
        ("[layout]\nkind = [1]\n", "slabwire.toml: kind of [layout] takes one text or number, not [1]"),
        ("[layout.new]\nkind = 1\n", "slabwire.toml: `slabwire layout` has no option 'new'"),
        (
            "[layout]\n\nkind =\n",
            "cannot read slabwire.toml: line 3: Invalid value; mend it, or go without: SLABWIRE_CONFIG=",
        ),
        ("[layout]\nkind = [\n", "cannot read slabwire.toml: line 2: "),
        (f"[layout]\nkind = {'[' * 9999}\n", "cannot read slabwire.toml: its values are nested too deeply"),
        ("[debug]\n", "slabwire.toml: there is no command 'debug'"),
    ],
)
def test_mistakes_in_it_are_named(folder: Path, text: str, message: str) -> None:
    (folder / "slabwire.toml").write_text(text)
    result = invoke("layout")
    assert result.exit_code in (Exit.FAILED, Exit.USAGE)
    assert message in result.stderr
    assert message in json.loads(invoke("layout", "--format", "json").stderr)["error"]["message"]
    assert "Traceback" not in result.stderr


def test_commands_of_commands_have_defaults(folder: Path) -> None:
    (folder / "slabwire.toml").write_text('[keys.new]\nformat = "json"\n[bench.read-page]\n')
    assert json.loads(invoke("keys", "new", "server").stdout)["folder"] == "server"
    assert invoke("keys", "list", "server").stdout.startswith("nobody may come in yet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[keys.nwe]\n", "`slabwire keys` has no command 'nwe'; did you mean 'new'?"),
        ('[keys.add]\noutptu = "x"\n', "`slabwire keys add` has no option 'outptu'; did you mean 'output'?"),
        ('[keys]\nnew = "x"\n', "`slabwire keys` has no option 'new'"),
        ('[keys.new]\nformat = "jsno"\n', "slabwire.toml: format of [keys.new]: 'jsno' is not one of "),
    ],
)
def test_mistakes_in_tables_of_commands_of_commands_are_named(folder: Path, text: str, message: str) -> None:
    (folder / "slabwire.toml").write_text(text)
    result = invoke("keys", "new", "server")
    assert result.exit_code in (Exit.FAILED, Exit.USAGE)
    assert message in result.stderr
    assert not (folder / "server").exists()


def test_a_value_of_the_command_line_is_no_mistake_of_the_file(folder: Path) -> None:
    (folder / "slabwire.toml").write_text('[layout]\nkind = "lane"\n')
    assert "slabwire.toml" not in invoke("layout", "--kind", "lnae").stderr
    assert "slabwire.toml" not in invoke("layout", environment={"SLABWIRE_LAYOUT_KIND": "lnae"}).stderr


@pytest.mark.parametrize("content", [b"[run\n", b"[run]\nlisten = '\xff'\n", b"[lyaout]\n"])
def test_help_version_completion_and_doctor_need_no_file(folder: Path, content: bytes) -> None:
    (folder / "slabwire.toml").write_bytes(content)
    for words in (
        ("--help",),
        ("--version",),
        ("run", "--help"),
        ("keys", "-h"),
        ("keys", "new", "--help"),
        ("completion", "bash"),
    ):
        result = invoke(*words)
        assert (result.exit_code, result.stderr) == (Exit.OK, ""), words
    begun = {"_SLABWIRE_COMPLETE": "bash_complete", "COMP_WORDS": "slabwire lay", "COMP_CWORD": "1"}
    assert "layout" in invoke(environment=begun).stdout
    checks = {each["name"]: each for each in json.loads(invoke("doctor", "--format", "json").stdout)["checks"]}
    assert checks["settings"]["state"] == "broken"
    assert "slabwire.toml" in checks["settings"]["found"]
    for words in (("layout",), ("keys", "new", "server"), ("run",)):
        assert "slabwire.toml: " in invoke(*words).stderr
    assert not (folder / "server").exists()
    assert kind_of("--kind", "bell", "--format", "json", environment={"SLABWIRE_CONFIG": "/dev/null"}) == "bell"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[project\n", ""),
        (b"\xff[tool.other]\n[tool]\nother = 1\n[more]\nslabwire.x = 1\n", ""),
        (b'[tool.slabwire.layout]\nkind = "lane"\n[project\n', "cannot read pyproject.toml: line 3: "),
        (
            b"[tool.slabwire.layout]\n# \xff\n",
            "cannot read pyproject.toml: line 2: byte 0xff is not UTF-8; save it as UTF-8",
        ),
        (b"[tool] # ours\n\nslabwire = { = }\n", "cannot read pyproject.toml: line 3: "),
        (b'tool . "slabwire".layout.kind = \n', "cannot read pyproject.toml: line 1: "),
    ],
)
def test_a_broken_pyproject_counts_if_it_has_a_table_of_ours(folder: Path, content: bytes, words: str) -> None:
    (folder / "pyproject.toml").write_bytes(content)
    result = invoke("layout", "--kind", "lane", "--format", "json")
    assert result.exit_code == (Exit.FAILED if words else Exit.OK)
    assert words in (json.loads(result.stderr)["error"]["message"] if words else result.stderr)
