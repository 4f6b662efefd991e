"""``timedb serve`` under SIGTERM while clients write: it ends in time, and what was acknowledged is there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import polars as pl
from pyarrow import flight

import timedb as td
from tests.timedb.conftest import frame
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import ReadTicket, UploadCommand
from timedb.storage import Lake

ROWS = 24
SHUTDOWN_SECONDS = 5
WRITERS = 6


class Writer(threading.Thread):
    """Uploads run after run until the server goes away."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self.client = td.connect(url)
        self.data = frame(f"drain-{number}", [float(number)] * ROWS).to_arrow()
        self.acknowledged: set[str] = set()
        self.tried: set[str] = set()
        self.failure: td.TimeDBError | None = None

    def run(self) -> None:
        while self.failure is None:
            run_id = str(uuid4())
            self.tried.add(run_id)
            try:
                self.client.send(UploadCommand(run_id=run_id), self.data.to_reader())
            except td.TimeDBError as error:
                self.failure = error
            else:
                self.acknowledged.add(run_id)
        self.client.close()


def rows_by_run(lake_dir: Path) -> dict[str, int]:
    """What the lake holds, by a process that comes after."""
    lake = Lake.open(str(lake_dir), load_settings(ServerSettings, lake=str(lake_dir)), create=False)
    read = ReadTicket(view="overlapping", columns=["run_id"])
    runs = pl.DataFrame(lake.tenant(OPEN_TENANT_ID).plan_read(read).reader().read_all())
    lake.close()
    return dict(runs.select(pl.col("run_id").cast(pl.String)).group_by("run_id").len().iter_rows())


def start(lake_dir: Path, log: int) -> tuple[subprocess.Popen[bytes], str]:
    """The service, and its address."""
    command = [sys.executable, "-m", "timedb", "serve", "--lake", str(lake_dir), "--flight-port", "0"]
    server = subprocess.Popen(
        [*command, "--rest-port", "0"],
        stdout=subprocess.PIPE,
        stderr=log,
        env={"TIMEDB_SHUTDOWN_SECONDS": str(SHUTDOWN_SECONDS), "PATH": "/usr/bin:/bin"},
    )
    assert server.stdout is not None
    while (line := server.stdout.readline().decode()) and not (found := re.search(r"grpc://\S+", line)):
        pass
    return server, found[0] if found else ""


def test_sigterm_under_uploads_loses_nothing(lake_dir: Path) -> None:
    with tempfile.TemporaryFile() as log:
        server, url = start(lake_dir, log.fileno())
        assert server.stdout is not None
        with server.stdout, flight.connect(url) as idle:
            # One client that stalls in the middle of an upload, and would hold the server for ever.
            rows = frame("stalled", [1.0]).to_arrow()
            stalled, _ = idle.do_put(
                flight.FlightDescriptor.for_command(UploadCommand(run_id="stalled").to_bytes()), rows.schema
            )
            stalled.write_table(rows)
            writers = [Writer(url, number) for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            while min(len(writer.acknowledged) for writer in writers) < 3:
                time.sleep(0.02)
            server.send_signal(signal.SIGTERM)
            assert server.wait(SHUTDOWN_SECONDS + 30) == 0
            for writer in writers:
                writer.join(30)
        stored = rows_by_run(lake_dir)
        for writer in writers:
            assert isinstance(writer.failure, td.Busy | td.OutcomeUnknown), writer.failure
            assert writer.acknowledged <= stored.keys()
            assert len(writer.tried - writer.acknowledged) == 1
        assert set(stored.values()) == {ROWS}, "whole, or not at all"
        assert stored.keys() <= set().union(*(writer.tried for writer in writers))
