"""Streams of runs as plain ``pyarrow.flight`` makes them."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pyarrow import flight

from tests.flight_server.flights import command


class Stream:
    """An open stream of runs; answers are read beside, or, with ``read=False``, once it has ended.

    Only the latter says that it has written all by closing its half: see :class:`timedb.contract.wire.AppendEnd`.
    """

    def __init__(
        self, client: flight.FlightClient, schema: pa.Schema, *, read: bool = True, options: Any = None
    ) -> None:
        descriptor = flight.FlightDescriptor.for_command(command("append", {}))
        self.writer, self.reader = client.do_exchange(descriptor, options)
        self.answers: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self._reading = threading.Thread(target=self._read, daemon=True)
        self.writer.begin(schema)
        if read:
            self._reading.start()

    def _read(self) -> None:
        try:
            while True:
                self.answers.append(json.loads(self.reader.read_chunk().app_metadata.to_pybytes()))
        except StopIteration:
            pass
        except (pa.ArrowException, OSError) as error:
            self.failure = error

    def send(self, rows: pa.Table, message: dict[str, Any] | bytes) -> None:
        """One batch with its metadata."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.writer.write_with_metadata(_batch(rows), body)

    def run(self, seq: int, data: pa.Table, run_id: str, **fields: Any) -> None:
        """A run of one batch."""
        self.send(data, {"seq": seq, "upload": {"run_id": run_id, **fields}})

    def end(self) -> dict[int, dict[str, Any]]:
        """End it; the answers in the order of seq, each of which came once."""
        found = {seq: answers[-1] for seq, answers in self.end_all().items()}
        assert len(found) == sum(not answer.get("more") for answer in self.answers)
        return found

    def end_all(self) -> dict[int, list[dict[str, Any]]]:
        """End it; all answers, in the order of seq."""
        if self._reading.ident is None:
            self.writer.done_writing()
            self._reading.start()
        else:
            with suppress(pa.ArrowException, OSError):  # it is over; why is what is read
                self.writer.write_metadata(json.dumps({"end": True}).encode())
        self._reading.join(60)
        assert not self._reading.is_alive()
        if self.failure is not None:
            raise self.failure
        self.writer.close()
        found: dict[int, list[dict[str, Any]]] = {}
        for answer in self.answers:
            found.setdefault(answer["seq"], []).append(answer)
        # A refused run is answered before an earlier one that waits for its commit.
        return dict(sorted(found.items()))


def _batch(rows: pa.Table) -> pa.RecordBatch:
    rows = rows.combine_chunks()
    return rows.to_batches()[0] if rows.num_rows else pa.RecordBatch.from_pylist([], schema=rows.schema)


def code_of(answer: dict[str, Any]) -> str:
    """``ok``, or the code of the error."""
    return str(answer["error"]["code"]) if "error" in answer else "ok"
