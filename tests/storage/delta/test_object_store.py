"""A lake on an object store: a real S3-compatible server (moto) in this process, reached over HTTP.

A small proxy before it makes conditional puts atomic, as those of S3 are, drops their condition, as stores do that do
not know it, or loses a request or its answer, as networks do.
"""

from __future__ import annotations

import http.client
import logging
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import boto3
import moto.backends
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

import timedb as td
from tests.flight_server.flights import eventually
from tests.storage.delta.stopping import stop_and_wake
from tests.storage.lakes import Sent, hour, open_tenant, read, read_table, some_rows, tiny_settings, unstamped, upload
from tests.storage.model import Model
from tests.storage.operations import correct
from timedb.contract.errors import Busy, Conflict, Internal, InvalidRequest, NotFound, OutcomeUnknown
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import parse_time, to_micros
from timedb.contract.wire import WithdrawRun
from timedb.storage import Lake, Tenant
from timedb.storage.tables import lease
from timedb.storage.tables.layout import MARKER
from timedb.storage.users.users import NewUser, UserAddress

CONDITION = "if-none-match"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on to the store."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    store: ClassVar[tuple[str, int]]
    honours_conditions: ClassVar[bool]
    one_at_a_time = threading.Lock()
    losses: ClassVar[list[str]] = []
    """What becomes of the next commits: "request" or "answer" is lost."""
    markers: ClassVar[int] = 0
    """How often the marker has been asked for."""
    asked: ClassVar[list[str]] = []
    """The requests so far: the method, and what is asked for."""

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        Proxy.asked.append(f"{self.command} {self.path}")
        Proxy.markers += self.command == "GET" and "/timedb-lake.json" in self.path
        is_commit = CONDITION in map(str.lower, self.headers) and "/values/_delta_log/" in self.path
        loss = self.losses.pop() if is_commit and self.losses else ""
        if loss == "request":
            self.close_connection = True
            return
        headers = {name: text for name, text in self.headers.items() if self._passes(name)}
        alone = self.one_at_a_time if CONDITION in map(str.lower, headers) else nullcontext()
        with alone, closing(http.client.HTTPConnection(*self.store)) as connection:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if loss == "answer":
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, text in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, text)
        self.send_header("Content-Length", answer.getheader("content-length") or str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _hand_on

    def _passes(self, name: str) -> bool:
        return self.honours_conditions or name.lower() != CONDITION

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, int]]:
    """The S3 server's address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    modules = tuple(moto.backends.list_of_moto_modules())
    with pytest.MonkeyPatch.context() as patch:
        # It looks through its folders at every request, which takes a third of all its time.
        patch.setattr(moto.backends, "list_of_moto_modules", lambda: modules)
        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        yield server.get_host_and_port()
        server.stop()


@contextmanager
def served(store: tuple[str, int], *, honours_conditions: bool = True) -> Iterator[str]:
    """The proxy's address."""
    handler = type("Handler", (Proxy,), {"store": store, "honours_conditions": honours_conditions})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def bucket(store: tuple[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A new bucket; the environment says where and by which key."""
    for name, text in ENVIRONMENT.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with served(store) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        name = tmp_path.name.replace("_", "-").lower()
        boto3.client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}"


def scan(uri: str) -> Counter[tuple[str, int]]:
    """How many rows of each run a direct reader sees, and when they were written."""
    rows = pl.scan_delta(f"{uri}/tenants/{OPEN_TENANT_ID}/values").select("run_id", pl.col("change_time").to_physical())
    return Counter(rows.collect(engine="in-memory").iter_rows())


def check(tenant: Tenant, uri: str, expected: Model) -> None:
    """Compare every view with the model, and what a direct reader sees."""
    audit = read(tenant)
    assert unstamped(audit) == unstamped(expected.rows)
    model = Model()
    model.rows = audit
    for view in ("flat", "overlapping"):
        assert Counter(read(tenant, view, all_versions=False)) == Counter(model.answer(view))
    assert scan(uri) == Counter((row.run_id, row.change_time) for row in audit)


def test_a_lake_on_an_object_store(bucket: str, tmp_path: Path) -> None:
    uri, model = f"{bucket}/some/folder", Model()
    with pytest.raises(NotFound):
        Lake.open(uri, tiny_settings(), create=False)
    with closing(Lake.open(uri, tiny_settings())) as lake:
        tenant = open_tenant(lake)
        first = upload(tenant, some_rows(30), "first", batch_rows=10)  # files of its own, in chunks
        upload(tenant, some_rows(6, known=1), "second")
        model.rows += model.upload("first", some_rows(30), 0) + model.upload("second", some_rows(6, known=1), 0)
        assert unstamped(read(tenant)) == unstamped(model.rows)
        tenant.compact()
        correct(tenant, "first", 5.0, "fix")
        tenant.withdraw_run(WithdrawRun(run_id="second"), changed_by=None)
        model.rows = read(tenant)
        assert len(model.rows) == 44
        tenant.maintain()
        check(tenant, uri, model)
    with closing(Lake.open(uri, tiny_settings(retention_hours=0, log_retention_hours=0), create=False)) as lake:
        tenant = open_tenant(lake)
        assert unstamped(read(tenant)) == unstamped(model.rows)
        assert upload(tenant, some_rows(30), "first") == {**first, "withdrawn_rows": 1}, "a retry"
        upload(tenant, some_rows(6, known=2), "third")
        model.rows += model.upload("third", some_rows(6, known=2), 0)
        assert tenant.maintain()["vacuumed_files"] > 0
        check(tenant, uri, model)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "nothing is left on the local disk"
    assert Lake.delete(uri)
    assert not Lake.delete(uri)


def test_a_lake_on_an_object_store_lies_neither_inside_another_nor_around_it(bucket: str) -> None:
    Lake.open(f"{bucket}/some/lake", tiny_settings()).close()
    with pytest.raises(InvalidRequest, match=r"lies inside the lake at 's3://.*/some/lake'"):
        Lake.open(f"{bucket}/some/lake/deep/inner", tiny_settings())
    for around in (bucket, f"{bucket}/some"):
        with pytest.raises(InvalidRequest, match=r"holds the one at 's3://.*/some/lake'"):
            Lake.open(around, tiny_settings())
    Lake.open(f"{bucket}/some/lake-2", tiny_settings()).close()


def test_two_servers_on_one_object_store(bucket: str) -> None:
    uri, runs = f"{bucket}/lake", 5
    with closing(Lake.open(uri, tiny_settings())) as one, closing(Lake.open(uri, tiny_settings())) as other:

        def write(name: str, lake: Lake) -> list[str]:
            rows = [Sent(series, hour(1), None, None, 1.0) for series in (name, "shared")]
            return [upload(open_tenant(lake), rows, f"{name}/{run}")["change_time"] for run in range(runs)]

        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write, name, lake) for name, lake in (("one", one), ("other", other))]
            for _ in range(2):
                open_tenant(one).compact()
                open_tenant(other).compact()
            stamps = [writer.result() for writer in writers]
        assert all(own == sorted(own) for own in stamps)
        assert len({*stamps[0], *stamps[1]}) == 2 * runs
        audit = read(open_tenant(one))
        assert Counter(row.run_id for row in audit) == {
            f"{name}/{run}": 2 for name in ("one", "other") for run in range(runs)
        }
        assert scan(uri) == Counter((row.run_id, row.change_time) for row in read(open_tenant(other)))
        assert {row.change_time for row in audit} == {to_micros(parse_time(text)) for own in stamps for text in own}


def test_a_stopped_server_commits_into_no_hole(bucket: str) -> None:
    def commits() -> set[int]:
        paths = [Path(path) for path in objects(bucket) if "/values/_delta_log/" in path]
        return {int(path.stem) for path in paths if path.suffix == ".json"}

    stop_and_wake(f"{bucket}/lake", commits, clock_seconds=300.0, turns=1)


def test_reads_past_the_service(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/lake"
    with closing(Lake.open(uri, tiny_settings())) as lake:
        tenant = open_tenant(lake)
        upload(tenant, some_rows(30), "first")
        tenant.maintain()
        upload(tenant, some_rows(6, known=1), "second")
        expected = sorted(read_table(tenant, columns=["value"])["value"].to_pylist())
    before = objects(bucket)
    for path in (uri, f"{uri}/tenants/{OPEN_TENANT_ID}"):
        assert sorted(td.scan_lake(path).collect()["value"]) == expected
    parts = pickle.loads(pickle.dumps(td.split_read(uri).parts))
    assert sorted(value for part in parts for value in part.read()["value"]) == expected
    with pytest.raises(NotFound, match="there is no lake at"):
        td.scan_lake(f"{bucket}/nowhere")
    with pytest.raises(InvalidRequest, match=r"^path: .* cannot be read"):
        td.scan_lake(f"{bucket}-no/lake")
    assert objects(bucket) == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_users_of_a_lake_on_an_object_store(bucket: str) -> None:
    with closing(Lake.open(bucket, tiny_settings())) as one, closing(Lake.open(bucket, tiny_settings())) as other:
        key = one.create_user(NewUser(email="ann@example.com"))["api_key"]
        assert other.has_users
        assert other.users.find(key) is not None, "a key that is not known yet is looked for at once"
        one.users.set_active(UserAddress(email="ann@example.com"), False)
        eventually(lambda: other.users.find(key) is None)
        assert other.users.set_active(UserAddress(email="ann@example.com"), True)["is_active"]
        assert one.users.find(key) is not None
    assert Lake.doctor(bucket) == []


def test_nothing_of_a_refused_upload_is_left(bucket: str) -> None:
    uri = f"{bucket}/lake"
    with closing(Lake.open(uri, tiny_settings())) as lake:
        tenant = open_tenant(lake)
        upload(tenant, some_rows(20), "run")
        before = objects(bucket)
        with pytest.raises(InvalidRequest, match="is there twice"):
            upload(tenant, [*some_rows(40, known=1), *some_rows(1, known=1)], "twice", batch_rows=10)
        assert objects(bucket) == before


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_the_network_loses_a_commit(bucket: str, lost: str) -> None:
    uri, model = f"{bucket}/lake", Model()
    with closing(Lake.open(uri, tiny_settings())) as lake:
        tenant = open_tenant(lake)
        for run, rows in (("small", some_rows(4)), ("bulk", some_rows(20, known=1))):
            model.rows += model.upload(run, rows, 0)
            Proxy.losses.append(lost)
            try:
                receipt = upload(tenant, rows, run)
            except (Internal, OutcomeUnknown):
                receipt = upload(tenant, rows, run)
            assert Proxy.losses == []
            assert upload(tenant, rows, run) == receipt
            check(tenant, uri, model)


def objects(bucket: str) -> set[str]:
    """The names of all objects of a bucket."""
    found = boto3.client("s3").list_objects_v2(Bucket=bucket.removeprefix("s3://"))
    return {one["Key"] for one in found.get("Contents", [])}


def test_a_lake_that_goes_under_its_servers(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{bucket}/lake"
    with closing(Lake.open(uri, tiny_settings())) as lake:
        lake.announce("grpc://127.0.0.1:8815")
        tenant = open_tenant(lake)
        upload(tenant, some_rows(3), "first")
        with pytest.raises(Conflict, match=r":8815, since .*stop it first"):
            Lake.delete(uri)
        assert Lake.delete(uri, force=True)
        with pytest.raises(Busy, match="gone from its place"):
            upload(tenant, some_rows(3), "second")
        with closing(Lake.open(uri, tiny_settings())) as anew:
            upload(open_tenant(anew), some_rows(3), "first")
            before = objects(bucket)
            eventually(lambda: "another lake" in str(fault_of(lambda: upload(tenant, some_rows(3), "second"))))
            assert objects(bucket) == before
            anew.announce("grpc://127.0.0.1:8816")
            monkeypatch.setattr(lease, "SILENCE_SECONDS", -10.0)  # as if that server had been killed long ago
            assert Lake.delete(uri)
    assert objects(bucket) == set()


def fault_of(call: Callable[[], object]) -> Exception:
    """What a call fails with."""
    with pytest.raises(Busy) as failed:
        call()
    return failed.value


def test_the_marker_is_looked_at_once_a_second(bucket: str) -> None:
    uri, uploads = f"{bucket}/lake", 6
    with closing(Lake.open(uri, tiny_settings())) as lake:
        tenant = open_tenant(lake)
        began, Proxy.markers = time.monotonic(), 0
        for run in range(uploads):
            upload(tenant, some_rows(1), f"run/{run}")
        assert Proxy.markers <= time.monotonic() - began + 1


@contextmanager
def requests() -> Iterator[list[str]]:
    """Those that are made meanwhile."""
    made, before = list[str](), len(Proxy.asked)
    yield made
    made += Proxy.asked[before:]


def test_what_an_upload_and_a_correction_ask_for(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much for 2,400 rows as for 24; and a look at the marker a second, however long it takes."""
    for patience in ("_STOOD_SECONDS", "_UNSEEN_SECONDS"):  # a slow machine asks whether the base still stands
        monkeypatch.setattr(f"timedb.storage.delta.table.{patience}", 1e6)
    settings = tiny_settings(bulk_rows=50_000, upload_chunk_rows=50_000, records_seconds=10_000.0)
    with closing(Lake.open(bucket, settings)) as lake:
        tenant = open_tenant(lake)
        upload(tenant, some_rows(24), "first")
        correct(tenant, "first", 5.0, "so that the table of updates is made")
        tenant.records.write()
        counts: dict[str, list[str]] = {}
        for number, rows in enumerate((24, 24, 2400)):
            with requests() as counts[f"upload {number}"]:
                upload(tenant, some_rows(rows, known=number + 1), f"run-{number}")
            with requests() as counts[f"records {number}"]:
                tenant.records.write()
        with requests() as counts["correction"]:
            correct(tenant, "first", 6.0, "mistyped")
    bounds = {"records 0": 9, "correction": 5 + 5}  # a table is opened once; the files that may hold the row are read
    found = {what: [request for request in made if MARKER not in request] for what, made in counts.items()}
    assert {what: made for what, made in found.items() if len(made) > bounds.get(what, 5)} == {}


def test_a_store_that_ignores_the_condition_is_refused(
    bucket: str, store: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(store, honours_conditions=False) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(InvalidRequest, match="does not honour If-None-Match"):
            Lake.open(f"{bucket}/lake", tiny_settings())
        assert objects(bucket) == set()


@pytest.mark.parametrize("name", ["AWS_S3_ALLOW_UNSAFE_RENAME", "AWS_S3_LOCKING_PROVIDER"])
def test_settings_that_give_up_the_condition_are_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(InvalidRequest, match=f"^{name}: is set"):
        Lake.open(f"{bucket}/lake", tiny_settings())
    assert objects(bucket) == set()


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be reached"):
        Lake.open(f"{bucket}-no/lake", tiny_settings())
