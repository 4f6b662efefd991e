"""What may be the body of a call that corrects: JSON with an item each, or a table with a row each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import cast
from uuid import uuid4

import pyarrow as pa
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from timedb.client.frames import open_data
from timedb.contract.columns import CORRECTION_COLUMNS
from timedb.contract.errors import InvalidRequest
from timedb.contract.json_counts import check_json_counts, json_memory_bytes
from timedb.contract.wire import CorrectCommand, UpdateValues, parse_object
from timedb.files.table_files import Reading, TableFile, TableKind
from timedb.layouts.corrections import corrections_in
from timedb.rest_gateway.ask.bodies import BodyBudget
from timedb.rest_gateway.ask.inputs import read_query
from timedb.rest_gateway.ask.models import CorrectionQuery, UpdateRequest
from timedb.rest_gateway.ask.sent import BodyKind, Sent, received
from timedb.rest_gateway.ask.uploads import bytes_of_table, open_body

__all__ = ["CorrectionsSent", "read_corrections"]

_KINDS: tuple[BodyKind, ...] = ("csv", "parquet", "arrow", "ndjson", "json")


@dataclass(frozen=True, slots=True)
class CorrectionsSent:
    """Corrections that are ready to be sent.

    Attributes:
        command: What is said of a table of them.
        reader: The table.
    """

    command: CorrectCommand
    reader: pa.RecordBatchReader


async def read_corrections(request: Request) -> AsyncIterator[UpdateValues | CorrectionsSent]:
    """A dependency that reads the corrections in a request's body: JSON, a table, or a form with one as its file.

    Raises:
        InvalidRequest: it is of no kind that is taken, or not what it says; a table may tell only while it is read.
        TooLarge: it is over the limit.
        Busy: other bodies take up all the room.
    """
    budget: BodyBudget = request.app.state.bodies
    async with received(request, _KINDS, _asked) as (body, (kind, said)):
        if kind == "json":
            message = await budget.parse(UpdateRequest, body)
            given = {name: getattr(message, name) for name in message.model_fields_set}
            yield parse_object(UpdateValues, {name: value for name, value in given.items() if value is not None})
            return
        lines = 0
        if kind == "ndjson":
            check_json_counts(body, "body", budget.max_json_values)
            lines = json_memory_bytes(body)
        async with budget.room(lines):
            table = await run_in_threadpool(partial(open_body, body, kind, budget, every_key=True))
            async with budget.room(bytes_of_table(table)):
                yield await run_in_threadpool(_of_table, table, said)


def _asked(sent: Sent) -> tuple[TableKind, CorrectionQuery]:
    said = read_query(CorrectionQuery, sent.parameters)
    if sent.kind == "json" and said.model_fields_set:
        name = sorted(said.model_fields_set)[0]
        raise InvalidRequest(f"{name}: is about tables; a JSON body says it itself, as far as it knows it", field=name)
    return cast("TableKind", sent.kind), said


def _of_table(table: TableFile, said: CorrectionQuery) -> CorrectionsSent:
    # With an id of the gateway's own, a connection that fails in between can be settled.
    command = CorrectCommand(update_id=said.update_id or str(uuid4()), create=said.create)
    rows = corrections_in(table, Reading(time_zone="UTC"))
    return CorrectionsSent(command, open_data(rows, CORRECTION_COLUMNS).open())
