"""What pages of strangers can do to a lake without users: forms, bodyless POSTs, scripts, names that point here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.rest_gateway.calls import START, assert_error, hours, read, serving, upload
from timedb.contract.settings import ServerSettings
from timedb.rest_gateway import create_app

if TYPE_CHECKING:
    from timedb.run.launch import Service

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/60.0"}
EVIL = "http://evil.example"
FORM = "application/x-www-form-urlencoded"
FORGED: list[tuple[dict[str, str], str]] = [
    ({"Origin": EVIL}, "Origin"),
    ({"Origin": "null"}, "Origin"),
    ({"Origin": "http://127.0.0.1.evil.example"}, "Origin"),
    ({"Origin": "http://localhost.evil.example:8000"}, "Origin"),
    ({"Origin": EVIL, "X-Requested-With": "x"}, "Origin"),
    ({"Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "Origin"),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "Sec-Fetch-Site"),
    ({"Origin": "http://localhost:3000"}, "X-Requested-With"),  # another page of this machine
    ({"Sec-Fetch-Site": "same-site"}, "X-Requested-With"),
    (BROWSER, "X-Requested-With"),  # old browsers say nothing of forms but what they are
    ({"Referer": f"{EVIL}/page"}, "X-Requested-With"),
    ({"Host": "evil.example"}, "Host"),
    ({"Host": "localhost.evil.example:8000", "X-Requested-With": "x"}, "Host"),
    ({"Host": "192.0.2.7:8000"}, "Host"),
    ({"Host": "timedb"}, "Host"),
    ({"Host": ""}, "Host"),
]


@pytest.fixture(scope="module")
def run(rest: httpx.Client) -> str:
    upload(rest, hours("of-origins", [1.0, 2.0]), run_id="of-origins", known_time=START)
    return "of-origins"


@pytest.mark.parametrize(("headers", "at_fault"), FORGED, ids=str)
def test_a_bodyless_write_of_a_stranger_s_page_is_refused(
    rest: httpx.Client, run: str, headers: dict[str, str], at_fault: str
) -> None:
    assert_error(rest.post(f"/runs/{run}/withdraw", headers=headers), 403, "forbidden", f"{at_fault}: ", "users")
    assert read(rest, "of-origins")["count"] == 2, "nothing was withdrawn"


@pytest.mark.parametrize("headers", [{"Content-Type": FORM}, {"Content-Type": "text/plain"}])
def test_an_empty_form_is_no_json(rest: httpx.Client, run: str, headers: dict[str, str]) -> None:
    assert_error(rest.post(f"/runs/{run}/withdraw", headers=headers), 422, "invalid_request", "Content-Type")
    assert_error(rest.post("/runs", headers=headers), 422, "invalid_request", "Content-Type")
    assert read(rest, "of-origins")["count"] == 2


WRITERS: list[dict[str, str]] = [
    {},  # a program
    {"Content-Type": "application/json"},
    {"X-Requested-With": "timedb", "Origin": "http://localhost:3000", "Sec-Fetch-Site": "cross-site"},
    {"Content-Type": "application/json", **BROWSER},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://lake.example"},  # behind a proxy that gives another Host
    {"Host": "localhost:8000", "Origin": "http://localhost:8000"},
    {"Host": "[::1]:8000", "Origin": "http://[::1]:8000", **BROWSER},
    {"Host": "timedb.localhost"},
    {"X-API-Key": "of-nobody", **BROWSER},
]


@pytest.mark.parametrize("headers", WRITERS, ids=str)
def test_programs_and_the_service_s_own_page_write(rest: httpx.Client, headers: dict[str, str]) -> None:
    assert_error(rest.post("/runs/no-such-run/withdraw", headers=headers), 404, "not_found", "no-such-run")


READERS: list[tuple[dict[str, str], bool]] = [
    ({"Origin": EVIL}, False),
    ({"Host": "evil.example:8000"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),  # a link
    ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", **BROWSER}, True),
    ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", **BROWSER}, True),
    (BROWSER, True),
]


@pytest.mark.parametrize(("headers", "is_served"), READERS, ids=str)
@pytest.mark.parametrize("path", ["/values", "/ui", "/metrics", "/"])
def test_pages_of_strangers_cannot_make_the_lake_read(
    rest: httpx.Client, path: str, headers: dict[str, str], is_served: bool
) -> None:
    answer = rest.get(path, headers=headers, params={"name": "of-origins"} if path == "/values" else None)
    assert (answer.status_code != 403) is is_served


def test_a_stranger_s_page_gets_no_leave_to_send_more(rest: httpx.Client) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-requested-with"}
    assert rest.options("/runs", headers={**asked, "Origin": EVIL}).status_code == 403
    neighbour = rest.options("/runs", headers={**asked, "Origin": "http://localhost:3000"})
    assert "access-control-allow-origin" not in neighbour.headers


@pytest.mark.parametrize(
    ("settings", "headers", "is_served"),
    [
        ({"allowed_hosts": "lake.example, other.example"}, {"Host": "lake.example:8000"}, True),
        ({"allowed_hosts": "lake.example, other.example"}, {"Host": "OTHER.example."}, True),
        ({"allowed_hosts": "lake.example"}, {"Host": "x.lake.example"}, False),
        ({"allowed_hosts": "*"}, {"Host": "any.example"}, True),
        ({"insecure": True}, {"Host": "timedb:8000"}, True),  # a container by its name
        ({"insecure": True}, {"Host": "192.0.2.7:8000"}, True),
        ({"insecure": True}, {"Host": "[2001:db8::7]:8000"}, True),
        ({"insecure": True}, {"Host": "evil.example"}, False),
        ({"insecure": True}, {"Host": "192.0.2.7:8000", "Origin": EVIL}, False),
        ({"insecure": True, "host": "0.0.0.0"}, {"Host": "evil.example"}, False),
        ({"host": "lake.internal"}, {"Host": "lake.internal:8000"}, True),
        ({"cors_origins": "https://pages.example"}, {"Origin": "https://pages.example"}, True),
        ({"cors_origins": "https://pages.example"}, {"Origin": "http://pages.example"}, False),
    ],
)
def test_settings_name_further_hosts_and_origins(
    settings: dict[str, Any], headers: dict[str, str], is_served: bool
) -> None:
    # Without a Flight server behind it the lake counts as open.
    with serving(create_app("grpc://127.0.0.1:9", ServerSettings(**settings))) as rest:
        answer = rest.get("/", headers=headers)
        assert (answer.status_code == 200) is is_served
        if not is_served:
            assert_error(answer, 403, "forbidden", "TIMEDB_")


def test_a_lake_with_users_asks_for_the_key_alone(new_service: Callable[..., Service]) -> None:
    from timedb import create_user

    service = new_service()
    assert service.lake is not None
    with httpx.Client(base_url=service.rest_url) as rest:
        upload(rest, hours("mine", [1.0]), run_id="mine", known_time=START)
        key = create_user("ann@example.com", lake=service.lake)["api_key"]
        forged = {"Host": "evil.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site", **BROWSER}
        assert_error(rest.post("/runs/mine/withdraw", headers=forged), 401, "unauthenticated")
        cookies = {"Cookie": f"api_key={key}; X-API-Key={key}; timedb-api-key={key}"}
        assert_error(rest.post("/runs/mine/withdraw", headers=forged | cookies), 401, "unauthenticated")
        withdrawn = rest.post("/runs/mine/withdraw", headers={**forged, "X-API-Key": key})
        assert withdrawn.json() == {"withdrawn": 1}
