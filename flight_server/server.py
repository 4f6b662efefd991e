"""The Flight RPCs. Each is a few lines: read the message, ask the tenant, hand the answer over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from flight_server.actions import ACTIONS, HEALTH, find_action
from flight_server.boundary import MIDDLEWARE_KEY, guarded_stream, rpc
from flight_server.context import CallContext, RequestIds, authenticate, refuse_strangers
from flight_server.errors import to_schema_error
from flight_server.limits import Gate, Slots
from flight_server.messages import command_of, parse_command, to_json
from flight_server.reads import flight_of_plan, flights_of_series
from flight_server.uploads import UploadStream
from timedb.errors import Unimplemented
from timedb.settings import ServerSettings
from timedb.wire import ListSeries, Nothing, ReadTicket, UploadCommand, parse

if TYPE_CHECKING:
    from storage import Lake, ReadPlan, Tenant

__all__ = ["FlightServer"]


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """Flight over a lake. It listens as soon as it is made.

    Every RPC can fail with any class of :mod:`timedb.errors`, in the form of :mod:`flight_server.errors`.

    Args:
        lake: What is served.
        settings: The limits.
        location: Where to listen, say ``grpc://127.0.0.1:0``.
    """

    def __init__(self, lake: Lake, settings: ServerSettings, location: str) -> None:
        # First, for a call may come in before the constructor below returns.
        self._lake = lake
        self._settings = settings
        self.gate = Gate()
        self.reads = Slots("reads", settings.max_concurrent_reads, settings.max_call_seconds)
        self.uploads = Slots("uploads", settings.max_concurrent_uploads, settings.max_call_seconds)
        super().__init__(location, middleware={MIDDLEWARE_KEY: RequestIds()})

    def admit(self, call: CallContext) -> None:
        """Let a call in, unless the server is stopping or the lake is open and the peer a stranger."""
        self.gate.enter()
        call.hold(self.gate.leave)
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
        """Write a run. The last metadata message is the receipt."""
        tenant = self._tenant(call)
        command = self._parse_command(UploadCommand, command_of(descriptor), "command")
        with self.uploads.lease() as lease:
            stream = UploadStream(
                call,
                context,
                reader,
                writer,
                check=lease.check,
                max_message_bytes=self._settings.max_message_bytes,
            )
            receipt = stream.receive(tenant, command, created_by=_principal(call))
        # Outside: a client that does not read keeps its handler waiting here, but no slot.
        stream.acknowledge(receipt)

    @rpc("do_get")
    def do_get(
        self, call: CallContext, context: flight.ServerCallContext, ticket: flight.Ticket
    ) -> flight.FlightDataStream:
        """Read."""
        tenant = self._tenant(call)
        lease = self.reads.lease()
        call.hold(lease.release)
        plan = tenant.plan_read(self._parse_command(ReadTicket, ticket.ticket, "ticket"))
        return guarded_stream(call, plan.reader(), lease.check)

    @rpc("get_flight_info")
    def get_flight_info(
        self, call: CallContext, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Plan a read: its parts as endpoints."""
        return flight_of_plan(self._plan(call, descriptor), descriptor)

    @rpc("get_schema", to_schema_error)
    def get_schema(
        self, call: CallContext, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """The columns of a read."""
        return flight.SchemaResult(self._plan(call, descriptor).schema)

    @rpc("list_flights")
    def list_flights(
        self, call: CallContext, context: flight.ServerCallContext, criteria: bytes
    ) -> list[flight.FlightInfo]:
        """The series, or those that the criteria select."""
        tenant = self._tenant(call)
        message = parse(ListSeries, criteria, what="criteria", max_bytes=self._settings.max_message_bytes)
        return list(flights_of_series(tenant, message))

    @rpc("do_action")
    def do_action(self, call: CallContext, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        """Run an action; one JSON result."""
        name = action.type
        if name == HEALTH:
            self._parse_body(Nothing, action.body, HEALTH)
            return [to_json({"ok": True})]
        tenant = self._tenant(call)
        found = find_action(name)
        call.method = f"do_action/{name}"
        return [to_json(found.run(tenant, self._parse_body(found.body, action.body, name), _principal(call)))]

    @rpc("list_actions")
    def list_actions(self, call: CallContext, context: flight.ServerCallContext) -> list[flight.ActionType]:
        """The actions with their bodies and results."""
        self._tenant(call)
        known = [flight.ActionType(action.name, action.description) for action in ACTIONS.values()]
        return [*known, flight.ActionType(HEALTH, "{} -> {ok}; needs no key")]

    @rpc("do_exchange")
    def do_exchange(self, call: CallContext, *args: object) -> None:
        """Not offered."""
        self._tenant(call)
        raise Unimplemented("do_exchange: use do_put to write and do_get to read")

    def _tenant(self, call: CallContext) -> Tenant:
        call.caller = authenticate(self._lake)
        return self._lake.tenant(call.caller.tenant_id)

    def _plan(self, call: CallContext, descriptor: flight.FlightDescriptor) -> ReadPlan:
        tenant = self._tenant(call)
        return tenant.plan_read(self._parse_command(ReadTicket, command_of(descriptor), "command"))

    def _parse_command(self, model: type[Any], body: bytes, what: str) -> Any:
        return parse_command(model, body, what=what, max_bytes=self._settings.max_message_bytes)

    def _parse_body(self, model: type[Any], body: pa.Buffer, what: str) -> Any:
        return parse(model, body.to_pybytes(), what=what, max_bytes=self._settings.max_message_bytes)


def _principal(call: CallContext) -> str | None:
    return None if call.caller is None else call.caller.principal
