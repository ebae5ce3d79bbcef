"""What is lost where an ingress has no libssl is said wherever one may look."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import pytest

from front_door import Door, counting
from slabwire.cli.doctor.surroundings import judge_libssl
from slabwire.runtime.host.libssl import LOST


@pytest.mark.parametrize("named", ["stdlib", None])
def test_log_metrics_and_doctor_name_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))
    if named is not None:
        monkeypatch.setenv("SLABWIRE_LIBSSL", named)
    lost = LOST if named is not None else {}
    with counting(tmp_path).run() as running:
        door = Door(running)
        with urllib.request.urlopen(f"{door.told['url']}/metrics", context=door.context) as answer:
            shown = answer.read().decode()
        logged = (tmp_path / "run" / "counting" / "logs" / "ingress.log").read_text()
    assert [f'slabwire_tls_features_lost{{feature="{each}"}} 1.0' in shown for each in LOST] == [
        each in lost for each in LOST
    ]
    assert [text in logged for text in LOST.values()] == [each in lost for each in LOST]


def test_doctor_names_each_beforehand() -> None:
    fix = judge_libssl("", "no libssl", ssl.OPENSSL_VERSION, has_tls13=True).fix
    assert all(text in fix for text in LOST.values())
