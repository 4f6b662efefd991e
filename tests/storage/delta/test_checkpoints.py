"""Checkpoints of long logs: what is written stands for the log, and takes few files to make."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tests.storage.lakes import open_tenant, some_rows, tiny_settings, upload
from timedb.storage import Lake
from timedb.storage.delta import deltalake_adapter
from timedb.storage.delta.log import LOG_FOLDER
from timedb.storage.delta.store import LocalStore


def test_a_long_log_is_one_commit_for_who_writes_the_checkpoint(
    lake_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens all files of a log at once, and there may be a thousand."""
    opened: list[list[str]] = []
    real = deltalake_adapter.create_checkpoint

    def create_checkpoint(url: str) -> int:
        folder = LocalStore(Path(url.removeprefix("file://")))
        opened.append(sorted(file.path.rpartition("/")[2] for file in folder.list(LOG_FOLDER)))
        return real(url)

    monkeypatch.setattr(deltalake_adapter, "create_checkpoint", create_checkpoint)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        for round_ in range(2):
            for number in range(12):
                upload(tenant, some_rows(4, known=20 * round_ + number), f"run-{round_}-{number}")
            tenant.compact()  # files come and go
            upload(tenant, some_rows(4, known=20 * round_ + 15), f"last-{round_}")
            version = tenant.values.checkpoint()
            snapshot = tenant.values.snapshot()
            assert version == snapshot.version == snapshot.checkpoint
        folder = Path(tenant.values.store.url().removeprefix("file://"))
        rows = pq.read_table(folder / LOG_FOLDER / f"{version:020d}.checkpoint.parquet").to_pylist()
        found = DeltaTable(str(folder))
        assert found.version() == version
        assert {row["add"]["path"] for row in rows if row["add"]} == {*snapshot.files}
        assert {unquote(path) for path in found.get_add_actions().column("path").to_pylist()} == {*snapshot.files}
        assert {row["txn"]["appId"]: row["txn"]["version"] for row in rows if row["txn"]} == snapshot.transactions
        assert not [row for row in rows if row.get("remove")]
    first, second = f"{0:020d}", f"{1:020d}"
    assert opened == [[f"{first}.json"], [f"{first}.checkpoint.parquet", f"{second}.json"]]
