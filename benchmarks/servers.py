"""Starts the servers under test, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Served", "raw_flight", "timedb"]


@dataclass(frozen=True)
class Served:
    """A running ``timedb serve``."""

    flight_url: str
    rest_url: str
    pid: int


@contextlib.contextmanager
def timedb(lake: Path, **settings: object) -> Iterator[Served]:
    """``timedb serve`` on free ports; settings by their names, say ``compact_fresh_files=24``."""
    command = [sys.executable, "-m", "timedb", "serve", "--lake", str(lake), "--flight-port", "0", "--rest-port", "0"]
    with tempfile.NamedTemporaryFile() as log:
        environment = os.environ | {f"TIMEDB_{name.upper()}": str(value) for name, value in settings.items()}
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        with stopping(server):
            deadline = time.monotonic() + 60
            while True:
                text = Path(log.name).read_text()
                urls = {kind: re.search(rf"{kind}://[\d.]+:\d+", text) for kind in ("grpc", "http")}
                if urls["grpc"] and urls["http"]:
                    yield Served(urls["grpc"][0], urls["http"][0], server.pid)
                    return
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"timedb serve did not come up:\n{text[-2000:]}")
                time.sleep(0.02)


@contextlib.contextmanager
def raw_flight(folder: Path) -> Iterator[str]:
    """:mod:`benchmarks.raw_flight` over the Arrow files of a folder."""
    command = [sys.executable, "-m", "benchmarks.raw_flight", str(folder)]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with stopping(server):
        assert server.stdout is not None
        yield f"grpc://127.0.0.1:{int(server.stdout.readline())}"


@contextlib.contextmanager
def stopping(server: subprocess.Popen[bytes] | subprocess.Popen[str]) -> Iterator[None]:
    """Stop a server at the end, whatever it says."""
    try:
        yield
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdout is not None:
            server.stdout.close()
