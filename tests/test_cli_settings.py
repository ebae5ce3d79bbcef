"""Defaults of options from a file, below the environment and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_graphs import invoke
from slabwire.runtime.cli.exits import Exit
from slabwire.runtime.cli.settings import BadSettings, read_settings


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
        ('[layout]\nkind = "lnae"\n', "did you mean 'lane'?"),
    ],
)
def test_mistakes_in_it_are_named(folder: Path, text: str, message: str) -> None:
    (folder / "slabwire.toml").write_text(text)
    result = invoke("layout")
    assert result.exit_code in (Exit.FAILED, Exit.USAGE)
    assert message in result.stderr
    assert message in json.loads(invoke("layout", "--format", "json").stderr)["error"]["message"]
