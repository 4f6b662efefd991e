"""A parser counts while it parses: a few bytes may not become gigabytes, whatever the format of a body."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.rest_gateway.calls import START, assert_error, read
from timedb.contract.columns import COLUMN_TYPES

if TYPE_CHECKING:
    from tests.conftest import Served
    from timedb.run.launch import Service

JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
FULL = 32 << 20
ITEMS = 50_000_000
# A table as below, of 1,439 bytes: making it takes seconds.
NULL_TAGS = zlib.decompress(
    base64.b85decode(
        b"c-oazO-~a+7=CxVU24-qA<kwu*+XMw1Ef&Ul!zhGDNsO*uub^9U|Tjz>6X@Qp=dbx12~&_F<$)vUJM8IPjE5DlV?ueB+fhg(F$n7q?x{-"
        b"&ol2c)2`6s1d&Lb=mjDY7yuahnE9QG4g&}Pa72I%kh^J?OA?vL`XmeqN2+kt-"
        b"w%H2twjKlIietlz@U=k&R<Y5%976$pWcqha2ZXF1(~j;z|b|(8}jjW{^%M$Khw21-<9aU`50t@Z6P1(#QYI5ohGlpo@D}|&<-"
        b"%j2Y^22L@v(1oMnV4Gck>L+Hn?CxmDS<>Ln5bk{A@#c*}CDR%^Rvy&Qys&Z>!o;lq+s-"
        b"Pvwe>(=1y!b!iL=7%M5mW#67fdyGnmD(k{#U_>u(=3^lRLQBf+C=oA`z*(*Tl;MvR}nQ`D;S`Ygq8(4sr7P`gd!@g@<uQo8?oM-"
        b"*V0@E5$8^_uW1G&YX+AIv7`X2dti=rDkwh$<C|c-"
        b"6K;0(R|toD>Eb?}r$G<XX~eh?Z+7YbXYxgQz%}N&26{49yiw&?c`q0zQRBPhzksV+fo6yo>=|fz?-"
        b"d}o@>5boBc}X{f~KnpS}ZQFKlC1j`Z<!pHE!o9r6%>(Q%XBDXVW~THl49~EXN9#(3qigkq5fpe(P)ltr~9m4(@ZfEw3<qbj{8x`U_#b*P0Lg-"
        b"1z4D&MWTD?6Ib)8Xk>v7kPBE%SS`}(nirKdvGS!?}dCz<|RIF5HuIIcFPNE4nned=6z_2BOQkQ4c_$RQa{%N`{$k7#{FWmypChpbe7}Ti03WaJ"
        b"0C@?{MxG7VIYj$<EvmjA7(D7H&;#X1lRFBb1HSmsZ30{TN^c=4_ZM@HB0V`1FJn+X*NeouG{FO4lTD;ZS1G+O^%I^O=$RY3_qYs04waT`41AvD"
        b"RT"
    )
)


def post(rest: httpx.Client, body: bytes, media_type: str, encoding: str | None = None) -> httpx.Response:
    headers = {"Content-Type": media_type} | ({"Content-Encoding": encoding} if encoding else {})
    return rest.post("/upload", content=body, headers=headers)


@pytest.fixture(scope="module")
def rest(served: Served) -> Iterator[httpx.Client]:
    """HTTP to a server in a process of its own, whose memory is its own."""
    with httpx.Client(base_url=served.rest_url, timeout=60) as client:
        yield client


@contextmanager
def at_most(size: int, served: Served) -> Iterator[None]:
    """The server's memory grows by so many bytes at most meanwhile."""
    Path(f"/proc/{served.pid}/clear_refs").write_text("5")  # the peak is counted from here on
    before = memory_of(served, "VmRSS")
    yield
    assert memory_of(served, "VmHWM") - before < size


def memory_of(served: Served, name: str) -> int:
    status = Path(f"/proc/{served.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) << 10


def test_a_body_of_empty_lists_is_counted_and_not_parsed(rest: httpx.Client, served: Served) -> None:
    packed = gzip.compress(b'{"a":[' + b",".join([b"[]"] * (FULL // 3 - 4)) + b"]}", 9)
    assert len(packed) < 40_000
    with at_most(8 * FULL, served):
        refused = rest.post("/upload", content=packed, headers={"Content-Type": JSON, "Content-Encoding": "gzip"})
    assert_error(refused, 413, "too_large", "values are over the limit of 2400000")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b'{"a":[' + b",".join([b"[]"] * 999) + b"]}", "1001 values are over the limit of 1000"),
        (b'{"a":[' + b",".join([b'"[,"'] * 999) + b"]}", "1001 values are over the limit of 1000"),
        (
            b'{"a":[' + b",".join([b"{}"] * 250) + b"]," + b'"b":"' + b" " * 999 + b'"}',
            "251 objects are over the limit of 250",
        ),
        (b'{"a":"' + b'\\"' * 999, "is not JSON"),
    ],
)
def test_every_kind_of_value_is_counted(new_service: Callable[..., Service], body: bytes, what: str) -> None:
    with httpx.Client(base_url=new_service(max_json_values=1000).rest_url) as rest:
        refused = rest.post("/series", content=body, headers={"Content-Type": JSON})
        assert what in refused.json()["detail"]


def test_commas_and_brackets_in_texts_are_none_of_them(rest: httpx.Client, name: str) -> None:
    text = '[{",' * 700 + '\\"'
    series = {"name": name, "description": text}
    many = {"series": [{**series, "labels": {"n": str(number)}} for number in range(900)]}
    assert rest.post("/series/many", json=many, timeout=60).status_code == 200


def test_lines_are_read_in_slices_that_know_their_place(rest: httpx.Client, served: Served, name: str) -> None:
    line = orjson.dumps({"value_key": name, "valid_time": START, "value": 1.0})
    rows = [
        line.replace(b"2025-01-01T00", f"2025-{1 + n // 600:02d}-{1 + n // 24 % 25:02d}T{n % 24:02d}".encode())
        for n in range(24)
    ]
    assert post(rest, b"\n\n".join(rows) + b"\n", NDJSON).status_code == 200
    assert read(rest, name)["count"] == 24
    empty = gzip.compress(b"{}\n" * 11_000_000)
    with at_most(8 * FULL, served):
        assert_error(post(rest, empty, NDJSON, "gzip"), 422, "invalid_request", "value_rows.0.valid_time: is missing")
    far = b"\n".join([line] * 20_000 + [b'{"value_key": "x", "valid_time": "soon", "value": 1}'])
    assert_error(post(rest, far, NDJSON), 422, "invalid_request", "value_rows.20000.valid_time", "soon")
    broken = b"\n".join([line] * 20_000 + [b"", b"nonsense"])
    assert_error(post(rest, broken, NDJSON), 422, "invalid_request", "line 20002 is not JSON")
    tagged = b"\n".join([line] * 10_000 + [line[:-1] + b',"tags":["late"]}'])
    assert_error(post(rest, tagged, NDJSON), 422, "invalid_request")  # the same instant twice: both slices were read


def test_columns_are_counted_before_they_are_made(rest: httpx.Client, served: Served) -> None:
    names = ",".join(f"c{number}" for number in range(100_000)).encode()
    with at_most(FULL, served):
        assert_error(post(rest, names + b"\n1\n", CSV), 413, "too_large", "100000 columns", "1024")
    wide = pa.table({f"c{number}": [1] for number in range(1025)})
    sink, file = BytesIO(), BytesIO()
    with pa.ipc.new_stream(sink, wide.schema) as writer:
        writer.write_table(wide)
    parquet.write_table(wide, file)
    assert_error(post(rest, sink.getvalue(), ARROW), 413, "too_large", "1025 columns", "1024")
    assert_error(post(rest, file.getvalue(), PARQUET), 413, "too_large", "1025 columns", "1024")


def test_items_of_lists_are_counted_by_what_a_file_states(rest: httpx.Client, served: Served) -> None:
    with at_most(FULL, served):
        refused = post(rest, NULL_TAGS, PARQUET)
    assert_error(refused, 413, "too_large", "tags.list.element: 50000000 items in 1 rows", "1000 a row")


def test_items_of_lists_are_counted_in_a_stream(rest: httpx.Client, served: Served) -> None:
    tags = pa.ListArray.from_arrays(pa.array([0, ITEMS], pa.int32()), pa.nulls(ITEMS))
    time = pa.array([0], COLUMN_TYPES["valid_time"])
    table = pa.table({"series_key": ["x"], "valid_time": time, "value": [1.0], "tags": tags})
    sink = BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert len(sink.getvalue()) < 2_000
    with at_most(FULL, served):
        refused = post(rest, sink.getvalue(), ARROW)
    assert_error(refused, 413, "too_large", "50000000 items in 1 rows", "1000 a row")
