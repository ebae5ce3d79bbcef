"""Certificates for several kinds of keys side by side: a client gets one that it can verify."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from made_certificates import put_pair, trusted
from slabwire.actors.ingress.certificates.authority import Authority
from slabwire.actors.ingress.certificates.source import CertificateFiles
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.libssl_terminator import LibsslTerminator
from slabwire.actors.ingress.tls.stdlib_terminator import StdlibTerminator
from slabwire.actors.ingress.tls.terminator import Terminator
from tls_stage import ENGINES, Door, opened, run

NOW = datetime.now(UTC)
KINDS = ("rsa", "ed25519", "ecdsa")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of each kind in "server", with its authority behind it, and what is to be trusted."""
    authority, folder = Authority.new("here", NOW), tmp_path_factory.mktemp("kinds")
    trusted(authority, folder)
    for kind in KINDS:
        put_pair(folder / "server", authority.issue(["localhost"], kind, NOW), kind)
    return folder


@pytest.fixture(params=ENGINES)
def terminator(request: pytest.FixtureRequest, folder: Path) -> Terminator:
    certificates = CertificateFiles([(folder / "server", None)]).read()
    assert [each.kind for each in certificates] == ["ECDSA", "Ed25519", "RSA"]
    if request.param == "stdlib":
        return StdlibTerminator(certificates, "1.2")
    return LibsslTerminator(libssl(), certificates, "1.2")


@asynccontextmanager
async def serving(terminator: Terminator) -> AsyncIterator[Door]:
    async with opened(terminator) as door:
        securing = asyncio.create_task(door.secure_all())
        yield door
        securing.cancel()
        await asyncio.gather(securing, return_exceptions=True)


async def said_by(program: str, *words: str, asked: bytes = b"") -> str:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, *words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate(asked)
    return said.decode()


@pytest.mark.parametrize(
    ("algorithms", "signature"),
    [
        ("rsa_pss_rsae_sha256", "RSA-PSS"),
        ("ecdsa_secp256r1_sha256", "ECDSA"),
        ("ed25519", "Ed25519"),
        ("rsa_pss_rsae_sha256:ed25519", "Ed25519"),
        ("rsa_pss_rsae_sha256:ed25519:ecdsa_secp256r1_sha256", "ECDSA"),  # the server's order counts
    ],
)
def test_openssl_gets_what_its_signature_algorithms_allow(
    terminator: Terminator, folder: Path, algorithms: str, signature: str
) -> None:
    async def scene() -> None:
        async with serving(terminator) as door:
            said = await said_by(
                "openssl",
                *("s_client", "-connect", f"127.0.0.1:{door.address[1]}", "-sigalgs", algorithms),
                *("-CAfile", str(folder / "authority.pem"), "-verify_return_error", "-verify_hostname", "localhost"),
            )
            assert "Verification: OK" in said
            assert f"peer signature type: {signature}".lower() in said.lower()

    run(scene)


def test_a_client_that_can_verify_none_does_not_connect(terminator: Terminator, folder: Path) -> None:
    async def scene() -> None:
        async with serving(terminator) as door:
            address = f"127.0.0.1:{door.address[1]}"
            said = await said_by("openssl", "s_client", "-connect", address, "-sigalgs", "ecdsa_secp521r1_sha512")
            assert "no peer certificate available" in said

    run(scene)


@pytest.mark.parametrize(("sign", "signature"), [("RSA-PSS-RSAE-SHA256", "RSA-PSS"), ("EDDSA-ED25519", "EdDSA")])
def test_gnutls_gets_what_its_priorities_allow(terminator: Terminator, folder: Path, sign: str, signature: str) -> None:
    async def scene() -> None:
        async with serving(terminator) as door:
            said = await said_by(
                "gnutls-cli",
                *("--port", str(door.address[1]), "--x509cafile", str(folder / "authority.pem")),
                *(
                    "--verify-hostname",
                    "localhost",
                    "--priority",
                    f"NORMAL:-VERS-ALL:+VERS-TLS1.3:-SIGN-ALL:+SIGN-{sign}",
                ),
                "127.0.0.1",
            )
            assert "Handshake was completed" in said, said
            assert signature.lower() in said.lower()

    run(scene)


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_curl_gets_what_its_suites_of_tls_1_2_allow(terminator: Terminator, folder: Path, kind: str) -> None:
    async def scene() -> None:
        async with serving(terminator) as door:
            said = await said_by(
                "curl",
                *("-sv", "--max-time", "0.5", "--tls-max", "1.2", "--ciphers", f"ECDHE-{kind}-AES128-GCM-SHA256"),
                *("--cacert", str(folder / "authority.pem"), f"https://localhost:{door.address[1]}/"),
                *("--resolve", f"localhost:{door.address[1]}:127.0.0.1"),
            )
            assert f"SSL connection using TLSv1.2 / ECDHE-{kind}-AES128-GCM-SHA256" in said
            assert "SSL certificate verify ok" in said

    run(scene)
