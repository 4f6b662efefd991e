"""What other writers make of a table: what is known is read, the rest is refused by name and found by the doctor."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

import timedb as td
from tests.storage.lakes import Sent, hour, open_tenant, read, some_rows, tenant_folder, tiny_settings, upload
from timedb.contract.errors import Unimplemented
from timedb.contract.times import MAX_MICROS
from timedb.storage import Lake, Tenant
from timedb.storage.delta.log import DeltaLog
from timedb.storage.delta.store import LocalStore

Actions = Callable[[dict[str, Any], str], list[dict[str, Any]]]


def _without(metadata: dict[str, Any], column: str) -> dict[str, Any]:
    schema = json.loads(metadata["schemaString"])
    schema["fields"] = [field for field in schema["fields"] if field["name"] != column]
    return {**metadata, "schemaString": json.dumps(schema)}


def _changed(table: dict[str, Any], column: str, **fields: Any) -> dict[str, Any]:
    schema = json.loads(table["schemaString"])
    for field in schema["fields"]:
        field.update(fields if field["name"] == column else {})
    return {**table, "schemaString": json.dumps(schema)}


def _protocol(reader: int, writer: int, *features: str) -> dict[str, Any]:
    named = {"readerFeatures": list(features), "writerFeatures": list(features)} if features else {}
    return {"protocol": {"minReaderVersion": reader, "minWriterVersion": writer, **named}}


def _with_vector(path: str) -> dict[str, Any]:
    vector = {"storageType": "i", "pathOrInlineDv": "abc", "sizeInBytes": 3, "cardinality": 1}
    return {
        "add": {
            "path": path,
            "partitionValues": {"series_bucket": "0", "tier": "fresh"},
            "size": 1,
            "modificationTime": 1,
            "dataChange": True,
            "deletionVector": vector,
        }
    }


FOREIGN: dict[str, tuple[Actions, str]] = {
    "deletion vectors": (
        lambda metadata, path: [_protocol(3, 7, "deletionVectors"), _with_vector(path)],
        "version 3 of the Delta protocol's readers and 7 of its writers with deletionVectors",
    ),
    "a vector alone": (lambda metadata, path: [_with_vector(path)], "a deletion vector, which this service does not"),
    "column mapping": (
        lambda metadata, path: [
            _protocol(2, 5),
            {"metaData": {**metadata, "configuration": {"delta.columnMapping.mode": "name"}}},
        ],
        "version 2 of the Delta protocol's readers and 5 of its writers",
    ),
    "a writer's version": (lambda metadata, path: [_protocol(1, 4)], "1 of the Delta protocol's readers and 4 of its"),
    "an unknown action": (
        lambda metadata, path: [{"domainMetadata": {"domain": "d", "configuration": "{}", "removed": False}}],
        "an action domainMetadata",
    ),
    "a column less": (
        lambda metadata, path: [{"metaData": _without(metadata, "annotation")}],
        "the table's column annotation is missing",
    ),
    "a column of another type": (
        lambda metadata, path: [{"metaData": _changed(metadata, "value", type="float")}],
        "the table's column value is {",
    ),
    "an invariant": (
        lambda metadata, path: [{"metaData": _changed(metadata, "value", metadata={"delta.invariants": "value > 0"})}],
        "the table's column value is {",
    ),
    "another partitioning": (
        lambda metadata, path: [{"metaData": {**metadata, "partitionColumns": ["tier"]}}],
        "the table's partition columns are ['tier']",
    ),
    "append only": (
        lambda metadata, path: [{"metaData": {**metadata, "configuration": {"delta.appendOnly": "true"}}}],
        "delta.appendOnly forbids compaction",
    ),
}


def commit_of_another(table: Path, actions: Actions) -> None:
    """Add a commit to a table's log."""
    snapshot = DeltaLog(LocalStore(table)).load()
    lines = actions(dict(snapshot.metadata), next(iter(snapshot.files), ""))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (table / "_delta_log" / f"{snapshot.version + 1:020d}.json").write_text(text)


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_known_is_refused_at_every_door(tenant: Tenant, lake_dir: Path, case: str) -> None:
    actions, says = FOREIGN[case]
    upload(tenant, some_rows(4), "before")
    commit_of_another(tenant_folder(lake_dir) / "values", actions)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as opened:
        doors: list[Callable[[], object]] = [
            lambda: read(tenant),
            lambda: upload(tenant, some_rows(4, value=9.0), "after"),
            tenant.maintain,
            lambda: read(open_tenant(opened)),
            lambda: td.scan_lake(lake_dir),
            lambda: td.split_read(lake_dir),
            lambda: Lake.upgrade(str(lake_dir)),
        ]
        for number, door in enumerate(doors):
            with pytest.raises(Unimplemented) as refused:
                door()
            assert says in str(refused.value), number
            assert "undo it with the writer that did it, or restore a backup" in str(refused.value)
    before = sorted(path for path in lake_dir.rglob("*") if path.is_file())
    found = Lake.doctor(str(lake_dir), repair=True)
    assert [(finding["fault"], says in finding["cure"]) for finding in found if not finding["notice"]] == [
        ("changed by another writer", True)
    ]
    assert sorted(path for path in lake_dir.rglob("*") if path.is_file()) == before


def test_a_checkpoint_of_such_a_table_is_refused(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, some_rows(4), "before")
    table = tenant_folder(lake_dir) / "values"
    commit_of_another(table, lambda metadata, path: [_protocol(3, 7, "timestampNtz")])
    DeltaTable(str(table)).create_checkpoint()
    with pytest.raises(Unimplemented, match="with timestampNtz"):
        DeltaLog(LocalStore(table)).load()


@pytest.mark.parametrize("name", ["series", "runs"])
def test_the_other_tables_are_looked_at_too(tenant: Tenant, lake_dir: Path, name: str) -> None:
    upload(tenant, some_rows(4), "before")
    commit_of_another(tenant_folder(lake_dir) / name, FOREIGN["column mapping"][0])
    with (
        closing(Lake.open(str(lake_dir), tiny_settings())) as opened,
        pytest.raises(Unimplemented, match="readers and 5"),
    ):
        upload(open_tenant(opened), some_rows(4, value=9.0), "after")
    (found,) = Lake.doctor(str(lake_dir))
    assert (found["table"].rpartition("/")[2], found["fault"]) == (name, "changed by another writer")


def test_a_constraint_of_delta_rs_is_refused(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, some_rows(4), "before")
    DeltaTable(str(tenant_folder(lake_dir) / "values")).alter.add_constraint({"positive": "value >= 0"})
    with pytest.raises(Unimplemented, match="of the Delta protocol"):
        upload(tenant, some_rows(4, value=-9.0), "after")


def test_a_column_more_does_no_harm(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, some_rows(4), "before")
    table = str(tenant_folder(lake_dir) / "values")
    DeltaTable(table).alter.add_columns([Field("weather", PrimitiveType("string"))])
    rows = read(tenant)
    upload(tenant, some_rows(4, known=3, value=9.0), "after")
    tenant.maintain()
    assert len(read(tenant)) == len(rows) + 4
    assert pl.read_delta(table)["weather"].null_count() == 8
    assert [finding["fault"] for finding in Lake.doctor(str(lake_dir)) if not finding["notice"]] == []


def test_the_end_of_time_has_a_bound(tenant: Tenant, lake_dir: Path) -> None:
    upload(tenant, [Sent("far", MAX_MICROS - 400, MAX_MICROS, hour(1), 7.0), *some_rows(3)], "far")
    table = DeltaTable(str(tenant_folder(lake_dir) / "values"))
    for column, value in (("valid_time", MAX_MICROS - 400), ("valid_time_end", MAX_MICROS)):
        wanted = pa.scalar(value, pa.timestamp("us", tz="UTC"))
        assert table.to_pyarrow_table(filters=[(column, ">=", wanted)]).num_rows == 1
