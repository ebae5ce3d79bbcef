"""Scanners of other people find nothing that could be better of protocols, suites, groups, renegotiation and attacks.

What they say of the certificate, whose CA is made here, and of the headers of an answer is left aside.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from http_stage import echo, listen, run
from slabwire.actors.ingress.certificates.certificate import Certificate, read_pair
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.tls.terminator import Minimum
from tls_stage import terminator_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SSLYZE = (
    *("--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--elliptic_curves", "--compression"),
    *("--heartbleed", "--openssl_ccs", "--robot", "--reneg", "--fallback", "--ems", "--early_data", "--resum"),
)
# Of testssl.sh: what is no matter of ours.
ASIDE = {"engine_problem", "cert_validityPeriod", "cert_revocation", "DNS_CAArecord", "HSTS", "security_headers"}
GOOD = {"OK", "INFO"}


@pytest.fixture(params=["ECDSA", "RSA"])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Certificate:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType[request.param])
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
    return read_pair(tmp_path / "pair.pem", tmp_path / "pair.pem")


def ask(port: int, certificate: Certificate) -> None:
    context = ssl.create_default_context(cafile=certificate.public.with_name("ca.pem"))
    with urllib.request.urlopen(f"https://localhost:{port}/", context=context) as answer:
        assert answer.status == 200


def scanned(certificate: Certificate, minimum: Minimum, scan: Callable[[int], Awaitable[None]]) -> None:
    """While the server runs, which then still serves."""

    async def scene() -> None:
        server = HttpServer(echo, terminator_of("libssl", certificate, minimum))
        server.start([listen("tcp://127.0.0.1:0")])
        await scan(server.port)
        await asyncio.to_thread(ask, server.port, certificate)
        await server.stop(1)

    run(scene)


async def done(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    await process.wait()


@pytest.mark.skipif(shutil.which("testssl") is None, reason="needs testssl (Debian: testssl.sh)")
@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
def test_testssl_finds_nothing_worse_than_good(certificate: Certificate, tmp_path: Path, minimum: Minimum) -> None:
    report = tmp_path / "testssl.json"

    async def scan(port: int) -> None:
        options = ["--quiet", "--warnings", "off", "--ip", "127.0.0.1", "--add-ca", str(tmp_path / "ca.pem")]
        await done("testssl", *options, "--jsonfile", str(report), f"localhost:{port}")

    scanned(certificate, minimum, scan)
    found = json.loads(report.read_text())
    worse = {each["id"]: each["finding"] for each in found if each["severity"] not in GOOD and each["id"] not in ASIDE}
    assert worse == {}
    said = {each["id"]: each["finding"] for each in found}
    assert said["heartbleed"].startswith("not vulnerable")
    assert said["secure_client_renego"].startswith("not vulnerable")


@pytest.mark.skipif(shutil.which("sslyze") is None, reason="needs sslyze (PyPI, in an environment of its own)")
@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
def test_sslyze_finds_nothing_worse_than_good(certificate: Certificate, tmp_path: Path, minimum: Minimum) -> None:
    report = tmp_path / "sslyze.json"
    scanned(certificate, minimum, lambda port: done("sslyze", *SSLYZE, "--json_out", str(report), f"localhost:{port}"))
    scan = json.loads(report.read_text())["server_scan_results"][0]["scan_result"]
    assert {name for name, each in scan.items() if each["status"] == "ERROR"} == set()

    def told(name: str) -> dict[str, Any]:
        found: dict[str, Any] = scan[name]["result"]
        return found

    for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert told(f"{old}_cipher_suites")["accepted_cipher_suites"] == []
    for name, is_spoken in (("tls_1_2", minimum == "1.2"), ("tls_1_3", True)):
        accepted = {each["cipher_suite"]["name"] for each in told(f"{name}_cipher_suites")["accepted_cipher_suites"]}
        assert len(accepted) == (3 if is_spoken else 0)
        assert all("GCM" in each or "CHACHA20" in each for each in accepted)
    curves = {each["name"] for each in told("elliptic_curves")["supported_curves"] or []}
    assert curves <= {"X25519", "prime256v1", "secp256r1", "secp384r1"}
    assert not told("tls_compression")["supports_compression"]
    assert not told("heartbleed")["is_vulnerable_to_heartbleed"]
    assert not told("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"]
    assert told("robot")["robot_result"].startswith("NOT_VULNERABLE")
    assert not told("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"]
    assert not told("tls_1_3_early_data")["supports_early_data"]
    if minimum == "1.2":
        assert told("tls_fallback_scsv")["supports_fallback_scsv"]
        assert told("session_resumption")["tls_ticket_resumption_result"] == "FULLY_SUPPORTED"
