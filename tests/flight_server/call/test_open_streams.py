"""Streams that a client opens and does not fill: refused on their head, before a thread waits for them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.flight_server.callers import calling, outcome
from tests.flight_server.flights import eventually, rows_of, send
from tests.flight_server.raw_http2 import begin
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.wire import parse_object
from timedb.flight_server import start_flight_server
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-222222222222"


def threads() -> int:
    """Threads of this process, those of gRPC included."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_streams_that_wait_are_few_and_of_those_who_have_a_key(lake_dir: Path) -> None:
    limits = {"max_open_streams": 5, "max_open_streams_per_tenant": 3, "shutdown_seconds": 0.5}
    settings = load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, **limits)
    lake = Lake.open(settings.lake, settings)
    one, two = (
        lake.create_user(parse_object(NewUser, {"email": "a@example.com", "tenant_id": tenant}))["api_key"]
        for tenant in (ONE, TWO)
    )
    service = start_flight_server(lake, settings)
    streams, before = service.slots["streams"], threads()
    with ExitStack() as stack, calling(service.url, one) as first, calling(service.url, two) as second:
        for method in ("DoPut", "DoExchange"):
            for headers in ([], [(b"x-api-key", b"of-nobody")]):
                for _ in range(100):
                    stack.enter_context(begin(service.port, method, [], headers))
        assert outcome(lambda: send(second, rows_of("waits"), rows=3)) == ("ok", "")
        assert streams.taken == 0
        assert threads() - before < 100
        with calling(service.url) as stranger:
            code, detail = outcome(lambda: send(stranger, rows_of("waits"), rows=3))
            assert code == "unauthenticated"
            assert "X-API-Key" in detail
        for _ in range(20):
            stack.enter_context(begin(service.port, "DoPut", [], [(b"x-api-key", one.encode())]))
        eventually(lambda: streams.taken == 3)
        code, detail = outcome(lambda: send(first, rows_of("waits"), rows=3))
        assert (code, detail) == ("busy", "3 uploads and lookups of the tenant run already; retry")
        assert outcome(lambda: send(second, rows_of("waits"), rows=3)) == ("ok", "")
        stack.close()
        eventually(lambda: streams.taken == 0)
        assert outcome(lambda: send(first, rows_of("waits"), rows=3)) == ("ok", "")
    service.stop()
    lake.close()
