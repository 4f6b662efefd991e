"""What a page of somebody else does to an open lake, in a browser: nothing, whichever way it sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from timedb.run.launch import Service

# Every way of a page to send a request without asking first.
ATTACK = """
const target = arguments[0], done = arguments[1];
const form = (enctype) => new Promise((sent) => {
  const frame = Object.assign(document.createElement("iframe"), { name: enctype });
  const made = document.createElement("form");
  Object.assign(made, { method: "post", action: target, enctype, target: enctype });
  document.body.append(frame, made);
  frame.onload = sent;
  made.submit();
});
const simple = (options) => fetch(target, { method: "POST", mode: "no-cors", ...options }).catch(() => 0);
const asking = (options) => fetch(target, { method: "POST", ...options }).catch(() => 0);
(async () => {
  for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]) await form(enctype);
  await simple({});
  await simple({ body: "{}" });
  await simple({ body: new Blob(["{}"], { type: "text/plain" }), referrerPolicy: "no-referrer" });
  await asking({ headers: { "X-Requested-With": "x" } });
  await asking({ body: "{}", headers: { "Content-Type": "application/json" } });
  done(navigator.sendBeacon(target));
})();
"""


class _Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<!doctype html><link rel="icon" href="data:,"><body>')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of a page that is not the service's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Blank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def forget_errors(browser: Any) -> None:  # `get_log` has no types
    """Those of other pages are none of the page's."""
    browser.get_log("browser")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_elsewhere_withdraws_nothing(
    browser: Chrome, ui_service: Service, rest: httpx.Client, elsewhere: int, host: str
) -> None:
    row = {"valid_time": "2025-01-01T00:00:00Z", "value_key": "attacked", "value": 1.0}
    run = {"run_id": "attacked", "run_start_time": "2025-01-01T00:00:00Z", "known_time": "2025-01-01T00:00:00Z"}
    assert rest.post("/runs", json={**run, "value_rows": [row]}).status_code == 200
    target = f"{ui_service.rest_url}/runs/attacked/withdraw"
    browser.get(f"http://{host}:{elsewhere}/")
    browser.set_script_timeout(30)
    browser.execute_async_script(ATTACK, target)
    forget_errors(browser)
    assert rest.get("/values", params={"name": "attacked"}).json()["count"] == 1


def test_the_service_s_own_page_may_write(browser: Chrome, ui_service: Service) -> None:
    browser.get(f"{ui_service.rest_url}/ui")
    send = """
    const [path, done] = arguments;
    fetch(path, { method: "POST" }).then((answer) => done(answer.status));
    """
    assert browser.execute_async_script(send, "/runs/no-such-run/withdraw") == 404
    forget_errors(browser)
