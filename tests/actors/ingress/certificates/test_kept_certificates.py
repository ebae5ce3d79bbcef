"""Certificates in memory that outlives a process: whole or none, and written by one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from made_certificates import key_lines, put, put_pair
from slabwire.actors.ingress.certificates.authority import Authority
from slabwire.actors.ingress.certificates.certificate import Certificate, CertificateError
from slabwire.actors.ingress.certificates.kept_certificates import CERTIFICATES, KeptCertificates
from slabwire.actors.ingress.certificates.source import CertificateFiles
from slabwire.actors.ingress.certificates.watch import CertificateWatch
from slabwire.runtime.actor.kept import Kept
from slabwire.shm.layout import prove

NOW = datetime.now(UTC)


def memory() -> bytearray:
    return bytearray(CERTIFICATES.place().nbytes)


def kept_in(memory: bytearray, replica: int = 0) -> KeptCertificates:
    whole = memoryview(memory)
    return KeptCertificates(Kept(whole.cast("Q"), whole, CERTIFICATES.place(), replica))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority.new("here", NOW)
    for kind in ("ecdsa", "rsa", "ed25519"):
        put_pair(tmp_path / "tls", authority.issue(["localhost"], kind, NOW), kind)
    return tmp_path / "tls"


def read(folder: Path) -> tuple[Certificate, ...]:
    return CertificateFiles([(folder, None)]).read()


def test_the_layout_keeps_the_rule() -> None:
    prove(CERTIFICATES.place())


def test_what_was_saved_last_is_read_whole(folder: Path) -> None:
    shared, found = memory(), read(folder)
    assert kept_in(shared).read() == ()
    for count in (3, 1, 2):
        kept_in(shared).save(found[:count])
        assert kept_in(shared, 1).read() == found[:count]


def test_only_the_first_replica_writes(folder: Path) -> None:
    shared = memory()
    kept_in(shared, 1).save(read(folder))
    assert not any(shared)


def test_a_writer_that_dies_before_the_last_store_has_changed_nothing(folder: Path) -> None:
    shared, found = memory(), read(folder)
    kept_in(shared).save(found[:1])
    before, word = bytes(shared), CERTIFICATES.place()["written"]
    kept_in(shared).save(found[1:])
    shared[word : word + 8] = before[word : word + 8]
    assert kept_in(shared).read() == found[:1]
    kept_in(shared).save(found)
    assert kept_in(shared).read() == found


def test_a_slot_that_is_overwritten_while_it_is_read_is_not_believed(folder: Path) -> None:
    shared = memory()
    kept_in(shared).save(read(folder))
    shared[CERTIFICATES.place()["slot_1"] + 100] ^= 1
    assert kept_in(shared).read() == ()


def test_what_is_too_large_is_not_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = memory()
    kept_in(shared).save(read(folder) * 100)
    assert "too large to be kept" in caplog.text
    assert not any(shared)


def test_a_process_that_starts_anew_has_what_was_in_use(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared, source = memory(), CertificateFiles([(folder, None)])
    first = CertificateWatch(source, kept_in(shared))
    assert not any(shared)  # the engine has not taken them yet
    kept_in(shared).save(first.certificates)
    put(folder / "rsa.key", b"")
    with pytest.raises(CertificateError):
        CertificateWatch(source, kept_in(memory()))
    second = CertificateWatch(source, kept_in(shared))
    assert second.certificates == first.certificates
    assert second.generation == first.generation
    assert "the certificates of the process before this one go on" in caplog.records[-1].message
    assert second.describe()["refusal"]
    assert not any(each in caplog.text for each in key_lines(folder / "ecdsa.key"))
