"""TLS in the kernel: asked for, refused here or taken, and in both cases the client notices nothing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from front_door import Door, counting
from slabwire.actors.ingress import Ingress
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tls import libssl_terminator
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.libssl_terminator import LibsslTerminator
from slabwire.runtime.errors import GraphError
from slabwire.runtime.host.kernel_tls import why_not
from tls_stage import client_context, connect, opened, run


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return development_certificate("localhost", tmp_path / "tls")


def test_it_is_asked_for_and_what_comes_of_it_is_told(tmp_path: Path) -> None:
    refusal = why_not()
    with counting(tmp_path, kernel_tls=True).run() as running:
        door = Door(running)
        assert door.get("/livez")[0] == 200
        connection, answer = door.chat()
        (tmp_path / "go").touch()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        told = running.client.call("ingress.describe")["tls"]["kernel"]
        logged = (tmp_path / "run" / "counting" / "logs" / "ingress.log").read_text()
    assert told["refusal"] == (refusal or None)
    assert not (refusal and told["connections"])
    assert ("kernel_tls=True is not to be had" in logged) is bool(refusal)


def test_nobody_is_asked_by_default(certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        told = LibsslTerminator(libssl(), [certificate]).describe()
    assert told["kernel"] == {"refusal": "nobody has asked for it", "connections": 0}
    assert not caplog.records


def test_where_libssl_cannot_have_it_all_goes_on(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    refusal = why_not()
    monkeypatch.setattr(libssl_terminator, "why_not", str)  # the kernel has it, as far as it says

    async def scene() -> None:
        terminator = LibsslTerminator(libssl(), [certificate], kernel_tls=True)
        async with opened(terminator) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await connect(door, client_context(certificate))
            await securing
            for size in (1, 1 << 14, 1 << 20):
                writer.write(b"x" * size)
                assert await reader.readexactly(size) == b"X" * size
            writer.close()
        told = terminator.describe()["kernel"]
        assert told["refusal"] is None
        assert not (refusal and told["connections"])

    run(scene)


def test_it_is_true_or_false() -> None:
    with pytest.raises(GraphError, match="kernel_tls='yes'; it must be True or False"):
        Ingress(models={"m": "a"}, kernel_tls="yes")  # type: ignore[arg-type]
