"""Flight SQL behind the methods of Flight: which message means what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
from pyarrow import flight

from timedb.contract.columns import META_AS_OF, META_TABLE_VERSION
from timedb.contract.errors import InvalidRequest, Timeout, TooLarge, Unimplemented
from timedb.contract.settings import ServerSettings
from timedb.contract.times import format_time
from timedb.contract.wire import UploadCommand
from timedb.flight_server.call.boundary import guarded_stream
from timedb.flight_server.call.context import CallContext, end_if_gone
from timedb.flight_server.call.incoming import Incoming
from timedb.flight_server.call.messages import command_of
from timedb.flight_server.call.pieces import check_fits
from timedb.flight_server.call.slots import Lease, Slots
from timedb.flight_server.sql.catalog import catalog_table
from timedb.flight_server.sql.ingest import upload_of_ingest
from timedb.flight_server.sql.messages import (
    CATALOG_COMMANDS,
    ActionCancelQueryRequest,
    ActionCancelQueryResult,
    ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult,
    CancelFlightInfoRequest,
    CancelFlightInfoResult,
    CommandPreparedStatementQuery,
    CommandStatementIngest,
    CommandStatementQuery,
    DoPutPreparedStatementResult,
    TicketStatementQuery,
    pack,
    unpack,
)
from timedb.flight_server.sql.process import Processes, Statement
from timedb.flight_server.sql.protobuf import Message
from timedb.flight_server.sql.running import RunningQueries
from timedb.flight_server.sql.sessions import SESSION_ACTIONS
from timedb.flight_server.sql.statements import check_text, handle_of, parameters_from, statement_of
from timedb.flight_server.sql.tables import tables_of

if TYPE_CHECKING:
    from timedb.storage import Memory, Tenant

__all__ = ["ACTIONS", "FlightSql", "is_flight_sql"]

_CREATE = "CreatePreparedStatement"
_CLOSE = "ClosePreparedStatement"
_CANCEL_QUERY, _CANCEL_INFO = "CancelQuery", "CancelFlightInfo"
_CANCELLING, _NOT_CANCELLABLE = 2, 3
_NOT_OFFERED = (
    "BeginTransaction",
    "EndTransaction",
    "BeginSavepoint",
    "EndSavepoint",
    "CreatePreparedSubstraitPlan",
    "RenewFlightEndpoint",
)
ACTIONS = (_CREATE, _CLOSE, _CANCEL_QUERY, _CANCEL_INFO, *SESSION_ACTIONS, *_NOT_OFFERED)
"""The actions of Flight SQL; those that are not offered are so by name, too."""

_UNKNOWN = -1
_MEMORY_PART = 4  # of the memory for calls that one query may take at most


def is_flight_sql(command: bytes) -> bool:
    """Whether a command or ticket is Flight SQL's: it is not empty and does not begin as a JSON object does."""
    return bool(command) and not command.startswith(b"{")


class FlightSql:
    """Flight SQL over the tables of whichever tenant calls.

    Args:
        settings: The limits.
        slots: For queries.
        memory: Of which each takes a share.
    """

    def __init__(self, settings: ServerSettings, slots: Slots, memory: Memory) -> None:
        self.slots = slots
        self._settings = settings
        self._memory = memory
        self._running = RunningQueries()
        self._processes = Processes(settings, min(settings.sql_memory_bytes, memory.for_calls // _MEMORY_PART))

    def close(self) -> None:
        """Start no more queries."""
        self._processes.close()

    def get_flight_info(
        self,
        tenant: Tenant,
        call: CallContext,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
    ) -> flight.FlightInfo:
        """Where the answer of a command is: here, under one ticket.

        Raises:
            TimeDBError: the command, or its SQL, is refused.
        """
        command = self._unpack(command_of(descriptor), "command")
        if isinstance(command, CATALOG_COMMANDS):
            schema, ticket = catalog_table(command).schema, pack(command)
        else:
            statement = self._statement(command)
            schema = self._columns(tenant, call, context, statement)
            ticket = pack(TicketStatementQuery(handle_of(replace(statement, query_id=uuid4().hex))))
        endpoint = flight.FlightEndpoint(ticket, [])
        return flight.FlightInfo(schema, descriptor, [endpoint], total_records=_UNKNOWN, total_bytes=_UNKNOWN)

    def get_schema(
        self,
        tenant: Tenant,
        call: CallContext,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
    ) -> pa.Schema:
        """The columns of a command's answer.

        Raises:
            TimeDBError: the command, or its SQL, is refused.
        """
        command = self._unpack(command_of(descriptor), "command")
        if isinstance(command, CATALOG_COMMANDS):
            return catalog_table(command).schema
        return self._columns(tenant, call, context, self._statement(command))

    def do_get(
        self, tenant: Tenant, call: CallContext, context: flight.ServerCallContext, ticket: bytes, lease: Lease
    ) -> flight.FlightDataStream:
        """Run what a ticket stands for.

        Raises:
            TimeDBError: it is refused, or fails before its first row.
        """
        command = self._unpack(ticket, "ticket")
        if isinstance(command, CATALOG_COMMANDS):
            return guarded_stream(call, catalog_table(command).to_reader(), lease)
        statement = self._statement(command)
        call.hold(self.slots.lease(tenant.tenant_id, still_wanted=lambda: end_if_gone(call, context)).release)
        watch = self._watch(call, context)
        if statement.query_id is not None:
            check, end = self._running.begin(tenant.tenant_id, statement.query_id)
            call.hold(end)
            watch = _both(check, watch)
        call.hold(self._memory.share("query", self._processes.memory_bytes, watch).release)
        snapshot = tenant.snapshot()
        schema, query = self._processes.run(statement, tables_of(snapshot), watch)
        call.hold(query.close)
        metadata = {
            META_TABLE_VERSION: str(snapshot.table_version).encode(),
            META_AS_OF: format_time(snapshot.as_of).encode(),
        }
        schema = schema.with_metadata(metadata)
        answer = pa.RecordBatchReader.from_batches(schema, _with_schema(query.batches(), schema))
        # Not read ahead: the process is ahead as it is, and only this thread may ask whether the client is there.
        return guarded_stream(call, answer, lease, read_ahead=False)

    def put_command(self, command: bytes) -> UploadCommand | CommandPreparedStatementQuery:
        """What a command of ``do_put`` asks for: an upload, or that :meth:`do_put` binds parameters.

        Raises:
            TimeDBError: it is refused, or another command, which is not offered.
        """
        found = self._unpack(command, "command")
        if isinstance(found, CommandStatementIngest):
            return upload_of_ingest(found)
        if isinstance(found, CommandPreparedStatementQuery):
            return found
        raise Unimplemented(
            "command: only an ingestion (CommandStatementIngest) and the parameters of a prepared query can be put"
        )

    def do_put(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        command: CommandPreparedStatementQuery,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
        lease: Lease,
    ) -> None:
        """Bind values to the parameters of a prepared statement: a new handle stands for both.

        Raises:
            TimeDBError: there are too many.
        """
        statement = self._statement(command)
        gone = Timeout("the client gave up")
        values = self._received(Incoming(call, context, reader, what="parameters", gave_up=gone, lease=lease))
        bound = handle_of(Statement(statement.sql, values))
        if len(bound) > self._settings.max_message_bytes:
            raise TooLarge(f"parameters: they make a handle of more than {self._settings.max_message_bytes} bytes")
        check_fits(len(bound), call.message_bytes, "parameters")
        writer.write(DoPutPreparedStatementResult(bound).to_bytes())

    def do_action(
        self, tenant: Tenant, call: CallContext, context: flight.ServerCallContext, action: flight.Action
    ) -> list[bytes]:
        """Prepare a statement, or forget one; cancel a query; set the options of a session.

        Raises:
            TimeDBError: it is refused, or the action is another.
        """
        if action.type in _NOT_OFFERED:
            raise Unimplemented(f"action: {action.type} of Flight SQL is not offered")
        if action.type in SESSION_ACTIONS:
            return [SESSION_ACTIONS[action.type](self._body(action)).to_bytes()]
        if action.type in (_CANCEL_INFO, _CANCEL_QUERY):
            return [self._cancel(tenant, action)]
        request = self._unpack(action.body.to_pybytes(), action.type)
        if isinstance(request, ActionClosePreparedStatementRequest) and action.type == _CLOSE:
            return []  # nothing was kept
        if not isinstance(request, ActionCreatePreparedStatementRequest) or action.type != _CREATE:
            raise InvalidRequest(f"{action.type}: its body is another message of Flight SQL")
        statement = self._checked(request.query, request.transaction_id)
        with self.slots.lease(tenant.tenant_id, still_wanted=lambda: end_if_gone(call, context)):
            tables = tables_of(tenant.snapshot())
            found = self._processes.describe(statement, tables, self._watch(call, context), partly=True)
        prepared = ActionCreatePreparedStatementResult(
            prepared_statement_handle=handle_of(statement),
            dataset_schema=b"" if found.schema is None else found.schema.serialize().to_pybytes(),
            parameter_schema=found.parameters.serialize().to_pybytes(),
        )
        packed = pack(prepared)
        check_fits(len(packed), call.message_bytes, "query")
        return [packed]

    def _cancel(self, tenant: Tenant, action: flight.Action) -> bytes:
        if action.type == _CANCEL_INFO:
            info = CancelFlightInfoRequest.from_bytes(self._body(action), what=action.type).info
            return CancelFlightInfoResult(self._cancelled(tenant, info, action.type)).to_bytes()
        request = self._unpack(self._body(action), action.type)
        if not isinstance(request, ActionCancelQueryRequest):
            raise InvalidRequest(f"{action.type}: its body is another message of Flight SQL")
        return pack(ActionCancelQueryResult(self._cancelled(tenant, request.info, action.type)))

    def _cancelled(self, tenant: Tenant, info: bytes, what: str) -> int:
        try:
            tickets = [endpoint.ticket.ticket for endpoint in flight.FlightInfo.deserialize(info).endpoints]
        except (pa.ArrowException, OSError, ValueError):
            raise InvalidRequest(f"{what}: it holds no FlightInfo") from None
        found = False
        for ticket in tickets:
            command = self._unpack(ticket, "ticket")
            query_id = None if isinstance(command, CATALOG_COMMANDS) else self._statement(command).query_id
            found |= query_id is not None and self._running.cancel(tenant.tenant_id, query_id)
        return _CANCELLING if found else _NOT_CANCELLABLE

    def _body(self, action: flight.Action) -> bytes:
        if action.body.size > 2 * self._settings.max_message_bytes:
            raise TooLarge(f"{action.type}: {action.body.size} bytes are over the limit")
        return bytes(action.body)

    def _columns(
        self, tenant: Tenant, call: CallContext, context: flight.ServerCallContext, statement: Statement
    ) -> pa.Schema:
        with self.slots.lease(tenant.tenant_id, still_wanted=lambda: end_if_gone(call, context)):
            tables = tables_of(tenant.snapshot())
            return self._processes.describe(statement, tables, self._watch(call, context)).schema

    def _statement(self, command: Message) -> Statement:
        if isinstance(command, CommandStatementQuery):
            return self._checked(command.query, command.transaction_id)
        if isinstance(command, TicketStatementQuery):
            handle = command.statement_handle
        elif isinstance(command, CommandPreparedStatementQuery):
            handle = command.prepared_statement_handle
        else:
            raise InvalidRequest(f"command: {type(command).__name__} does not belong here")
        limits = {"max_sql_bytes": self._settings.max_sql_bytes, "max_bytes": self._settings.max_message_bytes}
        return statement_of(handle, **limits)

    def _checked(self, sql: str, transaction_id: bytes | None) -> Statement:
        return check_text(sql, transaction_id, max_bytes=self._settings.max_sql_bytes)

    def _unpack(self, body: bytes, what: str) -> Message:
        limit = 2 * self._settings.max_message_bytes  # a handle within the limit in its envelope
        if len(body) > limit:
            raise TooLarge(f"{what}: {len(body)} bytes are over the limit of {limit}")
        return unpack(body, what=what)

    def _received(self, incoming: Incoming) -> pa.Table | None:
        batches, size = [], 0
        schema = incoming.schema()
        for chunk in incoming.chunks():
            if chunk.data is None:
                continue
            try:
                chunk.data.validate(full=True)
            except pa.ArrowException:
                raise InvalidRequest("parameters: the Arrow data is not valid") from None
            size += chunk.data.nbytes
            if size > self._settings.max_message_bytes:
                raise TooLarge(f"parameters: more than {self._settings.max_message_bytes} bytes")
            batches.append(chunk.data)
        return parameters_from(pa.Table.from_batches(batches, schema=schema))

    def _watch(self, call: CallContext, context: flight.ServerCallContext) -> Callable[[], None]:
        """What a query asks while it waits: whether its time is up, or its client gone."""
        seconds = self._settings.sql_seconds
        deadline, handler = time.monotonic() + seconds, threading.get_ident()

        def watch() -> None:
            if time.monotonic() >= deadline:
                raise Timeout(f"the query took longer than {seconds:g} seconds")
            # Of another thread nobody knows whether the call is still there to be asked.
            if threading.get_ident() == handler:
                end_if_gone(call, context)

        return watch


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def check() -> None:
        first()
        second()

    return check


def _with_schema(batches: Any, schema: pa.Schema) -> Any:
    for batch in batches:
        yield batch.replace_schema_metadata(schema.metadata)
