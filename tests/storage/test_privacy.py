"""Who may read the files of a lake and of its backups: its owner, and whoever a setting or a ``chmod`` lets in."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.storage.lakes import open_tenant, some_rows, tiny_settings, upload
from timedb.storage import Lake
from timedb.storage.users.users import NewUser


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets what the process takes from whatever it makes."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def filled(folder: Path, group_access: str = "none", mode: int = 0o700) -> None:
    """Make a lake with all that is ever written: values, checkpoints, compacted files, users, a server's sign."""
    lake = Lake.open(str(folder), tiny_settings(group_access=group_access, checkpoint_commits=2))
    try:
        lake.announce("127.0.0.1:0")
        tenant = open_tenant(lake)
        for number in range(3):
            upload(tenant, some_rows(20, known=number), f"run-{number}")
        tenant.maintain()
        lake.create_user(NewUser(email="ann@example.com"))
        assert modes(folder) == ({mode}, {mode & 0o666}), "the server's sign, too"
    finally:
        lake.close()


def modes(root: Path) -> tuple[set[int], set[int]]:
    """The permissions of the folders, of ``root`` too, and of the files below it."""
    paths = list(root.rglob("*"))
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (root, *(path for path in paths if path.is_dir()))}
    return folders, {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()}


@pytest.mark.parametrize(
    ("taken", "group_access", "folders", "files"),
    [(0o022, "none", 0o700, 0o600), (0o077, "read", 0o750, 0o640)],
)
def test_files_of_a_new_lake_and_of_its_backup_are_its_owner_s_and_his_group_s(
    lake_dir: Path,
    tmp_path: Path,
    umask: Callable[[int], int],
    taken: int,
    group_access: str,
    folders: int,
    files: int,
) -> None:
    umask(taken)
    filled(lake_dir, group_access, folders)
    assert modes(lake_dir) == ({folders}, {files})
    assert any("checkpoint" in path.name for path in lake_dir.rglob("*"))
    Lake.backup(str(lake_dir), str(tmp_path / "backup"))
    assert modes(tmp_path / "backup") == ({folders}, {files})
    Lake.restore(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert modes(tmp_path / "restored") == ({folders}, {files})
    assert Lake.doctor(str(lake_dir)) == []


def test_a_lake_that_others_may_read_stays_as_it_is_and_the_doctor_says_so(
    lake_dir: Path, umask: Callable[[int], int]
) -> None:
    umask(0o027)
    filled(lake_dir)
    lake_dir.chmod(0o755)
    for path in lake_dir.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    lake = Lake.open(str(lake_dir), tiny_settings())
    upload(open_tenant(lake), some_rows(5), "another")
    lake.close()
    assert modes(lake_dir)[1] == {0o644, 0o640}, "new files are as the process is told"
    (notice,) = Lake.doctor(str(lake_dir))
    assert notice["notice"]
    assert notice["cure"] == f"chmod -R o-rwx {lake_dir}"


def test_a_folder_that_somebody_has_closed_keeps_what_was_chosen(lake_dir: Path, umask: Callable[[int], int]) -> None:
    umask(0o077)
    lake_dir.mkdir()
    lake_dir.chmod(0o2770)
    filled(lake_dir, mode=0o2770)
    assert modes(lake_dir) == ({0o2770}, {0o660})
