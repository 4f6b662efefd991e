"""Files as browsers, ``curl -F`` and ``curl -T`` send them: in forms, and as bytes of which ``format`` says what."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.rest_gateway.calls import START, assert_error, hours, read
from tests.rest_gateway.test_rest_uploads import ARROW, CSV, NDJSON, PARQUET, body_of, table_of
from tests.timedb.layouts.workbooks import workbook

if TYPE_CHECKING:
    from timedb.run.launch import Service

OCTETS = "application/octet-stream"
SUFFIXES = {CSV: "csv", PARQUET: "parquet", ARROW: "arrows", NDJSON: "jsonl"}
FORMATS = {CSV: "csv", PARQUET: "parquet", ARROW: "arrow", NDJSON: "ndjson"}
B = "----here"


def lines(name: str, value: float = 1.5) -> bytes:
    return f"series_key,valid_time,value\n{name},2025-01-01T00:00:00Z,{value}\n".encode()


def form(*parts: tuple[str, bytes], boundary: str = B, end: bytes = b"--\r\n") -> bytes:
    """A form of parts, each with its headers."""
    text = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts)
    return text + f"--{boundary}".encode() + end


def named(name: str, filename: str | None = None, more: str = "") -> str:
    shown = f'Content-Disposition: form-data; name="{name}"'
    return shown + (f'; filename="{filename}"' if filename is not None else "") + more


def send(rest: httpx.Client, body: bytes, path: str = "/upload", **query: Any) -> httpx.Response:
    return rest.post(path, content=body, params=query, headers={"Content-Type": f"multipart/form-data; boundary={B}"})


@pytest.mark.parametrize(
    ("media_type", "said"), [(CSV, "by name"), (NDJSON, "by name"), (PARQUET, "by format"), (ARROW, "by type")]
)
def test_a_form_with_a_file_is_a_run(rest: httpx.Client, name: str, media_type: str, said: str) -> None:
    file = {
        "by name": (f"{name}.{SUFFIXES[media_type].upper()}", body_of(table_of(name), media_type), OCTETS),
        "by type": ("forecast", body_of(table_of(name), media_type), media_type),
        "by format": ("forecast.dat", body_of(table_of(name), media_type), OCTETS),
    }[said]
    fields = {"run_id": name, "workflow_id": "by hand", "run_params": '{"model": 2}', "unit": ""}
    if said == "by format":
        fields["format"] = FORMATS[media_type]
    for _ in range(2):  # the second time it is a retry
        answer = rest.post("/upload", data=fields, files={"file": file}, params={"run_start_time": START})
        assert answer.status_code == 200, answer.text
    rows = read(rest, name, all_versions=True, non_finite="text")["data"]
    assert [(row["value"], row["run_id"]) for row in rows] == [(value, name) for value in (1.5, None, "NaN")]
    record = rest.get(f"/runs/{name}").json()
    assert (record["workflow_id"], record["run_params"], record["run_start_time"][:10]) == (
        "by hand",
        {"model": 2},
        "2025-01-01",
    )


def test_json_spreadsheets_and_layouts_come_in_forms_too(rest: httpx.Client, name: str) -> None:
    body = json.dumps({"run_start_time": START, "value_rows": hours(name, [1.0])}).encode()
    assert rest.post("/runs", files={"file": ("run.json", body)}, data={"run_id": name}).json()["run_id"] == name
    german = f"Zeit;{name}-de\n01.01.2025 12:00;1,5\n".encode()
    layout = {"valid_time": "Zeit", "wide": "true", "time_format": "%d.%m.%Y %H:%M", "decimal": ",", "delimiter": ";"}
    file = ("Preise.csv", german, "application/vnd.ms-excel")  # as browsers on Windows say of it
    answer = rest.post("/runs", files={"file": file}, data={**layout, "null": ["n/a", "-"], "known_time": START})
    assert answer.status_code == 200, answer.text
    assert [row["value"] for row in read(rest, f"{name}-de")["data"]] == [1.5]
    sheet = workbook(("A", [["series_key", "valid_time", "value"], [f"{name}-x", "2025-01-01T00:00Z", 5]]))
    answer = rest.post("/runs", files={"anything": ("book.xlsx", sheet)}, data={"sheet": "A"})
    assert answer.status_code == 200, answer.text
    assert [row["value"] for row in read(rest, f"{name}-x")["data"]] == [5.0]


def test_corrections_come_in_forms_and_as_octets(rest: httpx.Client, name: str) -> None:
    assert rest.post("/runs", content=lines(name), headers={"Content-Type": CSV}).status_code == 200
    once = rest.put("/values", files={"file": ("fix.csv", lines(name, 2.5))}, data={"update_id": f"{name}-1"})
    assert (once.status_code, once.json()["updated"]) == (200, 1), once.text
    again = rest.put("/values", content=lines(name, 3.5), params={"format": "csv"}, headers={"Content-Type": OCTETS})
    assert (again.status_code, again.json()["updated"]) == (200, 1), again.text
    assert [row["value"] for row in read(rest, name, all_versions=True)["data"]] == [1.5, 2.5, 3.5]
    update = {"updates": [{"series_id": read(rest, name)["data"][0]["series_id"], "valid_time": START, "value": 4.5}]}
    assert rest.put("/values?format=json", content=json.dumps(update)).status_code == 200
    assert_error(rest.put("/values", files={"f": ("a.xlsx", b"PK")}), 422, "invalid_request", "spreadsheetml")


@pytest.mark.parametrize(("media_type", "kind"), [("", CSV), ("", NDJSON), (OCTETS, PARQUET), (OCTETS, ARROW)])
def test_bytes_are_what_format_says(rest: httpx.Client, name: str, media_type: str, kind: str) -> None:
    body, query = body_of(table_of(name), kind), {"format": FORMATS[kind]}
    headers = {"Content-Type": media_type} if media_type else {}
    for packed, more in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        answer = rest.post("/runs", params={**query, "run_id": name}, content=packed, headers=headers | more)
        assert answer.status_code == 200, answer.text
    assert read(rest, name)["count"] == 3
    refused = rest.post("/runs", content=body, headers=headers)
    assert_error(refused, 422, "invalid_request", "Content-Type: ", "format=, one of csv, parquet")
    assert_error(
        rest.post("/runs", params={"format": "xml"}, content=body, headers=headers), 422, "invalid_request", "format: "
    )


def test_a_form_of_many_small_pieces_and_odd_bytes_is_read_as_it_is(rest: httpx.Client, name: str) -> None:
    tricky = f'series_key,valid_time,value,annotation\n{name},2025-01-01,1,"--{B}x\r\n--{B[:-1]} \r\n"\n'.encode()
    body = form(
        (named("run_id"), name.encode()),
        (named("workflow_id"), b""),
        ('content-disposition: FORM-DATA; filename="a\\"b;c=.csv"; name=file\r\nContent-Type: text/csv', tricky),
        (named("workflow_id"), "für morgen".encode()),
    )
    answer = send(rest, b"to be left out\r\n" + body + b"and this")
    assert answer.status_code == 200, answer.text
    (row,) = read(rest, name, all_versions=True)["data"]
    assert (row["run_id"], row["annotation"]) == (name, f"--{B}x\r\n--{B[:-1]} \r\n")
    assert rest.get(f"/runs/{name}").json()["workflow_id"] == "für morgen"


FAULTS: dict[str, tuple[bytes, int, str]] = {
    "no end": (form((named("file", "a.csv"), lines("x")), end=b""), 422, "not whole"),
    "cut": (form((named("file", "a.csv"), lines("x")))[:-40], 422, "not whole"),
    "empty": (b"", 422, "not whole"),
    "another boundary": (form((named("file", "a.csv"), b"x"), boundary="other"), 422, "not whole"),
    "no headers": (b"--" + B.encode() + b"\r\nx\r\n--" + B.encode() + b"--", 422, "not whole"),
    "long headers": (form((named("file", "a" * 9000), lines("x"))), 422, "not whole"),
    "no name": (form(("Content-Type: text/csv", lines("x"))), 422, "has no name"),
    "no file": (form((named("run_id"), b"x")), 422, "file: is missing"),
    "no file chosen": (form((named("file", ""), b"")), 422, "file: is missing"),
    "two files": (form((named("file", "a.csv"), lines("x")), (named("more", "b.csv"), b"")), 422, "more: is a second"),
    "nobody knows": (form((named("file", "a.dat"), lines("x"))), 422, "format=, one of csv"),
    "a type of no table": (form((named("file", "a.csv", "\r\nContent-Type: image/png"), b"x")), 422, "image/png"),
    "base64": (form((named("file", "a.csv", "\r\nContent-Transfer-Encoding: base64"), b"eA==")), 422, "Transfer"),
    "unknown field": (form((named("runid"), b"x"), (named("file", "a.csv"), lines("x"))), 422, "runid: unknown"),
    "field twice": (
        form(*[(named("run_id"), b"x")] * 2, (named("file", "a.csv"), lines("x"))),
        422,
        "run_id: is given",
    ),
    "no text": (form((named("run_id"), b"\xff"), (named("file", "a.csv"), lines("x"))), 422, "run_id: is not UTF-8"),
    "a long field": (form((named("run_id"), b"x" * 70_000)), 413, "run_id: fields are over the limit"),
    "many parts": (form(*[(named("null"), b"x")] * 257), 413, "256 parts"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_form_that_is_wrong_says_where(rest: httpx.Client, fault: str) -> None:
    body, status, said = FAULTS[fault]
    assert_error(send(rest, body), status, "too_large" if status == 413 else "invalid_request", said)


def test_what_query_and_form_say_is_said_once(rest: httpx.Client, name: str) -> None:
    file = {"file": ("a.csv", lines(name))}
    both = rest.post("/runs", params={"run_id": name}, data={"run_id": name}, files=file)
    assert_error(both, 422, "invalid_request", "run_id: is given 2 times")
    twice = rest.post("/runs", params={"format": "csv"}, data={"format": "ndjson"}, files=file)
    assert_error(twice, 422, "invalid_request", "format: is said twice")
    other = rest.post("/runs", data={"format": "parquet"}, files={"file": ("a.csv", lines(name), CSV)})
    assert_error(other, 422, "invalid_request", "format: 'parquet'", "text/csv")
    for boundary in ("", "; boundary=", '; boundary="ü"', f"; boundary={'x' * 71}"):
        headers = {b"Content-Type": b"multipart/form-data" + boundary.encode()}
        assert_error(rest.post("/runs", content=b"--", headers=headers), 422, "invalid_request", "boundary")


@pytest.mark.parametrize("path", ["/upload", "/values"])
def test_forms_of_strangers_do_not_write_to_an_open_lake(rest: httpx.Client, name: str, path: str) -> None:
    method = "PUT" if path == "/values" else "POST"
    file = {"file": ("a.csv", lines(name))}
    signs = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
    signs += [{"Referer": "http://x"}, {"User-Agent": "Mozilla/5.0"}, {"Origin": "http://localhost:3000"}]
    for headers in signs:
        assert_error(rest.request(method, path, files=file, headers=headers), 403, "forbidden", "users")
        octets = rest.request(method, f"{path}?format=csv", content=lines(name), headers=headers)  # of no type
        assert_error(octets, 403, "forbidden", "users")
    assert name not in rest.get("/list_timeseries", params={"name": name}).text
    asked = {"Origin": "http://localhost:3000", "X-Requested-With": "x"}
    assert rest.post("/upload", files=file, headers=asked).status_code == 200
    assert rest.request(method, path, files=file, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_the_key_is_asked_for_before_a_form_is_read(new_service: Callable[..., Service]) -> None:
    from timedb import create_user

    service = new_service()
    assert service.lake is not None
    key = create_user("forms@example.com", lake=service.lake)["api_key"]
    with httpx.Client(base_url=service.rest_url) as rest:
        for headers in ({}, {"X-API-Key": "wrong"}):
            refused = send_with(rest, b"no form at all", headers)
            assert_error(refused, 401, "unauthenticated")
            assert refused.headers["connection"] == "close"
        assert_error(send_with(rest, b"no form at all", {"X-API-Key": key}), 422, "invalid_request", "is no form")
        files = {"file": ("a.csv", lines("mine"))}
        assert rest.post("/upload", files=files, headers={"X-API-Key": key}).status_code == 200


def send_with(rest: httpx.Client, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return rest.post("/upload", content=body, headers={"Content-Type": f"multipart/form-data; boundary={B}", **headers})


def test_curl_sends_files_in_both_ways(service: Service, rest: httpx.Client, name: str, tmp_path: Path) -> None:
    file = tmp_path / "wind forecast.csv"
    file.write_bytes(lines(name))
    url = f"{service.rest_url}/upload"
    ways = (
        ["-F", f"file=@{file}", "-F", f"run_id={name}-F", url],
        ["-X", "POST", "-T", str(file), f"{url}?format=csv&run_id={name}-T"],
        [
            "-H",
            "Content-Type: application/octet-stream",
            "--data-binary",
            f"@{file}",
            f"{url}?format=csv&run_id={name}",
        ],
    )
    for way in ways:
        done = subprocess.run(["curl", "-sS", "--fail-with-body", *way], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (way, done.stdout, done.stderr)
    assert {row["run_id"][len(name) :] for row in read(rest, name, mode="overlapping", all_versions=True)["data"]} == {
        "-F",
        "-T",
        "",
    }
