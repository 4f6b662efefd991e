"""A table that another writer made one that we do not know is refused at every door of a service, by name."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import polars as pl
import pytest

import timedb as td
from tests.storage.lakes import tenant_folder
from timedb.contract.settings import ServerSettings, load_settings
from timedb.contract.times import from_micros
from timedb.run.launch import start_service


def test_by_flight_sql_and_rest(lake_dir: Path) -> None:
    service = start_service(load_settings(ServerSettings, lake=str(lake_dir), flight_port=0, rest_port=0))
    row = pl.DataFrame({"series_key": ["a"], "valid_time": [from_micros(0)], "value": [1.0]})
    says = "asks for version 3 of the Delta protocol's readers and 7 of its writers with deletionVectors"
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    features = {name: ["deletionVectors"] for name in ("readerFeatures", "writerFeatures")}
    try:
        with td.connect(service.flight_url) as client:
            receipt = client.upload(row, run_id="before")
            fix = {"series_id": receipt.series_ids["a"], "valid_time": from_micros(0), "value": 2.0}
            log = tenant_folder(lake_dir) / "values" / "_delta_log"
            path = log / f"{receipt.table_version + 1:020d}.json"
            path.write_text(json.dumps({"protocol": {**protocol, **features}}) + "\n")
            for call in (
                lambda: client.read(),
                lambda: client.upload(row, run_id="after"),
                lambda: client.update_values([fix]),
                lambda: client.withdraw_run("before"),
                lambda: client.maintain(),
            ):
                with pytest.raises(td.Unimplemented, match=says):
                    call()
        for answer in (
            httpx.get(f"{service.rest_url}/values"),
            httpx.post(f"{service.rest_url}/runs/before/withdraw", json={}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (501, "unimplemented")
            assert says in answer.text
    finally:
        service.stop()
