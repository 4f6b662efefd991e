"""Reads in parts: planned once, computed by the workers of a real Dask cluster."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import timedb as td
from tests.behaviour.doors import StorageDoor
from tests.behaviour.histories import Read, Write, histories, reads
from tests.behaviour.playing import play
from tests.behaviour.racing import Race, every_read, some_writes
from tests.behaviour.readers import PartsReader
from tests.storage.lakes import open_tenant, read_table, some_rows, tiny_settings, upload
from timedb.contract.columns import META_TABLE_VERSION
from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.wire import CreateSeries
from timedb.storage import Lake, Tenant

PAGE = (Path(__file__).parents[3] / "docs" / "direct-reads.md").read_text()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of two worker processes."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cluster") / "a lake")


@pytest.fixture(scope="module")
def tenant(path: str) -> Iterator[Tenant]:
    lake = Lake.open(path, tiny_settings(bucket_digits="1"))
    yield open_tenant(lake)
    lake.close()


@given(history=histories(), extra=st.lists(reads(), min_size=3, max_size=3))
def test_the_cluster_finds_the_oracles_answer(
    client: Client, tenant: Tenant, path: str, history: list[Write], extra: list[Read]
) -> None:
    played = play(StorageDoor(tenant), history)
    played.door = PartsReader(tenant, path, lambda split: split.gather(client))
    for read in extra:
        played.check_read(read)
    tenant.compact()
    for read in extra[:2]:
        played.check_read(read)


def test_while_others_write_compact_and_maintain(client: Client, tenant: Tenant, path: str) -> None:
    reader = PartsReader(tenant, path, lambda split: split.gather(client))
    with closing(Lake.open(path, tiny_settings())) as another_server:
        chores = {"compactor": open_tenant(another_server).compact, "maintenance": tenant.maintain}
        Race(StorageDoor(tenant), tenant, some_writes(seed=2, count=24), chores).run(
            {"the cluster": reader}, every_read()
        )


def test_every_part_sees_the_version_of_the_plan(client: Client, tenant: Tenant, path: str) -> None:
    series = [f"planned-{number}" for number in range(30)]
    upload(tenant, some_rows(120, series=series), "planned")
    expected = read_table(tenant, series_keys=series, ordered=True)
    split = td.split_read(path, series_keys=series, ordered=True)
    assert len(split.parts) > 5
    # A name means another series too, a newer revision wins, and no file of the plan is live any more.
    tenant.create_series(CreateSeries(name="planned-0", labels={"site": "north"}), created_by=None)
    upload(tenant, some_rows(120, series=series, known=1, value=1000.0), "later")
    tenant.maintain()
    found = split.gather(client)
    assert found.to_pylist() == expected.to_pylist()
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert split.table_version == int(expected.schema.metadata[META_TABLE_VERSION])


def test_parts_are_the_buckets_and_carry_all_that_they_need(tenant: Tenant, path: str) -> None:
    upload(tenant, some_rows(60, series=[f"carried-{number}" for number in range(30)]), "carried")
    split = td.split_read(path, view="overlapping", columns=["series_id", "series_key", "value"])
    assert sorted(part.bucket or "" for part in split.parts) == sorted({part.bucket or "" for part in split.parts})
    for part in pickle.loads(pickle.dumps(split.parts)):
        held = {file.partition["series_bucket"] for file in part.state.values.files.values()}
        assert held <= {part.bucket, "mixed"}
        frame = part.read()
        assert frame.height > 0
        assert set(frame["series_id"].cast(pl.String).str.head(1)) == {part.bucket}
        assert frame["series_key"].null_count() == 0


def test_an_answer_without_rows_has_its_columns(client: Client, tenant: Tenant, path: str) -> None:
    tenant.create_series(CreateSeries(name="empty"), created_by=None)
    split = td.split_read(path, series_keys="empty", columns=["series_key", "value", "tags"])
    found = split.gather(client)
    assert (found.num_rows, found.column_names) == (0, ["series_key", "value", "tags"])


def test_a_file_that_is_gone_is_an_error_and_no_shorter_answer(client: Client, tenant: Tenant, path: str) -> None:
    series = [f"gone-{number}" for number in range(8)]
    upload(tenant, some_rows(40, series=series), "gone")
    split = td.split_read(path, series_keys=series)
    tenant.compact()
    (folder,) = Path(path).glob("tenants/*/values")
    live = tenant.values.snapshot().files
    lost = {name for part in split.parts for name in part.state.values.files} - set(live)
    assert lost
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(
        NotFound, match=rf"^table_version: files of version {split.table_version} of the values are gone"
    ):
        split.gather(client)
    again = td.split_read(path, series_keys=series).gather(client)
    assert again.num_rows == 40


@pytest.mark.usefixtures("tenant")
@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"limit": 10}, InvalidRequest, "limit: 10 needs all rows in one place"),
        ({"pivot": "series_key"}, InvalidRequest, "pivot: series_key brings series of all parts together"),
        ({"ordered": True, "order_by": "valid_time"}, InvalidRequest, "order_by: valid_time needs all rows"),
        ({"descending": True, "order_by": "valid_time"}, InvalidRequest, "order_by: valid_time needs all rows"),
        ({"view": "sideways"}, InvalidRequest, "view: 'sideways'"),
        ({"series_keys": "nobody"}, NotFound, "series_key: there is no series 'nobody'"),
        ({"tenant": "11111111-1111-4111-8111-111111111111"}, NotFound, "tenant: there is no tenant '11111111"),
    ],
)
def test_what_cannot_be_split(path: str, asked: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        td.split_read(path, **asked)


def test_the_page(client: Client, tenant: Tenant, path: str) -> None:
    upload(tenant, some_rows(30, series=["page-a", "page-b", "page-c"]), "page")
    _, _, section = PAGE.partition("\n## A cluster\n")
    blocks = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert client.scheduler is not None
    namespace: dict[str, Any] = {"td": td, "lake": path, "scheduler": client.scheduler.address}
    for block in blocks:
        exec(block, namespace)
    whole = read_table(tenant, end_known="2025-03-01T10:00:00Z")
    assert namespace["table"].num_rows == whole.num_rows == pl.concat(namespace["frames"]).height
    assert list(namespace["means"]) == [frame["value"].mean() for frame in namespace["frames"]]
