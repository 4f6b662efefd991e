"""Hosts: which of them are this machine, and the addresses of what listens on them."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["is_loopback", "is_loopback_url", "listens_on_loopback", "reachable", "url_of"]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_loopback(address: str) -> bool:
    """Whether an IP address, perhaps with a zone behind a ``%``, is this machine's own; anything else is not."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def is_loopback_url(url: str) -> bool:
    """Whether a URL names this machine, by its address or as ``localhost``."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or is_loopback(host)


def listens_on_loopback(host: str) -> bool:
    """Whether only this machine can call a server that listens on a host."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host or "0.0.0.0", None)}
    except OSError:
        return True  # nobody can listen there, which is for others to say
    return all(is_loopback(str(address)) for address in found)


def reachable(host: str) -> str:
    """Where this machine finds what listens on a host, which may stand for all of its addresses."""
    bare = host.strip("[]")
    return _WILDCARDS.get(bare, bare)


def url_of(scheme: str, host: str, port: int) -> str:
    """The URL of a port of a host."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
