"""What drivers do as they connect, and around their queries: user and password, sessions, cancelling, Grafana's SQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import eventually, rows_of, send
from tests.flight_server.sql.test_flight_sql_limits import ENDLESS
from tests.flight_server.sql_client import ask, column, connected, query, refused
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import FlightService, start_flight_server
from timedb.flight_server.sql.messages import (
    ActionCancelQueryRequest,
    ActionCancelQueryResult,
    CancelFlightInfoRequest,
    CancelFlightInfoResult,
    CommandGetCatalogs,
    Envelope,
    pack,
)
from timedb.flight_server.sql.protobuf import Message
from timedb.flight_server.sql.sessions import (
    CloseSessionResult,
    SessionError,
    SessionOption,
    SessionOptions,
    SessionOptionValue,
    SetSessionOptionsResult,
)
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

CANCELLING, NOT_CANCELLABLE = 2, 3
UNSET, INVALID_NAME, INVALID_VALUE = 0, 1, 2


class Closed:
    """A server whose lake has users, and a key of one."""

    def __init__(self, service: FlightService, key: str) -> None:
        self.url = service.url
        self.key = key


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    uri = str(tmp_path_factory.mktemp("drivers") / "lake")
    settings = load_settings(ServerSettings, lake=uri, flight_port=0, shutdown_seconds=2.0)
    lake = Lake.open(uri, settings)
    user = lake.create_user(parse_object(NewUser, {"email": "ann@one.example", "scopes": ["read"]}))
    service = start_flight_server(lake, settings)
    yield Closed(service, str(user["api_key"]))
    service.stop()
    lake.close()


@pytest.mark.parametrize("user", ["ann@one.example", "anybody", ""])
def test_any_user_with_the_key_as_password(closed: Closed, user: str) -> None:
    with adbc.connect(closed.url, db_kwargs={"username": user, "password": closed.key}, autocommit=True) as connection:
        assert column(connection, "SELECT count(*) FROM series") == [0]


@pytest.mark.parametrize("password", ["", "wrong", "tdb_" + "A" * 43, "ü" * 10])
def test_another_password_is_refused(closed: Closed, password: str) -> None:
    options = {"username": "ann@one.example", "password": password}
    with pytest.raises(adbc_driver_manager.Error) as caught, adbc.connect(closed.url, db_kwargs=options) as connection:
        column(connection, "SELECT 1")
    assert "unauthenticated" in str(caught.value).lower()
    with flight.connect(closed.url) as client:
        code, _ = outcome(lambda: client.authenticate_basic_token("ann@one.example", password))
        assert code == "unauthenticated"


def test_the_handshake_gives_the_key_as_bearer_token(closed: Closed) -> None:
    with flight.connect(closed.url) as client:
        name, token = client.authenticate_basic_token("anybody", closed.key)
        assert (name, token) == (b"authorization", f"Bearer {closed.key}".encode())
        options = flight.FlightCallOptions(headers=[(name, token)])
        assert list(client.list_flights(options=options)) == []
        assert outcome(lambda: list(client.list_flights()))[0] == "unauthenticated"


def test_a_lake_without_users_takes_any_password(flight_service: FlightService) -> None:
    with adbc.connect(flight_service.url, db_kwargs={"username": "x", "password": "y"}, autocommit=True) as connection:
        assert column(connection, "SELECT 1") == [1]
    with flight.connect(flight_service.url) as client:
        assert client.authenticate_basic_token("", "")[1] == b"Bearer open"


def act_on(client: flight.FlightClient, name: str, message: Message | None = None) -> bytes:
    (result,) = client.do_action(flight.Action(name, b"" if message is None else message.to_bytes()))
    return bytes(result.body)


def option(name: str, value: str | None) -> bytes:
    return SessionOption(name, b"" if value is None else SessionOptionValue(value).to_bytes()).to_bytes()


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("catalog", "timedb", UNSET),
        ("schema", "main", UNSET),
        ("catalog", None, UNSET),
        ("catalog", "another", INVALID_VALUE),
        ("catalog", "TimeDB", INVALID_VALUE),
        ("schema", "", INVALID_VALUE),
        ("role", "reader", INVALID_NAME),
        ("", "", INVALID_NAME),
    ],
)
def test_options_of_sessions(closed: Closed, name: str, value: str | None, fault: int) -> None:
    with calling(closed.url, closed.key) as client:
        answer = act_on(client, "SetSessionOptions", SessionOptions((option(name, value),)))
        errors = [
            SessionOption.from_bytes(each, what="-")
            for each in SetSessionOptionsResult.from_bytes(answer, what="-").errors
        ]
        found = {each.key: SessionError.from_bytes(each.value, what="-").value for each in errors}
        assert found == ({name: fault} if fault else {})
        kept = SessionOptions.from_bytes(act_on(client, "GetSessionOptions"), what="-").session_options
        options = [SessionOption.from_bytes(each, what="-") for each in kept]
        values = {each.key: SessionOptionValue.from_bytes(each.value, what="-").string_value for each in options}
        assert values == {"catalog": "timedb", "schema": "main"}
        assert CloseSessionResult.from_bytes(act_on(client, "CloseSession"), what="-").status == 1


def test_the_driver_sets_options_of_its_session(flight_service: FlightService) -> None:
    with connected(flight_service.url) as connection:
        inside = connection.adbc_connection
        inside.set_options(**{"adbc.connection.catalog": "timedb", "adbc.connection.db_schema": "main"})
        assert column(connection, "SELECT 1") == [1]
        with pytest.raises(adbc_driver_manager.Error):
            inside.set_options(**{"adbc.connection.catalog": "another"})


def test_actions_of_sessions_want_a_key_and_a_message(closed: Closed) -> None:
    with calling(closed.url) as stranger, calling(closed.url, closed.key) as client:
        for name in ("SetSessionOptions", "GetSessionOptions", "CloseSession", "CancelQuery", "CancelFlightInfo"):
            assert outcome(lambda name=name: act_on(stranger, name))[0] == "unauthenticated"  # type: ignore[misc]  # what a default binds, mypy does not infer
        nonsense = flight.Action("SetSessionOptions", b"\xff\xff")
        assert outcome(lambda: list(client.do_action(nonsense)))[0] == "invalid_request"
        for name in ("CancelQuery", "CancelFlightInfo"):
            action = flight.Action(name, b"\x0a\x03abc")
            assert outcome(lambda action=action: list(client.do_action(action)))[0] == "invalid_request"  # type: ignore[misc]  # as above


@pytest.mark.parametrize("name", ["CancelFlightInfo", "CancelQuery"])
def test_another_call_cancels_a_query(flight_service: FlightService, name: str) -> None:
    with flight.connect(flight_service.url) as client, flight.connect(flight_service.url) as other:
        info, twin = client.get_flight_info(query(ENDLESS)), client.get_flight_info(query(ENDLESS))
        assert cancelled(other, name, info) == NOT_CANCELLABLE  # it does not run yet
        found: list[tuple[str, str]] = []
        reading = threading.Thread(
            target=lambda: found.append(outcome(lambda: client.do_get(info.endpoints[0].ticket).read_all()))
        )
        reading.start()
        eventually(lambda: flight_service._server.sql.slots.taken == 1)
        assert cancelled(other, name, twin) == NOT_CANCELLABLE  # the same text, but another one's
        eventually(lambda: cancelled(other, name, info) in (CANCELLING, NOT_CANCELLABLE) and not reading.is_alive())
        reading.join()
        assert found == [("timeout", "the query was cancelled")]
        catalogs = client.get_flight_info(flight.FlightDescriptor.for_command(pack(CommandGetCatalogs())))
        assert cancelled(other, name, catalogs) == NOT_CANCELLABLE


def cancelled(client: flight.FlightClient, name: str, info: flight.FlightInfo) -> int:
    if name == "CancelFlightInfo":
        answer = act_on(client, name, CancelFlightInfoRequest(info.serialize()))
        return CancelFlightInfoResult.from_bytes(answer, what="-").status
    (result,) = client.do_action(flight.Action(name, pack(ActionCancelQueryRequest(info.serialize()))))
    return ActionCancelQueryResult.from_bytes(Envelope.from_bytes(bytes(result.body), what="-").value, what="-").result


# As the macros of grafana-flightsql-datasource (pkg/flightsql/macro.go) expand.
GRAFANA = {
    "$__dateBin": """SELECT date_bin(interval '3600 second', valid_time, timestamp '1970-01-01T00:00:00Z') AS hour,
        sum(value) FROM flat WHERE series_key = 'grafana' GROUP BY hour ORDER BY hour""",
    "$__dateBinAlias": """SELECT date_bin(interval '7200 second', valid_time, timestamp '1970-01-01T00:00:00Z') AS
        valid_time_binned, count(*) FROM flat WHERE series_key = 'grafana' GROUP BY valid_time_binned ORDER BY 1""",
    "$__timeGroup": """SELECT datepart('year', valid_time),datepart('month', valid_time),datepart('day', valid_time),
        datepart('hour', valid_time), count(*) FROM flat WHERE series_key = 'grafana' GROUP BY 1, 2, 3, 4 ORDER BY 4""",
    "$__timeFilter": """SELECT valid_time AS time, value FROM flat WHERE series_key = 'grafana' AND
        valid_time >= '2025-01-01T00:30:00Z' AND valid_time <= '2025-01-01T01:00:00Z'""",
    "$__timeFrom and $__timeTo": """SELECT valid_time, value FROM flat WHERE series_key = 'grafana' AND
        valid_time >= cast('2025-01-01T00:30:00Z' as timestamp) AND
        valid_time <= cast('2025-01-01T01:00:00Z' as timestamp)""",
}


def test_the_macros_of_grafana(flight_service: FlightService) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    times = [start + timedelta(minutes=30 * number) for number in range(4)]
    with flight.connect(flight_service.url) as client:
        send(client, rows_of("grafana", 4, valid_time=pa.array(times, pa.timestamp("us", "UTC"))), rows=4)
    with connected(flight_service.url) as connection:
        found = {name: ask(connection, sql).to_pylist() for name, sql in GRAFANA.items()}
        assert column(connection, "SELECT date_bin(INTERVAL 1 HOUR, TIMESTAMPTZ '1969-12-31 23:10:00Z')") == [
            datetime(1969, 12, 31, 23, tzinfo=UTC)
        ]
        with refused("invalid_request", "query: "):
            ask(connection, GRAFANA["$__dateBin"].replace("3600", "0"))
    answers = {name: [tuple(row.values()) for row in rows] for name, rows in found.items()}
    assert answers == {
        "$__dateBin": [(start, 1.0), (start + timedelta(hours=1), 5.0)],
        "$__dateBinAlias": [(start, 4)],
        "$__timeGroup": [(2025, 1, 1, 0, 2), (2025, 1, 1, 1, 2)],
        "$__timeFilter": [(times[1], 1.0), (times[2], 2.0)],
        "$__timeFrom and $__timeTo": [(times[1], 1.0), (times[2], 2.0)],
    }
