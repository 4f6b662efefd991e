"""Which hosts are this machine, for servers that refuse others and clients that ask no proxy."""

from __future__ import annotations

import pytest

from timedb.contract.hosts import is_loopback, is_loopback_url, listens_on_loopback, reachable, url_of


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::1%lo", "::ffff:127.0.0.1"])
def test_this_machine(address: str) -> None:
    assert is_loopback(address)
    assert is_loopback_url(url_of("grpc+tls", address.partition("%")[0], 8815))


@pytest.mark.parametrize(
    "address", ["", "10.0.0.7", "127.0.0.1.example.com", "::", "fe80::1%eth0", "localhost", "[::1"]
)
def test_no_address_of_this_machine(address: str) -> None:
    assert not is_loopback(address)


def test_a_url_may_say_localhost() -> None:
    assert is_loopback_url("http://localhost:8000")
    assert not is_loopback_url("http://localhost.example.com:8000")
    assert not is_loopback_url("http://[::1")


def test_all_addresses_are_found_at_the_loopback_one() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "[::]", "[::1]", "host")] == ["127.0.0.1", "::1", "::1", "host"]
    assert not listens_on_loopback("0.0.0.0")
    assert listens_on_loopback("localhost")
