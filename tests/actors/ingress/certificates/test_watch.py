"""Certificates that change while connections are made and are open, on real files and sockets, with each engine."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from http_stage import until
from made_certificates import Pair, key_lines, put, put_pair, swap_as_kubernetes, weak
from slabwire.actors.ingress.certificates import issuing
from slabwire.actors.ingress.certificates import watch as module
from slabwire.actors.ingress.certificates.authority import Authority
from slabwire.actors.ingress.certificates.certificate import Certificate, CertificateError
from slabwire.actors.ingress.certificates.source import CertificateFiles
from slabwire.actors.ingress.certificates.watch import CertificateWatch
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.libssl_terminator import LibsslTerminator
from slabwire.actors.ingress.tls.stdlib_terminator import StdlibTerminator
from slabwire.actors.ingress.tls.terminator import Terminator
from tls_stage import ENGINES, Door, leave, opened, plain_client, run

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "SETTLED_AFTER_S", 0.01)
    monkeypatch.setattr(module, "ROUSE_EVERY_S", 0.05)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("here", NOW)


@pytest.fixture
def folder(authority: Authority, tmp_path: Path) -> Path:
    put_pair(tmp_path / "tls", fresh(authority))
    return tmp_path / "tls"


def fresh(authority: Authority, kind: str = "ecdsa", now: datetime = NOW) -> Pair:
    return authority.issue(["localhost"], kind, now)


def terminator_for(engine: str, certificates: Sequence[Certificate]) -> Terminator:
    return StdlibTerminator(certificates) if engine == "stdlib" else LibsslTerminator(libssl(), certificates)


class Stage:
    """A door whose certificates are watched, and a client that trusts their authority."""

    def __init__(self, door: Door, watch: CertificateWatch, context: ssl.SSLContext) -> None:
        self.door, self.watch, self.context = door, watch, context

    def ask(self, session: ssl.SSLSession | None = None) -> tuple[bytes, bool, ssl.SSLSession]:
        """Meets and talks: the certificate that was shown, whether a ticket was taken, and the next ticket. Blocks."""
        with plain_client(self.door.address, self.context, session) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"X"
            return client.getpeercert(True), client.session_reused, client.session

    async def shown(self) -> str:
        """The generation that a new connection meets."""
        certificate, _, _ = await asyncio.to_thread(self.ask)
        return hashlib.sha256(certificate).hexdigest()[:12]

    async def swapped(self, times: int) -> None:
        """Until so many swaps were made."""
        await until(lambda: self.watch.swaps == times)


@asynccontextmanager
async def watched(engine: str, authority: Authority, *places: Path) -> AsyncIterator[Stage]:
    watch = CertificateWatch(CertificateFiles([(each, None) for each in places]))
    terminator = terminator_for(engine, watch.certificates)
    async with opened(terminator) as door:
        watch.start(terminator.swap)
        securing = asyncio.create_task(door.secure_all())
        context = ssl.create_default_context(cadata=issuing.pem_of(authority.certificate).decode())
        try:
            yield Stage(door, watch, context)
        finally:
            await watch.stop()
            securing.cancel()
            await asyncio.gather(securing, return_exceptions=True)


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_swaps_under_load_cost_no_handshake_no_ticket_and_no_stream(
    engine: str, authority: Authority, folder: Path
) -> None:
    swaps = 20

    async def scene() -> None:
        async with watched(engine, authority, folder) as stage:
            done, asked, seen = asyncio.Event(), 0, set[bytes]()

            async def load() -> None:
                nonlocal asked
                session: ssl.SSLSession | None = None
                while not done.is_set():
                    certificate, reused, session_now = await asyncio.to_thread(stage.ask, session)
                    assert reused == (session is not None)
                    seen.add(certificate)
                    fully, reused, _ = await asyncio.to_thread(stage.ask)
                    assert not reused
                    seen.add(fully)
                    asked, session = asked + 2, session_now

            reader, writer = await asyncio.open_connection(
                *stage.door.address, ssl=stage.context, server_hostname="localhost"
            )

            async def swap() -> None:
                for number in range(1, swaps + 1):
                    put_pair(folder, fresh(authority))  # one file after the other, and half of a pair between them
                    await stage.swapped(number)
                    writer.write(b"still")
                    assert await reader.readexactly(5) == b"STILL"
                    enough = asked + 6
                    while asked < enough:
                        await asyncio.sleep(0.001)
                done.set()

            await asyncio.gather(swap(), *(load() for _ in range(3)))
            await leave(writer)
            assert len(seen) > swaps / 2
            assert not stage.watch.refusal

    run(scene)


def test_the_volume_of_a_secret_is_swapped_as_kubernetes_does(
    engine: str, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    volume = tmp_path / "volume"
    swap_as_kubernetes(volume, fresh(authority), "2026_01")

    async def scene() -> None:
        async with watched(engine, authority, volume) as stage:
            for number, version in enumerate(("2026_02", "2026_03"), 1):
                swap_as_kubernetes(volume, fresh(authority), version)
                await stage.swapped(number)
                assert await stage.shown() == stage.watch.generation

    run(scene)
    swapped = [each.message for each in caplog.records if "swapped" in each.message]
    assert len(swapped) == 2
    assert f"{volume}/tls.crt, {volume}/tls.key changed" in swapped[0]


def test_a_link_to_a_file_may_come_to_mean_another_one(engine: str, authority: Authority, tmp_path: Path) -> None:
    def archive(name: str) -> Path:
        chain, key = fresh(authority)
        return put(tmp_path / "archive" / name, chain + key)

    (tmp_path / "live.pem").symlink_to(archive("1.pem"))

    async def scene() -> None:
        async with watched(engine, authority, tmp_path / "live.pem") as stage:
            (tmp_path / "new").symlink_to(archive("2.pem"))
            (tmp_path / "new").replace(tmp_path / "live.pem")
            await stage.swapped(1)
            assert await stage.shown() == stage.watch.generation

    run(scene)


def test_a_swap_is_written_down_once_with_fingerprints_dates_and_reason(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with watched("libssl", authority, folder) as stage:
            (old,) = stage.watch.certificates
            put_pair(folder, fresh(authority))
            await stage.swapped(1)
            put(folder / "tls.key", (folder / "tls.key").read_bytes())  # touched, and the same
            put(folder / "notes.txt", b"")
            await asyncio.sleep(0.1)
            (new,) = stage.watch.certificates
            (line,) = [each.message for each in caplog.records if "swapped" in each.message]
            assert f"generation {new.fingerprint[:12]} after {old.fingerprint[:12]}" in line
            assert f"since {folder}/tls.crt, {folder}/tls.key changed" in line
            assert f"SHA-256 {new.fingerprint}, valid {new.not_before:%Y-%m-%d %H:%M} to" in line
            assert f"before: ECDSA {folder}/tls.crt, SHA-256 {old.fingerprint}" in line
            assert not any(each in caplog.text for each in key_lines(folder / "tls.key"))
            told = stage.door.terminator.describe() | stage.watch.describe()
            assert (told["generation"], told["swaps"], told["refusal"]) == (new.fingerprint[:12], 1, None)
            assert told["certificates"][0]["sha256"] == new.fingerprint

    run(scene)


# -- what is not ------------------------------------------------------------------------------------------------------


def _half(folder: Path, authority: Authority) -> None:
    put(folder / "tls.crt", fresh(authority)[0])


def _wrong_key(folder: Path, authority: Authority) -> None:
    put(folder / "tls.key", fresh(authority)[1])


def _torn(folder: Path, authority: Authority) -> None:
    put(folder / "tls.crt", (folder / "tls.crt").read_bytes()[:200])


def _expired(folder: Path, authority: Authority) -> None:
    put_pair(folder, fresh(authority, now=NOW - timedelta(days=100)))


def _not_yet(folder: Path, authority: Authority) -> None:
    put_pair(folder, fresh(authority, now=NOW + timedelta(days=5)))


def _unreadable(folder: Path, authority: Authority) -> None:
    (folder / "tls.key").unlink()
    (folder / "tls.key").symlink_to("tls.key")  # a mode would stop nobody who is root


def _removed(folder: Path, authority: Authority) -> None:
    shutil.rmtree(folder)


def _weak(folder: Path, authority: Authority) -> None:
    put_pair(folder, weak(authority, ["localhost"]))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_half, r"no certificate in .* fits the key .*tls\.key"),
        (_wrong_key, r"no certificate in .* fits the key .*tls\.key"),
        (_torn, r"no certificate in .* fits the key .*tls\.key"),
        (_expired, r"ended on"),
        (_not_yet, r"is not valid before .*; see the clock"),
        (_unreadable, r"tls\.key cannot be read: Too many levels of symbolic links"),
        (_removed, r"cannot be read: No such file"),
        (_weak, r"OpenSSL does not take the certificate .*(?i:key too small)"),
    ],
)
def test_what_will_not_do_is_told_once_and_the_old_ones_go_on(
    engine: str,
    authority: Authority,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path, Authority], None],
    why: str,
) -> None:
    async def scene() -> None:
        async with watched(engine, authority, folder) as stage:
            old = stage.watch.generation
            spoil(folder, authority)
            await until(lambda: stage.watch.refusal)
            await asyncio.sleep(0.1)  # it is tried again, and told no second time
            assert stage.watch.describe()["refusal"] == stage.watch.refusal
            assert await stage.shown() == old == stage.door.terminator.describe()["generation"]
            put_pair(folder, fresh(authority))
            await stage.swapped(1)
            assert stage.watch.describe()["refusal"] is None
            assert await stage.shown() == stage.watch.generation != old

    run(scene)
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert re.search(f"new certificates are not taken, generation .* goes on: .*{why}", errors[0].message)


def test_the_old_ones_may_come_back(authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with watched("libssl", authority, folder) as stage:
            folder.rename(folder.with_name("away"))
            await until(lambda: stage.watch.refusal)
            folder.with_name("away").rename(folder)
            await until(lambda: not stage.watch.refusal)
            assert stage.watch.swaps == 0

    run(scene)
    assert "are in order again" in caplog.records[-1].message


def test_a_certificate_that_was_not_valid_yet_is_taken_when_it_is(
    authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with watched("libssl", authority, folder) as stage:
            put_pair(folder, fresh(authority, now=datetime.now(UTC) + timedelta(days=1, seconds=2)))
            await until(lambda: "not valid before" in stage.watch.refusal)
            await stage.swapped(1)

    run(scene)


def test_files_that_are_still_being_written_are_let_alone(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_AFTER_S", 0.1)

    async def scene() -> None:
        async with watched("libssl", authority, folder) as stage:
            chain, key = fresh(authority)
            for nbytes in range(0, len(key), 10):
                (folder / "tls.key").write_bytes(key[:nbytes])
                await asyncio.sleep(0.01)
            (folder / "tls.key").write_bytes(key)
            put(folder / "tls.crt", chain)
            await stage.swapped(1)

    run(scene)
    assert not caplog.records


def test_an_unexpected_error_ends_no_watch(
    authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> Any:
        raise ZeroDivisionError("never seen")

    async def scene() -> None:
        async with watched("libssl", authority, folder) as stage:
            with monkeypatch.context() as patched:
                patched.setattr(CertificateFiles, "read", fails)
                put_pair(folder, fresh(authority))
                await until(lambda: stage.watch.refusal == "ZeroDivisionError: never seen")
            await stage.swapped(1)

    run(scene)


def test_a_start_without_certificates_fails(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="cannot be read"):
        CertificateWatch(CertificateFiles([(tmp_path / "none", None)]))


# -- kinds ------------------------------------------------------------------------------------------------------------


def test_a_kind_may_come_and_go(engine: str, authority: Authority, folder: Path) -> None:
    async def scene() -> None:
        async with watched(engine, authority, folder) as stage:
            put_pair(folder, fresh(authority, "rsa"), "rsa")
            await stage.swapped(1)
            assert [each.kind for each in stage.watch.certificates] == ["RSA", "ECDSA"]
            ecdsa = stage.watch.certificates[1].fingerprint[:12]
            assert await stage.shown() == ecdsa
            (folder / "tls.crt").unlink()
            (folder / "tls.key").unlink()
            await stage.swapped(2)
            assert await stage.shown() == stage.watch.certificates[0].fingerprint[:12] != ecdsa

    run(scene)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_warning_comes_once_a_day_while_there_is_time(
    authority: Authority, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = NOW + timedelta(days=70)

    async def scene() -> None:
        nonlocal now
        watch = CertificateWatch(CertificateFiles([(folder, None)]), clock=lambda: now)
        terminator = terminator_for("libssl", watch.certificates)
        watch.start(terminator.swap)
        await asyncio.sleep(0.1)
        assert not caplog.records
        assert watch.describe()["days_left"] == 18
        for days in (80, 81, 100):
            now = NOW + timedelta(days=days)
            told = len(caplog.records) + 1
            while len(caplog.records) < told:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)
            assert len(caplog.records) == told
        await watch.stop()

    run(scene)
    levels = [(each.levelname, each.message.split(" on ")[0]) for each in caplog.records]
    ends = f"the certificate {folder}/tls.crt ends"
    assert levels == [("WARNING", ends), ("WARNING", ends), ("ERROR", ends.replace("ends", "ended"))]
