"""Certificates that a user gives: files and directories, read and checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from made_certificates import key_lines, put, put_pair, reissued
from slabwire.actors.ingress.certificates.authority import Authority
from slabwire.actors.ingress.certificates.certificate import Certificate, CertificateError, generation_of
from slabwire.actors.ingress.certificates.source import CertificateFiles

NOW = datetime.now(UTC)
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def read(chain: Path, key: Path | None = None, *, now: datetime = NOW) -> Certificate:
    (found,) = CertificateFiles([(chain, key)]).read(now)
    return found


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("here", NOW)


def given(authority: Authority, folder: Path, name: str = "given", kind: str = "ecdsa") -> tuple[Path, Path]:
    return put_pair(folder, authority.issue([name], kind, NOW), name)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_given_certificate_is_taken_as_it_is(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    before = [(each.read_bytes(), each.stat().st_mtime_ns) for each in (chain, key)]
    taken = read(chain, key)
    own = x509.load_pem_x509_certificate(chain.read_bytes())
    assert (taken.chain, taken.key, taken.public, taken.kind) == (chain, key, chain, "ECDSA")
    assert (taken.not_before, taken.not_after) == (own.not_valid_before_utc, own.not_valid_after_utc)
    assert taken.names == frozenset(["given"])
    assert taken.fingerprint.startswith(generation_of([taken]))
    assert [(each.read_bytes(), each.stat().st_mtime_ns) for each in (chain, key)] == before


def test_one_file_may_hold_both(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    both = put(tmp_path / "both.pem", chain.read_bytes() + key.read_bytes())
    assert read(both).fingerprint == read(chain, key).fingerprint


def test_another_certificate_behind_it_makes_another_generation(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    alone = read(chain, key)
    put(chain, chain.read_bytes() + authority.certificate.public_bytes(PEM))
    longer = read(chain, key)
    assert len(longer.chain_der) == 2
    assert longer.fingerprint == alone.fingerprint
    assert generation_of([longer]) != generation_of([alone])


def test_a_file_that_is_not_there_is_named(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    with pytest.raises(CertificateError, match=r"the certificate .*/no\.crt cannot be read: No such file"):
        read(tmp_path / "no.crt", key)
    with pytest.raises(CertificateError, match=r"the key .*/no\.key cannot be read: No such file"):
        read(chain, tmp_path / "no.key")


def test_files_that_hold_something_else_are_named(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    with pytest.raises(CertificateError, match=r"given\.key holds no certificate in PEM"):
        read(key, key)
    with pytest.raises(CertificateError, match=r"given\.crt holds no private key in PEM"):
        read(chain)
    with pytest.raises(CertificateError, match=r"big is no certificate: it has over 1 MiB"):
        read(put(tmp_path / "big", bytes(2 << 20)), key)


def test_a_key_that_does_not_fit_is_named_and_not_told(authority: Authority, tmp_path: Path) -> None:
    (chain, _), (_, key) = given(authority, tmp_path, "one"), given(authority, tmp_path, "two")
    with pytest.raises(CertificateError, match=r"two\.key does not fit the certificate .*one\.crt") as caught:
        read(chain, key)
    assert not any(each in repr(caught.value) for each in key_lines(key))
    taken = read(*given(authority, tmp_path))
    assert not any(each in f"{taken!r} {taken}" for each in key_lines(taken.key))


def test_an_rsa_key_whose_secret_half_is_spoilt_does_not_fit(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path, kind="rsa")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    right = private.private_numbers()
    spoilt = rsa.RSAPrivateNumbers(
        right.p, right.q, right.d + 2, right.dmp1 + 2, right.dmq1, right.iqmp, right.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    put(key, spoilt.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    with pytest.raises(CertificateError, match="does not fit"):
        read(chain, key)


def test_an_encrypted_key_is_refused(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    encryption = serialization.BestAvailableEncryption(b"secret")
    put(key, ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, encryption))
    with pytest.raises(CertificateError, match=r"given\.key is encrypted; give one without a pass phrase"):
        read(chain, key)


def test_a_kind_that_tls_has_no_use_for_is_refused(authority: Authority, tmp_path: Path) -> None:
    key = dsa.generate_private_key(2048)
    _, name = authority.certificate.subject, authority.certificate.subject
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    own = builder.sign(authority.key, authority.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
    chain = put(tmp_path / "dsa.crt", own.public_bytes(PEM))
    with pytest.raises(CertificateError, match="of a kind that TLS has no use for"):
        read(chain, put(tmp_path / "dsa.key", key.private_bytes(PEM, PKCS8, serialization.NoEncryption())))


def test_dates_are_checked(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path)
    with pytest.raises(CertificateError, match="ended on"):
        read(chain, key, now=NOW + timedelta(days=90))
    with pytest.raises(CertificateError, match=r"is not valid before .*; see the clock"):
        read(chain, key, now=NOW - timedelta(days=2))


# -- several, and directories -----------------------------------------------------------------------------------------


def kinds_in(*places: Path) -> list[str]:
    return sorted(each.kind for each in CertificateFiles([(place, None) for place in places]).read(NOW))


@pytest.fixture
def three(authority: Authority, tmp_path: Path) -> Path:
    for kind in ("ecdsa", "rsa", "ed25519"):
        given(authority, tmp_path / "three", kind, kind)
    return tmp_path / "three"


def test_a_directory_holds_a_certificate_of_each_kind(three: Path) -> None:
    assert kinds_in(three) == ["ECDSA", "Ed25519", "RSA"]


def test_certificates_without_a_key_and_hidden_files_are_left_alone(authority: Authority, three: Path) -> None:
    put(three / "ca.crt", authority.certificate.public_bytes(PEM))
    put(three / ".old.key", b"-----BEGIN PRIVATE KEY-----")
    put(three / "README", b"\xff\xfe")
    (three / "sub").mkdir()
    assert kinds_in(three) == ["ECDSA", "Ed25519", "RSA"]


def test_a_key_may_lie_in_two_files_and_the_longest_chain_counts(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path / "d", "cert")
    full = chain.read_bytes() + authority.certificate.public_bytes(PEM)
    put(chain.with_name("fullchain.pem"), full)
    put(chain.with_name("a-both.pem"), key.read_bytes() + chain.read_bytes())
    assert read(tmp_path / "d").chain.name == "fullchain.pem"
    assert len(read(tmp_path / "d").chain_der) == 2


def test_of_two_certificates_for_one_key_the_later_is_taken(authority: Authority, tmp_path: Path) -> None:
    chain, key = given(authority, tmp_path / "d", "b")
    later = reissued(authority, key.read_bytes(), ["b"], NOW + timedelta(days=5))
    put(chain.with_name("a.crt"), later)
    assert read(tmp_path / "d", now=NOW + timedelta(days=6)).chain.name == "a.crt"


def test_a_key_without_its_certificate_is_named(authority: Authority, three: Path) -> None:
    (three / "rsa.crt").unlink()
    with pytest.raises(CertificateError, match=r"no certificate in .*three fits the key .*rsa\.key; put both there"):
        kinds_in(three)


@pytest.mark.parametrize("name", ["rsa.key", "rsa-key.pem"])
def test_a_key_that_is_just_being_written_is_missed(three: Path, name: str) -> None:
    (three / "rsa.key").unlink()
    put(three / name, b"")
    with pytest.raises(CertificateError, match=rf"{name} holds no private key in PEM"):
        kinds_in(three)


def test_two_of_one_kind_are_named(authority: Authority, three: Path) -> None:
    given(authority, three, "other")
    with pytest.raises(CertificateError, match=r"ecdsa\.crt and .*other\.crt are both for ECDSA keys"):
        kinds_in(three)
    with pytest.raises(CertificateError, match="both for"):
        CertificateFiles(
            [(three / "ecdsa.crt", three / "ecdsa.key"), (three / "other.crt", three / "other.key")]
        ).read()


def test_what_is_no_directory_of_certificates_is_named(authority: Authority, tmp_path: Path, three: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CertificateError, match="empty holds no private key"):
        kinds_in(tmp_path / "empty")
    with pytest.raises(CertificateError, match=r"is a directory, in which keys are found; give no key="):
        read(three, three / "ecdsa.key")
    for number in range(100):
        put(three / f"{number}.txt", b"")
    with pytest.raises(CertificateError, match="has over 100 files"):
        kinds_in(three)


def test_directories_and_files_together(authority: Authority, tmp_path: Path, three: Path) -> None:
    (three / "rsa.crt").rename(tmp_path / "rsa.crt")
    (three / "rsa.key").rename(tmp_path / "rsa.key")
    places = [(tmp_path / "rsa.crt", tmp_path / "rsa.key"), (three, None)]
    assert [each.kind for each in CertificateFiles(places).read(NOW)] == ["RSA", "ECDSA", "Ed25519"]


# -- how they look ----------------------------------------------------------------------------------------------------


def test_a_look_changes_when_something_changes_and_only_then(authority: Authority, three: Path) -> None:
    files = CertificateFiles([(three, None), (three / "rsa.crt", three / "rsa.key")])
    looks = [files.look()]
    assert files.look() == looks[0]
    put(three / "new.crt", b"")
    looks.append(files.look())
    put(three / "rsa.key", (three / "rsa.key").read_bytes())  # the same, as another file
    looks.append(files.look())
    three.rename(three.with_name("gone"))
    looks.append(files.look())
    three.symlink_to("gone")
    looks.append(files.look())
    (three / "ecdsa.key").chmod(0)
    looks.append(files.look())
    assert all(one != other for one, other in pairwise(looks))
