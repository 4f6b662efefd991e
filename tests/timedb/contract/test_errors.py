"""Errors know which field they are about, and can be told in the words of another door."""

from __future__ import annotations

import pytest

from timedb.contract.errors import InvalidRequest, NotFound, error_for_code
from timedb.contract.wire import ReadCommand, parse_object


@pytest.mark.parametrize(
    ("detail", "field"),
    [
        ("limit: 0 is too small", "limit"),
        ("relative.days_ahead: -1 is less than 0", "relative.days_ahead"),
        ("updates.3.value: is missing", "updates.3.value"),
        ("lead_time: -P1M has months", "lead_time"),
        ("TIMEDB_HOST, TIMEDB_REST_PORT: cannot listen", "TIMEDB_HOST"),
        ("the request is over a limit", None),
        ("there is no such host as grpc://x names; start a server", None),
        ("since goes with view changes", None),
        ("", None),
    ],
)
def test_the_field_is_what_the_detail_begins_with(detail: str, field: str | None) -> None:
    assert InvalidRequest(detail).field == field


def test_a_message_knows_its_fields_without_a_colon() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_object(ReadCommand, {"since": "token"})
    assert (caught.value.field, str(caught.value)) == ("since", "since goes with view changes")


def test_another_door_calls_the_field_otherwise() -> None:
    error = error_for_code("not_found", "series_keys: there is no series 'x'", request_id="r").of_field("name")
    assert isinstance(error, NotFound)
    assert (error.field, error.detail, error.request_id) == ("name", "name: there is no series 'x'", "r")
