"""Clients that do not end their calls: they vanish, stall, are killed; nothing of theirs may be seen or kept."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import pyarrow as pa
from pyarrow import flight

from tests.flight_server.flights import many_rows, read_ticket, rows_of, upload_command
from tests.soak.work import Work, Worker
from tests.soak.writing import START
from timedb.contract.times import format_time, from_micros

KILLED = """
import sys, time
from pyarrow import flight
from tests.flight_server.flights import many_rows, upload_command
client = flight.connect(sys.argv[1])
rows = many_rows(sys.argv[2], 200_000)
writer, _ = client.do_put(upload_command(), rows.schema)
writer.write_table(rows, max_chunksize=10_000)
print("sent", flush=True)
time.sleep(60)
"""


class Leaver(Worker):
    """Leaves in every way there is. Its uploads are of series that nobody else writes, and none of them counts.

    Attributes:
        names: Of the series that must not be there.
    """

    def __init__(self, work: Work, seed: int, seconds: float, *, stall_seconds: float) -> None:
        super().__init__(work, seed, seconds)
        self.prefix = f"gone-{seed}"
        self.flight = flight.connect(work.flight_url)
        self._stall_seconds = stall_seconds
        self._killed = 0

    def leave(self) -> None:
        """Close."""
        self.flight.close()

    def operations(self) -> Mapping[Callable[[], None], int]:
        """All."""
        return {
            self.drop_a_read: 6,
            self.cancel_a_read: 6,
            self.stall_a_read: 3,
            self.drop_an_upload: 5,
            self.run_out_of_time_in_an_upload: 3,
            self.stall_an_upload: 2,
            self.hang_up_in_the_middle: 4,
            self.kill_an_uploading_client: 1,
            self.cancel_a_query: 2,
        }

    def _wide(self) -> flight.Ticket:
        ledger = self.work.bulk
        ids = ledger.ids if ledger is not None else []
        columns = ["series_id", "valid_time", "known_time", "change_time", "value", "run_id", "value_id"]
        return read_ticket(view="overlapping", series_ids=ids, columns=columns, end_valid=self._end())

    def _end(self) -> str:
        return format_time(from_micros(START + 3_600_000_000 * 3000))

    def drop_a_read(self) -> None:
        """Begin a read and forget it."""
        reader = self.flight.do_get(self._wide())
        if self.chance.random() < 0.5:
            with suppress(StopIteration):
                reader.read_chunk()
        del reader

    def cancel_a_read(self) -> None:
        """Begin a read and cancel it."""
        reader = self.flight.do_get(self._wide())
        with suppress(StopIteration):
            reader.read_chunk()
        reader.cancel()

    def stall_a_read(self) -> None:
        """Take one batch, and no more for longer than the server waits."""
        reader = self.flight.do_get(self._wide())
        with suppress(StopIteration):
            reader.read_chunk()
        self.work.pause(self._stall_seconds)
        with suppress(pa.ArrowException, OSError):
            reader.read_all()
        reader.cancel()

    def drop_an_upload(self) -> None:
        """Send rows and go, without an end."""
        rows = many_rows(self.prefix, self.chance.choice([100, 30_000]), series=5)
        writer, reader = self.flight.do_put(upload_command(), rows.schema)
        writer.write_table(rows, max_chunksize=10_000)
        del writer, reader

    def run_out_of_time_in_an_upload(self) -> None:
        """A deadline in the middle."""
        rows = many_rows(self.prefix, 30_000, series=5)
        with suppress(pa.ArrowException, OSError):
            writer, _ = self.flight.do_put(upload_command(), rows.schema, flight.FlightCallOptions(timeout=0.2))
            writer.write_table(rows, max_chunksize=10_000)
            time.sleep(0.3)
            writer.close()

    def stall_an_upload(self) -> None:
        """Send some rows, and nothing for longer than the server waits."""
        rows = rows_of(self.prefix, 50)
        writer, _ = self.flight.do_put(upload_command(rows=51), rows.schema)
        with suppress(pa.ArrowException, OSError):
            writer.write_table(rows)
            self.work.pause(self._stall_seconds)
            writer.write_table(rows.slice(0, 1))
            writer.close()

    def hang_up_in_the_middle(self) -> None:
        """Open a connection, say half of what begins a call, and hang up."""
        host, port = self.work.flight_url.rpartition("//")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x00\xff\x01\x04")
            time.sleep(0.05)
            if self.chance.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    def kill_an_uploading_client(self) -> None:
        """``kill -9`` in the middle of an upload."""
        command = [sys.executable, "-c", KILLED, self.work.flight_url, self.prefix]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            child.stdout.readline()
            child.kill()

    def cancel_a_query(self) -> None:
        """A query that would run for ever, given up by the client's deadline."""
        from tests.flight_server.sql_client import query

        endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 7"
        (endpoint,) = self.flight.get_flight_info(query(endless)).endpoints
        with suppress(pa.ArrowException, OSError):
            self.flight.do_get(endpoint.ticket, flight.FlightCallOptions(timeout=0.5)).read_all()
