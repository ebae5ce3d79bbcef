"""The certificate for development: on real files, checked by Python's ssl and the openssl command."""

from __future__ import annotations

import logging
import shutil
import ssl
import stat
import subprocess
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from made_certificates import key_lines
from slabwire.actors.ingress.certificates import development as module
from slabwire.actors.ingress.certificates import private_files
from slabwire.actors.ingress.certificates.certificate import Certificate, CertificateError
from slabwire.actors.ingress.certificates.development import (
    DevelopmentFiles,
    development_certificate,
    state_directory,
)
from slabwire.actors.llm.model_file.cache_folder import cache_directory
from slabwire.actors.llm.model_file.gguf import ModelFileError

NOW = datetime.now(UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tls"


def public_of(certificate: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.public.read_bytes())


def shake_hands(certificate: Certificate, host: str, flags: ssl.VerifyFlags) -> str | None:
    """The protocol that a client who trusts the public file, and expects `host`, agrees on; all in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.chain, certificate.key)
    client = ssl.create_default_context(cafile=certificate.public)
    client.verify_flags |= flags
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=host), server.wrap_bio(to_server, to_client, True)]
    for _ in range(3):
        for each in ends:
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "10.1.2.3", "box.example"])
@pytest.mark.parametrize("flags", [ssl.VERIFY_DEFAULT, ssl.VERIFY_X509_STRICT])
def test_clients_trust_a_development_certificate_by_its_public_file_alone(
    directory: Path, host: str, flags: ssl.VerifyFlags
) -> None:
    made = development_certificate(host, directory)
    assert shake_hands(made, host, flags) == "TLSv1.3"
    assert shake_hands(made, "localhost", flags) == "TLSv1.3"


def test_a_development_certificate_is_for_nobody_else(directory: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(development_certificate("localhost", directory), "example.com", ssl.VERIFY_DEFAULT)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_finds_no_fault_with_it(directory: Path) -> None:
    public = str(development_certificate("localhost", directory).public)
    strictly = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", public, public]
    assert subprocess.run(strictly, capture_output=True, text=True, check=True).stdout.strip() == f"{public}: OK"


def test_it_can_sign_nothing(directory: Path) -> None:
    extensions = public_of(development_certificate("localhost", directory)).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_its_key_is_for_our_eyes_only(directory: Path) -> None:
    made = development_certificate("localhost", directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in made.public.read_bytes()


def test_it_is_made_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = development_certificate("localhost", directory), development_certificate("127.0.0.1", directory)
    assert first == second
    assert [each.message for each in caplog.records] == [
        "made a development certificate for 127.0.0.1, ::1, localhost: there was none"
    ]


def test_each_host_has_its_own(directory: Path) -> None:
    files = {
        development_certificate(host, directory).public for host in ("localhost", "a.example", "10.0.0.1", "fe80::1")
    }
    assert len(files) == 4


def test_all_addresses_stand_for_the_machines_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    made = development_certificate("0.0.0.0", directory)
    assert made == development_certificate("::", directory)
    assert shake_hands(made, "box", ssl.VERIFY_DEFAULT) == "TLSv1.3"


@pytest.mark.parametrize("host", ["", "../up", "a/b", "a b", ".", "..", "-", "ä.example", "x" * 300])
def test_a_host_that_is_none_is_refused(directory: Path, host: str) -> None:
    with pytest.raises(CertificateError, match="is no name of a host"):
        development_certificate(host, directory)


@pytest.mark.parametrize("days", [0, 58])
def test_it_is_kept_while_it_lasts(directory: Path, days: int) -> None:
    first = development_certificate("localhost", directory, now=NOW)
    assert first == development_certificate("localhost", directory, now=NOW + timedelta(days=days))


@pytest.mark.parametrize("days", [60, 1000, -30])
def test_one_that_ends_soon_or_is_not_yet_valid_is_replaced(directory: Path, days: int) -> None:
    first, later = development_certificate("localhost", directory, now=NOW), NOW + timedelta(days=days)
    second = development_certificate("localhost", directory, now=later)
    assert second.not_after - later > timedelta(days=80)
    assert second.not_after != first.not_after
    assert public_of(second).not_valid_before_utc < later


def _cut(pair: Path) -> None:
    pair.write_bytes(pair.read_bytes()[:300])


def _mix(pair: Path) -> None:
    """The key of another one."""
    other = development_certificate("other", pair.parent)
    key = other.key.read_text().partition("-----BEGIN CERTIFICATE")[0]
    pair.write_text(key + pair.read_text().partition("-----END PRIVATE KEY-----\n")[2])


def _open(pair: Path) -> None:
    pair.chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_cut, "no certificate"), (_mix, "does not fit"), (_open, "others could read")]
)
def test_one_that_is_spoilt_is_replaced_and_the_reason_told(
    directory: Path, caplog: pytest.LogCaptureFixture, spoil: object, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    first = development_certificate("localhost", directory)
    secrets = key_lines(first.key)
    assert callable(spoil)
    spoil(first.key)
    second = development_certificate("localhost", directory)
    assert shake_hands(second, "localhost", ssl.VERIFY_DEFAULT) == "TLSv1.3"
    assert stat.S_IMODE(second.key.stat().st_mode) == 0o600
    assert reason in caplog.records[-1].message
    assert not any(each in caplog.text for each in [*secrets, *key_lines(second.key)])


def test_a_running_ingress_renews_it_once_a_day(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(directory.parent))
    old = development_certificate("localhost", directory, now=NOW - timedelta(days=57))
    source = DevelopmentFiles("127.0.0.1")
    today = source.look()
    assert source.read() == (old,)
    assert source.look() == today

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:  # type: ignore[override]
            return date.today() + timedelta(days=1)

    monkeypatch.setattr(module, "date", Tomorrow)
    assert source.look() != today
    development_certificate("localhost", directory, now=NOW + timedelta(days=3))  # as another ingress does then
    assert source.read()[0].not_after > old.not_after


def test_the_public_file_is_put_right_if_a_crash_left_an_old_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = development_certificate("localhost", directory).public.read_bytes()
    replace = private_files.replace_file

    def dies(path: Path, content: bytes, mode: int) -> None:
        if path.name == "localhost.pem":
            raise KeyboardInterrupt
        replace(path, content, mode)

    later = NOW + timedelta(days=80)
    monkeypatch.setattr(module, "replace_file", dies)
    with pytest.raises(KeyboardInterrupt):
        development_certificate("localhost", directory, now=later)
    monkeypatch.undo()
    assert (directory / "localhost.pem").read_bytes() == old
    made = development_certificate("localhost", directory, now=later)
    assert made.public.read_bytes() != old
    assert made.public.read_bytes() in made.chain.read_bytes()


def test_what_a_crash_left_half_written_is_in_nobodys_way(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / ".new").write_text("-----BEGIN PRI")
    development_certificate("localhost", directory)
    assert sorted(each.name for each in directory.iterdir()) == [".lock", "localhost.key.pem", "localhost.pem"]


def test_makers_at_the_same_time_agree(directory: Path) -> None:
    start, made = threading.Barrier(8), []

    def make() -> None:
        start.wait()
        made.append(development_certificate("localhost", directory).public.read_bytes())

    makers = [threading.Thread(target=make) for _ in range(8)]
    for each in makers:
        each.start()
    for each in makers:
        each.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_a_directory_that_others_may_enter_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    directory.chmod(0o755)
    with pytest.raises(CertificateError, match=f"chmod 700 {directory}"):
        development_certificate("localhost", directory)


def test_a_directory_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CertificateError, match=r"file/tls: Not a directory; set SLABWIRE_STATE_DIR"):
        development_certificate("localhost", tmp_path / "file" / "tls")


def test_where_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("SLABWIRE_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_directory() == Path("/home/someone/.local/state/slabwire")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_directory() == Path("/state/slabwire")
    monkeypatch.setenv("SLABWIRE_STATE_DIR", "/mine")
    assert state_directory() == Path("/mine")


def test_who_has_no_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_uid: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", find)
    for name in ("HOME", "SLABWIRE_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CertificateError, match=r"there is no home folder .*; set SLABWIRE_STATE_DIR .*certificate="):
        development_certificate()
    with pytest.raises(ModelFileError, match=r"there is no home folder .*; set SLABWIRE_CACHE_DIR"):
        cache_directory()
