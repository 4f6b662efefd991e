"""Whoever deletes, lifts or restores a lake learns that a server runs on it; one that was killed is no obstacle."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.lakes import open_tenant, read, some_rows, tiny_settings, upload
from timedb.contract.errors import Busy, Conflict, InvalidRequest
from timedb.storage import Lake
from timedb.storage.tables.layout import FORMAT_VERSION

SERVING = ".timedb-serving"
KILLED = """
import os, signal, sys
from storage import Lake
from timedb.contract.settings import ServerSettings, load_settings
Lake.open(sys.argv[1], load_settings(ServerSettings)).announce("grpc://127.0.0.1:1")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    """A lake with one run, which is served."""
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        upload(open_tenant(lake), some_rows(3), "first")
        lake.announce("grpc://127.0.0.1:8815")
        yield lake


def test_a_served_lake_is_not_deleted_unless_by_force(lake: Lake, lake_dir: Path) -> None:
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other:
        other.announce("grpc://127.0.0.1:8816")
        with pytest.raises(Conflict, match=r"grpc://127\.0\.0\.1:881[56], since .*grpc://127.*stop it first.*--force"):
            Lake.delete(str(lake_dir))
    with pytest.raises(Conflict, match=":8815,"):
        Lake.delete(str(lake_dir))
    assert len(read(open_tenant(lake))) == 3
    assert Lake.delete(str(lake_dir), force=True)
    assert not lake_dir.exists()
    with pytest.raises(Busy, match="gone from its place"):
        upload(open_tenant(lake), some_rows(3), "second")
    assert not lake_dir.exists()


def test_a_lake_whose_server_has_ended_is_deleted(lake: Lake, lake_dir: Path) -> None:
    lake.close()
    assert not (lake_dir / SERVING).exists()
    assert Lake.delete(str(lake_dir))


def test_a_killed_server_blocks_nothing(lake_dir: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(lake_dir)], check=False)
    (left,) = (lake_dir / SERVING).iterdir()
    again = left.with_name("again")
    shutil.copy(left, again)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        lake.announce("grpc://127.0.0.1:1")
        assert not left.exists(), "the next server tidies up"
        with pytest.raises(Conflict):
            Lake.delete(str(lake_dir))
        again.write_text("{}")
    assert again.exists()
    assert Lake.delete(str(lake_dir))
    assert not lake_dir.exists()


def test_a_served_lake_is_not_lifted(lake: Lake, lake_dir: Path) -> None:
    newest = FORMAT_VERSION + 1
    taken: list[object] = []
    with pytest.raises(Conflict, match="a server is running"):
        Lake.upgrade(str(lake_dir), newest=newest, steps={FORMAT_VERSION: taken.append})
    assert taken == []
    lake.close()
    assert Lake.upgrade(str(lake_dir), newest=newest, steps={FORMAT_VERSION: taken.append})["to"] == newest


def test_nothing_is_restored_under_a_server(lake: Lake, lake_dir: Path) -> None:
    backup = lake_dir.with_name("backup")
    Lake.backup(str(lake_dir), str(backup))
    for name in ("tenants", "timedb-lake.json"):
        (lake_dir / name).rename(lake_dir.with_name(f"kept-{name}"))
    with pytest.raises(Conflict, match="a server is running"):
        Lake.restore(str(backup), str(lake_dir))
    lake.close()
    (lake_dir / SERVING).mkdir()
    (lake_dir / SERVING / "left-by-a-killed-server").write_text("{}")
    Lake.restore(str(backup), str(lake_dir))
    with closing(Lake.open(str(lake_dir), tiny_settings())) as restored:
        assert len(read(open_tenant(restored))) == 3


def test_the_sign_is_no_part_of_the_lake(lake: Lake, lake_dir: Path) -> None:
    backup = lake_dir.with_name("backup")
    Lake.backup(str(lake_dir), str(backup))
    assert not list(backup.rglob(f"{SERVING}*"))
    open_tenant(lake).maintain()
    assert Lake.doctor(str(lake_dir), repair=True) == []
    with pytest.raises(Conflict):
        Lake.delete(str(lake_dir))


def test_a_sign_alone_is_nothing_foreign(lake_dir: Path) -> None:
    (lake_dir / SERVING).mkdir(parents=True)
    (lake_dir / SERVING / "left-by-a-killed-server").write_text("{}")
    Lake.open(str(lake_dir), tiny_settings()).close()
    assert Lake.delete(str(lake_dir))
    (lake_dir / "mine").mkdir(parents=True)
    (lake_dir / "mine" / "thesis").write_text("all of it")
    with pytest.raises(InvalidRequest, match="holds something else"):
        Lake.open(str(lake_dir), tiny_settings())


def test_a_lake_that_takes_no_sign_is_served_all_the_same(lake_dir: Path) -> None:
    Lake.open(str(lake_dir), tiny_settings()).close()
    (lake_dir / SERVING).write_text("")  # a folder cannot be made, as on a disk that is read-only
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        lake.announce("grpc://127.0.0.1:8815")
        upload(open_tenant(lake), some_rows(3), "first")
        assert len(read(open_tenant(lake))) == 3
