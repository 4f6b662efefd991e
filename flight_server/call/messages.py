"""The JSON in descriptors, tickets, bodies and metadata, in and out."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pyarrow import flight
from pydantic import ConfigDict, TypeAdapter

from timedb.contract.errors import InvalidRequest, Unimplemented
from timedb.contract.json_counts import check_json_counts
from timedb.contract.wire import AccuracyTicket, FollowTicket, ReadTicket, WireModel, parse

__all__ = ["command_of", "op_of", "parse_command", "parse_read", "parse_ticket", "to_json"]

M = TypeVar("M", bound=WireModel)

_RESULT = TypeAdapter(dict[str, Any], config=ConfigDict(ser_json_inf_nan="strings"))


def command_of(descriptor: flight.FlightDescriptor) -> bytes:
    """The command of a descriptor.

    Raises:
        InvalidRequest: it has a path, or nothing.
    """
    if descriptor.descriptor_type != flight.DescriptorType.CMD:
        raise InvalidRequest("descriptor: must be a command (FlightDescriptor.for_command), not a path")
    command: bytes = descriptor.command
    return command


def parse_command(model: type[M], body: bytes, *, what: str, max_bytes: int, max_values: int) -> M:
    """Read a command or ticket.

    Raises:
        Unimplemented: it is not JSON but, as it seems, of Flight SQL, which does not use this call.
        InvalidRequest, TooLarge: as :func:`timedb.contract.wire.parse`.
    """
    if not body:
        raise InvalidRequest(f"{what}: is empty")
    if not body.startswith(b"{"):
        raise Unimplemented(f"{what}: is no JSON object; Flight SQL does not use this call")
    return parse(model, body, what=what, max_bytes=max_bytes, max_values=max_values)


def parse_read(body: bytes, *, what: str, max_bytes: int, max_values: int) -> ReadTicket | AccuracyTicket:
    """Read the command or ticket of whatever streams rows.

    Raises:
        Unimplemented, InvalidRequest, TooLarge: as :func:`parse_command`.
    """
    if op_of(body, max_bytes, max_values, what=what) == "accuracy":
        return parse_command(AccuracyTicket, body, what=what, max_bytes=max_bytes, max_values=max_values)
    return parse_command(ReadTicket, body, what=what, max_bytes=max_bytes, max_values=max_values)


def parse_ticket(body: bytes, *, max_bytes: int, max_values: int) -> ReadTicket | AccuracyTicket | FollowTicket:
    """Read a ticket of ``do_get``: as :func:`parse_read`, and of a stream that has no end and so no plan."""
    if op_of(body, max_bytes, max_values, what="ticket") == "follow":
        return parse_command(FollowTicket, body, what="ticket", max_bytes=max_bytes, max_values=max_values)
    return parse_read(body, what="ticket", max_bytes=max_bytes, max_values=max_values)


def op_of(body: bytes, max_bytes: int, max_values: int, *, what: str = "command") -> object:
    """The ``op`` of a command, as far as it can be read; whatever is wrong with it is said where it is parsed.

    Raises:
        TooLarge: it holds more than ``max_values``.
    """
    if len(body) > max_bytes:
        return None
    check_json_counts(body, what, max_values)
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return message.get("op") if isinstance(message, dict) else None


def to_json(result: dict[str, Any]) -> bytes:
    """A result as JSON; NaN and the infinities travel as text, as in all messages."""
    return _RESULT.dump_json(result)
