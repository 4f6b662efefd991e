"""A PostgreSQL server with an empty database, in a folder of its own, on a Unix socket, by a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.peers import Missing

__all__ = ["Server"]

PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]
_SECONDS = 60
T = TypeVar("T")


class Server:
    """The server.

    Args:
        settings: Of its configuration.

    Attributes:
        conninfo: Where it is, in libpq's words.
        url: The same as an address.

    Raises:
        Missing: its programs, or a user that may run it, are not here.
    """

    def __init__(self, **settings: str) -> None:
        place = next((place for place in PLACES if (place / "initdb").exists() and (place / "postgres").exists()), None)
        if place is None:
            raise Missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self._user = _user()
        self._folder = Path(tempfile.mkdtemp(prefix="timedb-postgres-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self.conninfo = f"host={self._folder} user=timedb dbname=postgres"
        self.url = f"postgresql:///postgres?host={self._folder}&user=timedb"
        self._server = self._started(place, settings)

    def _started(self, place: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
        data, log = self._folder / "data", self._folder / "log"
        command = [str(place / "initdb"), "-D", str(data), "-U", "timedb", "-A", "trust", "-E", "UTF8", "--locale=C"]
        made = subprocess.run(
            command, user=self._user, cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if made.returncode:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise Missing(f"initdb failed: {made.stderr.strip().splitlines()[-1]}")
        always = {"listen_addresses": "", "unix_socket_directories": str(self._folder)}
        options = [part for name, value in {**always, **settings}.items() for part in ("-c", f"{name}={value}")]
        with log.open("wb") as output:
            return subprocess.Popen(
                [str(place / "postgres"), "-D", str(data), *options],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def connected(self, connect: Callable[[], T], refused: type[Exception]) -> T:
        """What ``connect`` gives, once the server takes connections.

        Args:
            connect: Makes a connection.
            refused: What it raises while the server starts.

        Raises:
            Missing: the server did not come up.
        """
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                return connect()
            except refused:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "log").read_text()[-500:]
                    raise Missing(f"PostgreSQL did not come up: {log}") from None
                time.sleep(0.05)

    def close(self) -> None:
        """Stop it at once, remove its folder."""
        self._server.send_signal(signal.SIGINT)  # "fast": it ends connections and checkpoints
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _user() -> str | None:
    """Who runs the server: nobody else, or, PostgreSQL refusing root, ``postgres`` or ``nobody``."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Missing("PostgreSQL refuses root, and there is no user postgres")
