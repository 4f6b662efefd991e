"""The Flight RPCs. Each is a few lines: read the message, ask the tenant, hand the answer over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
from pyarrow import flight

from timedb.contract.errors import TooLarge
from timedb.contract.settings import ServerSettings
from timedb.contract.wire import (
    AccuracyTicket,
    AppendCommand,
    CorrectCommand,
    FollowTicket,
    ListSeries,
    LookupCommand,
    Nothing,
    ReadTicket,
    UploadCommand,
    parse,
)
from timedb.flight_server.call.audit import facts_of, require_room
from timedb.flight_server.call.authentication import (
    ANY_KEY,
    METHODS,
    Access,
    Caller,
    Credentials,
    authenticate,
    authorise,
    recheck,
    tenant_of,
)
from timedb.flight_server.call.boundary import MIDDLEWARE_KEY, guarded_results, guarded_stream, rpc
from timedb.flight_server.call.context import CallContext, RequestIds, end_if_gone, refuse_strangers
from timedb.flight_server.call.errors import as_timedb_error, to_flight_error, to_schema_error
from timedb.flight_server.call.messages import command_of, op_of, parse_command, parse_read, parse_ticket, to_json
from timedb.flight_server.call.metrics import Metrics
from timedb.flight_server.call.pieces import check_fits, info_that_fits, pieces_of
from timedb.flight_server.call.slots import Gate, Lease, Slots
from timedb.flight_server.call.tls import ServerTls
from timedb.flight_server.rpc.actions import ACTIONS, HEALTH, find_action
from timedb.flight_server.rpc.append import AppendStream
from timedb.flight_server.rpc.append_room import AppendRoom
from timedb.flight_server.rpc.exchange import answer_lookups
from timedb.flight_server.rpc.follow import FollowStream
from timedb.flight_server.rpc.reads import flight_of_plan, flights_of_series, rows_of_plan, schema_of_plan
from timedb.flight_server.rpc.uploads import UploadStream
from timedb.flight_server.sql.flight_sql import ACTIONS as SQL_ACTIONS
from timedb.flight_server.sql.flight_sql import FlightSql, is_flight_sql
from timedb.flight_server.sql.messages import CommandPreparedStatementQuery
from timedb.flight_server.sql.sessions import SESSION_ACTIONS

if TYPE_CHECKING:
    from timedb.storage import Lake, Plan, Tenant

__all__ = ["FlightServer"]

_APPEND_SHARE = 8  # of the memory for calls, what waits being held four times
_MAX_HEALTH_BYTES = 1024  # of a body for which nobody's key has been asked
_ASK_SECONDS = 0.02
"""How often a handler asks whether its client is still there: gRPC takes a tenth of a millisecond to say so."""


class _Handshake(flight.ServerAuthHandler):  # type: ignore[misc]  # pyarrow ships no types
    """Lets handshakes be: the head has the password, the head of the answer the token. Calls are let in later."""

    def authenticate(self, outgoing: object, incoming: object) -> None:
        pass

    def is_valid(self, token: object) -> bytes:
        return b""


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """Flight over a lake. It listens as soon as it is made.

    Every RPC can fail with any class of :mod:`timedb.contract.errors`, in the form of ``flight_server/call/errors.py``.

    Args:
        lake: What is served.
        settings: The limits.
        location: Where to listen, say ``grpc://127.0.0.1:0``.
        tls: The certificate of a ``grpc+tls://`` location.
    """

    def __init__(self, lake: Lake, settings: ServerSettings, location: str, tls: ServerTls | None = None) -> None:
        # First, for a call may come in before the constructor below returns.
        self._lake = lake
        self._settings = settings
        self._message_limits = {"max_bytes": settings.max_message_bytes, "max_values": settings.max_json_values}
        self.instance = uuid4().hex
        self.gate = Gate()
        self.metrics = Metrics(lake)
        self.reads = _slots("reads", settings)
        self.uploads = _slots("uploads", settings)
        self.calls = _slots("calls", settings)
        self.streams = Slots(
            "uploads and lookups",
            settings.max_open_streams,
            math.inf,
            tenant_limit=settings.max_open_streams_per_tenant,
        )
        self.followers = Slots(
            "followers", settings.max_followers, math.inf, tenant_limit=settings.max_followers_per_tenant
        )
        self._append_room = AppendRoom(
            settings.max_append_in_flight, min(settings.max_append_bytes, lake.memory.calls.for_calls // _APPEND_SHARE)
        )
        queries = _slots("sql", settings, wait_seconds=settings.sql_wait_seconds)
        self.sql = FlightSql(settings, queries, lake.memory.calls)
        self.metrics.watch(self.gate, (self.reads, self.uploads, self.calls, self.followers, self.sql.slots))
        certificates = {} if tls is None else tls.flight_arguments()
        super().__init__(
            location,
            auth_handler=_Handshake(),
            middleware={MIDDLEWARE_KEY: RequestIds(self.instance, self.open_stream)},
            **certificates,
        )

    def open_stream(self, method: str, request_id: str, credentials: Credentials) -> Callable[[], None]:
        """Let a handshake or a stream of the client's begin: gRPC gives it a thread, which waits for the first message.

        Whoever has no key is refused here, and streams have a number at most. What the call needs is asked once its
        command is there.

        Returns:
            What gives its place back.

        Raises:
            FlightError: it is refused.
        """
        call = CallContext(method, request_id, "", credentials)
        try:
            return self.streams.lease(self._authenticate(call).tenant_id).release
        except BaseException as error:
            call.hold(lambda: self.metrics.record(call))
            call.end(error)
            raise to_flight_error(as_timedb_error(error), request_id) from None

    def admit(self, call: CallContext) -> None:
        """Let a call in, unless the server is stopping or the lake is open and the peer a stranger."""
        self.gate.enter()
        call.hold(self.gate.leave)
        call.hold(lambda: self.metrics.record(call))
        refuse_strangers(self._lake, call.peer, insecure=self._settings.insecure)

    @rpc("do_put")
    def do_put(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Write a run: the last metadata message is the receipt. Or bind the parameters of a SQL statement."""
        self._authenticate(call)
        body = command_of(descriptor)
        command: UploadCommand | CorrectCommand
        if is_sql := is_flight_sql(body):
            asked = self.sql.put_command(body)
            if isinstance(asked, CommandPreparedStatementQuery):
                tenant = self._tenant(call, METHODS["do_get"])
                with self.calls.lease(tenant.tenant_id, self._recheck(call)) as lease:
                    return self.sql.do_put(call, context, asked, reader, writer, lease)
            tenant, command = self._tenant(call), asked
        else:
            tenant = self._tenant(call)
            command = self._parse_put(body)
        with self.uploads.lease(tenant.tenant_id, self._recheck(call)) as lease:
            stream = UploadStream(
                call,
                context,
                reader,
                writer,
                lease=lease,
                max_message_bytes=self._settings.max_message_bytes,
                is_ingestion=is_sql,
            )
            call.facts = facts_of(command)
            if isinstance(command, CorrectCommand):
                receipt = stream.receive(partial(tenant.begin_corrections, command, changed_by=_principal(call)))
            else:
                receipt = stream.receive(partial(tenant.begin_upload, command, created_by=_principal(call)))
            call.facts = facts_of(command, receipt)
        # Outside: a client that does not read keeps its handler waiting here, but no slot.
        stream.acknowledge(receipt)

    @rpc("do_get")
    def do_get(
        self, call: CallContext, context: flight.ServerCallContext, ticket: flight.Ticket
    ) -> flight.FlightDataStream:
        """Stream what a ticket names: a read, accuracy, what is written, or the answer of a SQL query."""
        tenant = self._tenant(call)
        sql = is_flight_sql(ticket.ticket)
        read = None if sql else parse_ticket(ticket.ticket, **self._message_limits)
        if isinstance(read, FollowTicket):
            return self._follow(tenant, read, call, context)
        lease = self.reads.lease(tenant.tenant_id, self._recheck(call))
        call.hold(lease.release)
        if read is None:
            return self.sql.do_get(tenant, call, context, ticket.ticket, lease)
        plan, check = tenant.plan(read), _check_cancelled(call, context, lease)
        share = tenant.memory.calls.share("ticket", plan.memory_bytes, lease.check)
        call.hold(share.release)
        plan.hold(share.grow)
        plan.materialise(check)
        return guarded_stream(call, rows_of_plan(plan), lease, read.compression)

    def _follow(
        self, tenant: Tenant, ticket: FollowTicket, call: CallContext, context: flight.ServerCallContext
    ) -> flight.FlightDataStream:
        call.method = "do_get/follow"
        # One that does not wait is over as soon as any other read.
        slots = self.followers if ticket.wait else self.reads
        lease = slots.lease(tenant.tenant_id, self._recheck(call))
        call.hold(lease.release)
        stream = FollowStream(
            call,
            context,
            ticket,
            tenant.follow(ticket),
            lease=lease,
            memory=tenant.memory.calls,
            gate=self.gate,
            heartbeat_seconds=self._settings.follow_heartbeat_seconds,
        )
        return stream.stream()

    @rpc("get_flight_info")
    def get_flight_info(
        self, call: CallContext, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a read: its parts as endpoints."""
        tenant = self._tenant(call)
        with self._slot(tenant):
            if is_flight_sql(descriptor.command):
                return info_that_fits(self.sql.get_flight_info(tenant, call, context, descriptor), call.message_bytes)
            return flight_of_plan(self._plan(tenant, descriptor), descriptor, call.message_bytes)

    @rpc("get_schema", to_schema_error)
    def get_schema(
        self, call: CallContext, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """The columns of a read."""
        tenant = self._tenant(call)
        with self._slot(tenant):
            if is_flight_sql(descriptor.command):
                schema = self.sql.get_schema(tenant, call, context, descriptor)
            else:
                schema = schema_of_plan(self._plan(tenant, descriptor))
        check_fits(len(schema.serialize()), call.message_bytes, "command")
        return flight.SchemaResult(schema)

    @rpc("list_flights")
    def list_flights(
        self, call: CallContext, context: flight.ServerCallContext, criteria: bytes
    ) -> Iterable[flight.FlightInfo]:
        """The series, or those that the criteria select."""
        tenant = self._tenant(call)
        message = parse(ListSeries, criteria, what="criteria", **self._message_limits)
        with self._slot(tenant):
            page = tenant.page_of_series(message)
        return guarded_results(call, flights_of_series(page, tenant.memory.calls))

    @rpc("do_action")
    def do_action(self, call: CallContext, context: flight.ServerCallContext, action: flight.Action) -> Iterable[bytes]:
        """Run an action; one JSON result, or the pieces of a long one."""
        name = action.type
        if name == HEALTH:
            call.method = f"do_action/{name}"
            if action.body.size > _MAX_HEALTH_BYTES:
                raise TooLarge(f"{HEALTH}: {action.body.size} bytes are over the limit of {_MAX_HEALTH_BYTES}")
            self._parse_body(Nothing, action.body, HEALTH)
            return [to_json(self._health())]
        self._authenticate(call)
        if name in SQL_ACTIONS:
            call.method = f"do_action/{name}"
            tenant = self._tenant(call, ANY_KEY if name in SESSION_ACTIONS else METHODS["do_get"])
            with self._slot(tenant):
                return self.sql.do_action(tenant, call, context, action)
        found = find_action(name)
        call.method = f"do_action/{name}"
        tenant = self._tenant(call, found.access)
        message = self._parse_body(found.body, action.body, name)
        call.facts = facts_of(message)
        with self._slot(tenant):
            answer = found.run(tenant, message, _principal(call)) if found.run else self._figures(tenant)
        call.facts = facts_of(message, answer)
        return guarded_results(call, pieces_of(answer, call.message_bytes))

    @rpc("list_actions")
    def list_actions(self, call: CallContext, context: flight.ServerCallContext) -> list[flight.ActionType]:
        """The actions with their bodies and results."""
        self._tenant(call)
        known = [flight.ActionType(action.name, action.description) for action in ACTIONS.values()]
        return [*known, flight.ActionType(HEALTH, "{} -> {ok}; needs no key")]

    @rpc("do_exchange")
    def do_exchange(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        """Look values up: each batch of questions is answered by a batch. Or write runs, each answered by itself."""
        body = command_of(descriptor)
        if op_of(body, self._settings.max_message_bytes, self._settings.max_json_values) == "append":
            self._parse_command(AppendCommand, body, "command")
            return self._append(call, context, reader, writer)
        tenant = self._tenant(call)
        command = self._parse_command(LookupCommand, body, "command")
        with self.reads.lease(tenant.tenant_id, self._recheck(call)) as lease:
            answer_lookups(tenant, command, call, context, reader, writer, lease=lease)

    def _append(
        self,
        call: CallContext,
        context: flight.ServerCallContext,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        call.method = "do_exchange/append"
        tenant = self._tenant(call, METHODS["do_put"])
        stream = AppendStream(
            call, context, reader, writer, settings=self._settings, whole=self._append_room, gate=self.gate
        )
        try:
            with self.uploads.lease(tenant.tenant_id, self._recheck(call)) as lease:
                stream.receive(tenant, lease, created_by=_principal(call))
        finally:
            # Outside: a client that does not read keeps its handler waiting here, but no slot.
            stream.finish()
            call.facts = {"runs": stream.runs}

    def _health(self) -> dict[str, Any]:
        fault = self._lake.fault(self._settings.stuck_seconds)
        told = {} if (warning := self._lake.warning) is None else {"warning": warning}
        return {"ok": True, **told} if fault is None else {"ok": False, "reason": fault, **told}

    def _authenticate(self, call: CallContext) -> Caller:
        call.caller = authenticate(self._lake, call.credentials)
        return call.caller

    def _tenant(self, call: CallContext, access: Access | None = None) -> Tenant:
        """The caller's tenant, once it is known who calls and that the caller may make this call."""
        caller = call.caller or self._authenticate(call)
        call.access = access or METHODS.get(call.method)
        authorise(caller, call.access)
        if call.access is not None and call.access.writes:
            require_room()
        return tenant_of(self._lake, caller)

    def _recheck(self, call: CallContext) -> Callable[[], None]:
        return recheck(self._lake, call.credentials, call.caller or self._authenticate(call))

    def _figures(self, tenant: Tenant) -> dict[str, Any]:
        return {"text": self.metrics.text(tenant.tenant_id if self._lake.has_users else None)}

    def _slot(self, tenant: Tenant) -> Lease:
        return self.calls.lease(tenant.tenant_id)

    def _plan(self, tenant: Tenant, descriptor: flight.FlightDescriptor) -> Plan:
        return tenant.plan(self._parse_read(command_of(descriptor), "command"))

    def _parse_read(self, body: bytes, what: str) -> ReadTicket | AccuracyTicket:
        return parse_read(body, what=what, **self._message_limits)

    def _parse_put(self, body: bytes) -> UploadCommand | CorrectCommand:
        is_upload = op_of(body, self._settings.max_message_bytes, self._settings.max_json_values) != "correct"
        found: UploadCommand | CorrectCommand = self._parse_command(
            UploadCommand if is_upload else CorrectCommand, body, "command"
        )
        return found

    def _parse_command(self, model: type[Any], body: bytes, what: str) -> Any:
        return parse_command(model, body, what=what, **self._message_limits)

    def _parse_body(self, model: type[Any], body: pa.Buffer, what: str) -> Any:
        return parse(model, body.to_pybytes(), what=what, **self._message_limits)


def _principal(call: CallContext) -> str | None:
    return None if call.caller is None else call.caller.principal


def _check_cancelled(call: CallContext, context: flight.ServerCallContext, lease: Lease) -> Callable[[], None]:
    """What a handler asks while it works out an answer; for the handler's own thread, as the context is."""
    asked = time.monotonic()

    def check() -> None:
        nonlocal asked
        lease.check()
        if time.monotonic() - asked < _ASK_SECONDS:
            return
        asked = time.monotonic()
        end_if_gone(call, context)

    return check


def _slots(kind: str, settings: ServerSettings, *, wait_seconds: float = 0.0) -> Slots:
    return Slots(
        kind,
        getattr(settings, f"max_concurrent_{kind}"),
        settings.max_call_seconds,
        tenant_limit=getattr(settings, f"max_concurrent_{kind}_per_tenant"),
        idle_seconds=settings.max_idle_seconds,
        wait_seconds=wait_seconds,
    )
