"""Every kind of file, damaged in every way: what a read says, what the doctor says, what its repair does.

No damage may change an answer in silence. A read gives what it gave before, or an error that names the table.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.storage.admin.damaging import FILES, HOW
from tests.storage.lakes import DAY, open_tenant, read, some_rows, tenant_folder, tiny_settings, upload
from tests.storage.operations import copy_lake
from timedb.contract.errors import Damaged, TimeDBError
from timedb.contract.wire import ListRuns, UpdateValues, parse_object
from timedb.storage import Lake
from timedb.storage.users.users import NewUser

SAME = "as before"
MENDED, ASKS, NEVER, NOTHING = "mended", "asks", "never", "nothing to do"
DATA = ("missing", "flipped", "cut")
TORN = ("empty", "cut", "flipped")

# file, damages, what a read says, what the doctor finds, what --repair does with it
TABLE: list[tuple[str, tuple[str, ...], str, str, str]] = [
    ("marker", ("missing",), "not_found", "missing marker", MENDED),
    ("marker", TORN, "invalid_request", "damaged marker", MENDED),
    ("marker", ("another",), "invalid_request", "marker of another lake or release", NEVER),
    ("marker's copy", ("empty", "cut", "another"), SAME, "damaged copy of the marker", MENDED),
    ("inventory", ("empty", "flipped"), SAME, "damaged file", MENDED),
    ("inventory", ("missing", "another"), SAME, "", NOTHING),
    ("values: an early commit", ("missing",), SAME, "gap in the log", NEVER),
    ("values: an early commit", ("flipped",), SAME, "torn commit", NEVER),
    ("values: last commit", ("missing",), "damaged", "log cut short", ASKS),
    ("values: last commit", TORN, "damaged", "torn commit", ASKS),
    ("values: last commit", ("another",), "unimplemented", "changed by another writer", NEVER),
    ("values: checkpoint", ("empty", "cut", "flipped", "another"), SAME, "bad checkpoint", MENDED),
    ("values: checkpoint", ("missing",), SAME, "bad checkpoint hint", MENDED),
    ("values: hint", ("empty", "cut", "flipped", "another"), SAME, "bad checkpoint hint", MENDED),
    ("values: data file", ("missing",), "damaged", "missing data file", ASKS),
    ("values: data file", ("empty", "cut", "flipped", "another"), "damaged", "damaged data file", ASKS),
    ("series: last commit", ("missing",), "damaged", "log cut short", ASKS),
    ("series: last commit", ("cut",), "damaged", "torn commit", ASKS),
    ("series: data file", ("cut", "flipped"), "damaged", "damaged data file", ASKS),
    ("runs: last commit", ("missing",), "damaged", "log cut short", MENDED),
    ("runs: last commit", ("cut",), "damaged", "torn commit", MENDED),
    ("runs: data file", ("flipped",), "damaged", "damaged data file", MENDED),
    ("updates: last commit", ("missing",), "damaged", "log cut short", MENDED),
    ("updates: data file", ("missing",), "damaged", "missing data file", MENDED),
    ("users: last commit", ("missing",), "damaged", "log cut short", ASKS),
    ("users: last commit", ("cut",), "damaged", "torn commit", ASKS),
    ("users: data file", ("flipped",), "damaged", "damaged data file", ASKS),
    ("sign of a server", ("empty", "flipped"), SAME, "", NOTHING),
    ("staging", ("missing", "empty", "another"), SAME, "", NOTHING),
]
CASES = [(file, how, *rest) for file, hows, *rest in TABLE for how in hows]
KEY = "a@example.com"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that has one of every kind of file."""
    folder = tmp_path_factory.mktemp("sound") / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        tenant = open_tenant(lake)
        upload(tenant, some_rows(6), "first")
        upload(tenant, some_rows(6, known=1), "second")
        tenant.maintain()
        upload(tenant, some_rows(3, series=("new",), known=2), "third")
        (series,) = tenant.catalog.known().find("new")
        change = {"series_id": series.series_id, "valid_time": DAY.isoformat(), "value": 7.0}
        body = parse_object(UpdateValues, {"updates": [change], "update_id": "an update"})
        tenant.update_values(body, changed_by=None)
        lake.create_user(NewUser(email=KEY, tenant_id=tenant.tenant_id))
    (folder / ".timedb-serving").mkdir(exist_ok=True)
    (folder / ".timedb-serving" / "left").write_text('{"address": "nowhere"}')
    (tenant_folder(folder) / "values" / ".aside-left").write_text("half")
    return folder


def seen(folder: Path) -> Any:
    """What a lake answers, or the code of the error."""
    try:
        with closing(Lake.open(str(folder), tiny_settings(), create=False)) as lake:
            tenant = open_tenant(lake)
            runs = sorted(run["run_id"] for run in tenant.list_runs(ListRuns()))
            users = [user["email"] for user in lake.users.list_users()]
            known = tenant.ledger.updates.find("an update") is not None
            return sorted(read(tenant), key=str), runs, users, known
    except TimeDBError as error:
        names = any(f"the table {name} " in error.detail for name in ("values", "series", "runs", "updates", "users"))
        helps = names and "restore a backup" in error.detail
        return error.code if helps or not isinstance(error, Damaged) else f"does not help: {error.detail}"


@pytest.fixture(scope="module")
def before(sound: Path) -> Any:
    """What the sound lake answers."""
    assert Lake.doctor(str(sound)) == []
    return seen(sound)


@pytest.mark.parametrize(("file", "how", "says", "fault", "repair"), CASES)
def test_a_damaged_file(
    sound: Path, before: Any, lake_dir: Path, file: str, how: str, says: str, fault: str, repair: str
) -> None:
    copy_lake(sound, lake_dir)
    HOW[how](FILES[file](lake_dir))
    live = {path for path in lake_dir.rglob("*.parquet") if "_delta_log" not in path.parts}

    found = Lake.doctor(str(lake_dir), repair=True)
    faults = {finding["fault"]: finding for finding in found if not finding["notice"]}
    assert (fault in faults) if fault else not faults
    assert live <= set(lake_dir.rglob("*.parquet")), "no repair deletes what may be needed"
    if repair == MENDED:
        assert all(finding["repaired"] for finding in faults.values())
        assert Lake.doctor(str(lake_dir)) == []
    elif repair in (ASKS, NEVER):
        assert not any(finding["repaired"] for finding in faults.values())
        assert (faults[fault]["loss"] is not None) == (repair == ASKS), "what is lost is said before"
    assert seen(lake_dir) == (before if says == SAME or repair == MENDED else says)

    if repair == ASKS:
        assert (fault, True) in {
            (finding["fault"], finding["repaired"])
            for finding in Lake.doctor(str(lake_dir), repair=True, accept_loss=True)
        }
        assert Lake.doctor(str(lake_dir)) == []
        assert isinstance(seen(lake_dir), tuple)


@pytest.mark.parametrize("table", ["values", "series", "runs", "updates", "users"])
@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "made anew"])
def test_a_log_that_is_gone(sound: Path, before: Any, lake_dir: Path, table: str, replaced: bool) -> None:
    copy_lake(sound, lake_dir)
    folder = lake_dir / "users" if table == "users" else tenant_folder(lake_dir) / table
    shutil.rmtree(folder / "_delta_log")
    if replaced:
        other = lake_dir.with_name("other")
        with closing(Lake.open(str(other), tiny_settings())) as lake:
            open_tenant(lake)
            lake.enable_users()
        made = other / "users" if table == "users" else tenant_folder(other) / table
        if not made.exists():
            return  # ``updates`` is made with the first of them
        shutil.copytree(made / "_delta_log", folder / "_delta_log")
    for path in folder.rglob("*.parquet"):
        os.utime(path, (0, 0))
    data = {path: path.read_bytes() for path in folder.rglob("*.parquet")}

    assert seen(lake_dir) == "damaged"
    assert not replaced or not (folder / "_delta_log" / f"{1:020d}.json").exists()
    found = Lake.doctor(str(lake_dir), repair=True)
    assert {finding["fault"] for finding in found} <= {"missing log", "log cut short", "run without a row"}
    if table in ("runs", "updates"):
        assert seen(lake_dir) == before, "all that they hold is in the values log"
        return
    assert [finding["repaired"] for finding in found] == [False]
    assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == data
    with pytest.raises(Damaged):
        Lake.backup(str(lake_dir), str(lake_dir.with_name("backup")))
    assert seen(lake_dir) == "damaged"


def test_a_tenant_whose_folder_is_gone(sound: Path, lake_dir: Path) -> None:
    copy_lake(sound, lake_dir)
    tenant_folder(lake_dir).rename(lake_dir.with_name("gone"))
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake, pytest.raises(Damaged, match="is gone"):
        open_tenant(lake)
    assert [finding["fault"] for finding in Lake.doctor(str(lake_dir), repair=True)] == ["missing log"]
