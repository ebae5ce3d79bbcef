"""Where an ingress listens, on real sockets."""

from __future__ import annotations

import socket

import pytest

from http_stage import listen
from slabwire.actors.ingress.http import listening
from slabwire.actors.ingress.http.listening import authority, open_listeners
from slabwire.runtime.errors import StartError


def _has_ipv6() -> bool:
    try:
        listen("tcp://[::1]:0").close()
    except StartError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::", "0.0.0.0"])
def test_listeners_listen_where_they_are_told(host: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    listeners = open_listeners(host, 0, listen)
    ports = {each.getsockname()[1] for each in listeners}
    assert len(ports) == 1
    for each in listeners:
        assert each.proto == socket.IPPROTO_TCP
        assert not each.getblocking()
    with socket.create_connection((host, ports.pop())):
        pass
    for each in listeners:
        each.close()


def test_a_name_listens_at_each_of_its_addresses_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, each) for each in ("127.0.0.1", "192.0.2.1", "127.0.0.2")]
    monkeypatch.setattr(listening, "_addresses", lambda *_: found)
    listeners = open_listeners("name", 0, listen)
    addresses, ports = zip(*(each.getsockname() for each in listeners), strict=True)
    for each in listeners:
        each.close()
    assert addresses == ("127.0.0.1", "127.0.0.2")
    assert len(set(ports)) == 1


def test_an_address_in_use_is_named_with_the_remedy() -> None:
    (first,) = open_listeners("127.0.0.1", 0, listen)
    port = first.getsockname()[1]
    with pytest.raises(
        StartError, match=rf"127\.0\.0\.1:{port}: the address is in use; .*sport = :{port}.*another port"
    ):
        open_listeners("127.0.0.1", port, listen)
    first.close()


def test_a_successor_takes_the_address_though_connections_linger() -> None:
    (first,) = open_listeners("127.0.0.1", 0, listen)
    address = first.getsockname()
    client = socket.create_connection(address)
    accepted, _ = first.accept()
    accepted.close()  # the side that closes first keeps the address in TIME_WAIT
    client.close()
    first.close()
    second = listen(f"tcp://{authority(*address)}")
    assert second.getsockname() == address
    second.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:0: Cannot assign requested address"):
        open_listeners("192.0.2.1", 0, listen)


def test_a_host_that_nobody_knows_is_refused() -> None:
    with pytest.raises(StartError, match=r"no\.such\.host\.invalid:1: the host is unknown"):
        open_listeners("no.such.host.invalid", 1, listen)
