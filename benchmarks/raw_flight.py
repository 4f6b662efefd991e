"""The raw limit of Arrow Flight: a server that only sends a table from memory, and takes one and forgets it.

``python -m benchmarks.raw_flight FOLDER`` serves the Arrow files of a folder by name and prints its port.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

BATCH_ROWS = 65_536


class RawServer(flight.FlightServerBase):  # type: ignore[misc] # pyarrow ships no types
    """Holds tables in memory; a ticket is a table's name."""

    def __init__(self, folder: Path) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._tables = {
            path.stem: pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in folder.glob("*.arrow")
        }

    def do_get(self, _context: object, ticket: flight.Ticket) -> flight.RecordBatchStream:
        """Send a table."""
        table = self._tables[ticket.ticket.decode()]
        return flight.RecordBatchStream(table.to_reader(max_chunksize=BATCH_ROWS))

    def do_put(
        self, _context: object, _descriptor: object, reader: flight.MetadataRecordBatchReader, _writer: object
    ) -> None:
        """Take a table and forget it."""
        for _ in reader:
            pass


if __name__ == "__main__":
    server = RawServer(Path(sys.argv[1]))
    print(server.port, flush=True)
    server.serve()
