"""Session options (``Flight.proto``): what drivers set as they connect. There is one catalog and one schema, so nothing
has to be kept of a session, and any server on the lake answers for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timedb.flight_server.sql.protobuf import Message, repeated, single
from timedb.flight_server.sql.tables import CATALOG, SCHEMA

__all__ = ["SESSION_ACTIONS"]

_OPTIONS = {"catalog": CATALOG, "schema": SCHEMA}
_INVALID_NAME, _INVALID_VALUE = 1, 2
_CLOSED = 1


@dataclass(frozen=True)
class SessionOptionValue(Message):
    """The value of an option. Other types than text are not read: no option has them."""

    string_value: str | None = single(1, "text")


@dataclass(frozen=True)
class SessionOption(Message):
    """An option's name and value; an empty value takes it back."""

    key: str = single(1, "text", "")
    value: bytes = single(2, "bytes", b"")


@dataclass(frozen=True)
class SessionOptions(Message):
    """The options of a session, as they are set and as they are told."""

    session_options: tuple[bytes, ...] = repeated(1, "bytes")


@dataclass(frozen=True)
class SessionError(Message):
    """Why an option was not set."""

    value: int = single(1, "number", 0)


@dataclass(frozen=True)
class SetSessionOptionsResult(Message):
    """The options that were not set, each with its :class:`SessionError`."""

    errors: tuple[bytes, ...] = repeated(1, "bytes")


@dataclass(frozen=True)
class CloseSessionResult(Message):
    """How closing a session went."""

    status: int = single(1, "number", 0)


def _set(body: bytes) -> Message:
    errors = []
    for each in SessionOptions.from_bytes(body, what="SetSessionOptions").session_options:
        option = SessionOption.from_bytes(each, what="SetSessionOptions")
        if fault := _fault(option):
            errors.append(SessionOption(option.key, SessionError(fault).to_bytes()).to_bytes())
    return SetSessionOptionsResult(tuple(errors))


def _fault(option: SessionOption) -> int | None:
    if option.key not in _OPTIONS:
        return _INVALID_NAME
    value = SessionOptionValue.from_bytes(option.value, what="SetSessionOptions").string_value
    return _INVALID_VALUE if option.value and value != _OPTIONS[option.key] else None


def _get(body: bytes) -> Message:
    values = {name: SessionOptionValue(value).to_bytes() for name, value in _OPTIONS.items()}
    return SessionOptions(tuple(SessionOption(name, value).to_bytes() for name, value in values.items()))


def _close(body: bytes) -> Message:
    return CloseSessionResult(_CLOSED)


SESSION_ACTIONS: dict[str, Callable[[bytes], Message]] = {
    "SetSessionOptions": _set,
    "GetSessionOptions": _get,
    "CloseSession": _close,
}
"""What answers each action about sessions, by its name. An option that is not set is in the answer, no error."""
