"""The one table of errors, and their form on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pyarrow import flight

from timedb.contract.errors import Busy, Internal, InvalidRequest, TimeDBError
from timedb.flight_server.call.errors import FLIGHT_CLASSES, as_timedb_error, to_flight_error

CLEAN = {
    "unauthenticated": flight.FlightUnauthenticatedError,
    "forbidden": flight.FlightUnauthorizedError,
    "busy": flight.FlightUnavailableError,
    "unavailable": flight.FlightUnavailableError,
    "timeout": flight.FlightTimedOutError,
    "storage_full": flight.FlightUnavailableError,
    "storage_refused": flight.FlightUnavailableError,
    "damaged": flight.FlightInternalError,
    "internal": flight.FlightInternalError,
}


def tree(root: type[TimeDBError] = TimeDBError) -> Iterator[type[TimeDBError]]:
    """Every class of the error tree."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def body_of(error: Any) -> dict[str, str]:
    """The JSON of an error."""
    body: dict[str, str] = json.loads(error.extra_info)
    return body


@pytest.mark.parametrize("cls", [cls for cls in tree() if cls.__module__ == "timedb.contract.errors"])
def test_every_class_of_the_tree_is_in_the_table(cls: type[TimeDBError]) -> None:
    assert FLIGHT_CLASSES[cls] is CLEAN.get(cls.code, flight.FlightServerError)


def test_a_class_that_the_table_does_not_know_is_sent_as_its_parent() -> None:
    class VeryBusy(Busy):
        """Defined here only."""

    error: Any = to_flight_error(VeryBusy("later"), "r-1")
    assert type(error) is flight.FlightUnavailableError
    assert body_of(error)["code"] == "busy"


def test_message_and_extra_info() -> None:
    error: Any = to_flight_error(InvalidRequest("limit: 0 is too small"), "r-1")
    assert str(error) == "invalid_request: limit: 0 is too small"
    assert body_of(error) == {
        "code": "invalid_request",
        "message": "the request is not valid",
        "detail": "limit: 0 is too small",
        "request_id": "r-1",
        "field": "limit",
    }


def test_what_is_not_ours_says_nothing_of_itself() -> None:
    error: Any = to_flight_error(as_timedb_error(FileNotFoundError("/secret/place")), "r-1")
    assert type(error) is flight.FlightInternalError
    assert "secret" not in str(error) + error.extra_info.decode()


def test_the_detail_of_an_internal_error_stays_inside() -> None:
    error: Any = to_flight_error(Internal("commit 7 of /secret/place is torn"), "r-1")
    assert str(error) == "internal: the service failed"
    assert "secret" not in error.extra_info.decode()


@pytest.mark.parametrize("detail", ["x" * 100_000, "é" * 5_000, "\U0001f600" * 5_000, "%" * 5_000, "\x00\n" * 5_000])
def test_a_long_detail_is_cut_to_what_trailers_hold(detail: str) -> None:
    error: Any = to_flight_error(InvalidRequest(detail), "r-1")
    assert 100 < len(body_of(error)["detail"]) <= 1501
    assert len(str(error).encode()) + len(error.extra_info) < 4_000


@pytest.mark.parametrize("detail", ["a\nb", "a\rb", "a\x00b", "a\ud800b", "a\x1bb", "a\u2028b"])
def test_a_detail_is_one_line_of_text(detail: str) -> None:
    assert body_of(to_flight_error(InvalidRequest(detail), "r-1"))["detail"] == "a b"
