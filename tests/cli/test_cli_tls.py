"""`slabwire tls dev-cert` and `slabwire doctor --certificate`: what they make, what they refuse, what they say."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from made_certificates import key_lines
from slabwire.actors.ingress.certificates.authority import make_certificates
from slabwire.actors.ingress.certificates.certificate import CertificateError
from slabwire.actors.ingress.certificates.source import CertificateFiles
from slabwire.cli.doctor.certificates import judge_certificates
from slabwire.cli.root import root

Command = Callable[..., Result]
NOW = datetime.now(UTC)


@pytest.fixture
def slabwire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(root, words)


def modes_in(folder: Path) -> dict[str, int]:
    return {str(each.relative_to(folder)): each.stat().st_mode & 0o777 for each in (folder, *folder.rglob("*"))}


def test_what_is_made_is_what_an_ingress_takes(slabwire: Command, tmp_path: Path) -> None:
    result = slabwire("tls", "dev-cert", "tls", "--host", "box.example", "--kind", "rsa", "--kind", "ecdsa")
    assert result.exit_code == 0
    folder = tmp_path / "tls"
    found = CertificateFiles([(folder / "server", None)]).read()
    assert [each.kind for each in found] == ["ECDSA", "RSA"]
    assert all(each.names == frozenset(["localhost", "box.example"]) for each in found)
    assert f"CERTIFICATE={folder}/server slabwire run" in result.output
    assert f"curl --cacert {folder}/authority/authority.pem" in result.output
    assert not any(each in result.output for each in key_lines(*folder.rglob("*.key")))


def test_keys_are_for_our_eyes_only(slabwire: Command, tmp_path: Path) -> None:
    slabwire("tls", "dev-cert", "tls")
    assert modes_in(tmp_path / "tls") == {
        ".": 0o700,
        "authority": 0o700,
        "authority/authority.key": 0o600,
        "authority/authority.pem": 0o644,
        "server": 0o700,
        "server/ecdsa.crt": 0o644,
        "server/ecdsa.key": 0o600,
    }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("kind", ["ecdsa", "ed25519", "rsa"])
def test_openssl_finds_no_fault_with_them(slabwire: Command, kind: str) -> None:
    slabwire("tls", "dev-cert", "tls", "--kind", kind, "--host", "192.0.2.7")
    strictly = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "192.0.2.7"]
    trust = ["-CAfile", "tls/authority/authority.pem", f"tls/server/{kind}.crt"]
    assert subprocess.run([*strictly, *trust], capture_output=True, text=True, check=True).stdout.endswith(": OK\n")


def test_nothing_is_overwritten_and_the_authority_stays(slabwire: Command, tmp_path: Path) -> None:
    first = json.loads(slabwire("tls", "dev-cert", "tls", "--format", "json").output)
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    again = slabwire("tls", "dev-cert", "tls")
    assert again.exit_code == 1
    assert "server is there already, and nothing is overwritten: move it elsewhere" in again.output
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before
    (tmp_path / "tls" / "server").rename(tmp_path / "old")
    second = json.loads(slabwire("tls", "dev-cert", "tls", "--format", "json").output)
    assert (first["new_authority"], second["new_authority"]) == (True, False)
    assert Path(second["authority"]).read_bytes() == before[Path(first["authority"])]
    trust = ssl.create_default_context(cafile=second["authority"])
    assert len(trust.get_ca_certs()) == 1


def test_what_cannot_be_is_named(slabwire: Command, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "file").touch()
    for words, why in (
        (("open",), "chmod 700"),
        (("file/below",), "Not a directory; name another folder"),
        (("tls", "--host", "a b"), "'a b' is no name of a host"),
    ):
        result = slabwire("tls", "dev-cert", *words)
        assert result.exit_code == 1
        assert why in result.output


def test_an_authority_that_is_spoilt_or_over_signs_nothing(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls", ["localhost"], ["ecdsa"])
    made.server.rename(tmp_path / "old")
    with pytest.raises(CertificateError, match="ended on"):
        make_certificates(tmp_path / "tls", ["localhost"], ["ecdsa"], now=NOW + timedelta(days=4000))
    soon = make_certificates(tmp_path / "tls", ["localhost"], ["ecdsa"], now=NOW + timedelta(days=3600))
    assert soon.not_after < NOW + timedelta(days=3650)
    made.server.rename(tmp_path / "older")
    made.trusted.write_text("")
    with pytest.raises(CertificateError, match=r"authority\.pem holds no certificate"):
        make_certificates(tmp_path / "tls", ["localhost"], ["ecdsa"])


# -- the doctor -------------------------------------------------------------------------------------------------------


def test_the_doctor_says_whether_an_ingress_would_take_it(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls", ["localhost"], ["ecdsa", "rsa"], now=NOW)
    good = judge_certificates([made.server], None, NOW)
    assert (good.state, good.found) == ("ok", f"ECDSA, RSA, valid until {made.not_after:%Y-%m-%d %H:%M} UTC (88 days)")
    late = judge_certificates([made.server], None, NOW + timedelta(days=80))
    assert (late.state, late.fix) == ("note", "put a new one in its place; an ingress that runs takes it")
    over = judge_certificates([made.server], None, NOW + timedelta(days=90))
    assert (over.state, over.fix) == ("broken", "give a valid one")
    (made.server / "ecdsa.crt").unlink()
    torn = judge_certificates([made.server], None, NOW)
    assert torn.state == "broken"
    assert "fits the key" in torn.found
    assert "cannot be read" in judge_certificates([tmp_path / "none"], None).found


def test_the_doctors_option(slabwire: Command, tmp_path: Path) -> None:
    make_certificates(tmp_path / "tls", ["localhost"], ["ecdsa"])
    chain, key = "tls/server/ecdsa.crt", "tls/server/ecdsa.key"
    assert "certificate" not in slabwire("doctor").output
    assert "ECDSA, valid until" in slabwire("doctor", "--certificate", chain, "--key", key).output
    bad = slabwire("doctor", "--certificate", chain)
    assert bad.exit_code == 1
    assert "holds no private key" in bad.output
    assert slabwire("doctor", "--key", key).exit_code == 2
