"""Backup of a lake while it is written to, and its restoration: plain folders of Delta tables with a manifest.

A tenant's values are pinned first and its runs and updates are caught up with them. What these registers know of later
values is left out of the copy, so that the copy is one moment of the tenant: every run has its record, every series
its row, and a retry of a run that came later finds nothing and is written. Each copied log begins with a checkpoint
at the pinned version and goes no further, so versions go on where they were and no older version can be asked for.

The manifest is written last. A folder without one is no backup, and the lake's marker is in the manifest alone, so
that no server takes a backup, or a restoration that was cut short, for a lake.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from timedb.contract.errors import Busy, Internal, InvalidRequest
from timedb.contract.times import format_time, now
from timedb.contract.wire import quoted
from timedb.storage.admin.accepted import ACCEPTED
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.checkpoints import is_readable, write_checkpoint
from timedb.storage.delta.log import LOG_FOLDER, DataFile, DeltaLog, Snapshot, checkpoint_version, commit_version
from timedb.storage.delta.parquet import write_file
from timedb.storage.delta.privacy import close_folder, is_open_to_others, opener_as_folder
from timedb.storage.delta.standing import LAKE_ID
from timedb.storage.delta.store import LocalStore, Store, StoredFile, make_folder, sync_folder
from timedb.storage.delta.table import Table
from timedb.storage.tables.commit_marks import CHANGE_TIME, REACHED, UNITS
from timedb.storage.tables.layout import TENANTS, USERS_FOLDER, TenantTables, tenant_folder, tenant_ids, users_table
from timedb.storage.tables.marker import AUTHENTICATION, marker_of

__all__ = ["MANIFEST", "back_up", "leave_out_later", "restore"]

MANIFEST = "timedb-backup.json"
FORMAT_VERSION = 1
_ATTEMPTS = 5
_CHUNK = 1 << 20
_PRIVATE = 0o700

_log = logging.getLogger("timedb.storage")


@dataclass(frozen=True)
class _Copied:
    """A file of a backup; ``modified`` in nanoseconds since 1970."""

    path: str
    bytes: int
    sha256: str
    modified: int


@dataclass(frozen=True)
class _TableCopy:
    """A Delta table of a backup: its folder, and what its one version holds."""

    path: str
    version: int
    files: int
    rows: int


@dataclass(frozen=True)
class _Pinned:
    """One version of a table of the lake whose log has been copied."""

    path: str
    source: Store
    snapshot: Snapshot


def back_up(lake: Store, marker: str, target: Path, *, hard_links: bool = False) -> dict[str, Any]:
    """Copy a lake into an empty folder; servers may go on writing to it.

    Args:
        lake: The lake's folder.
        marker: The name of the file that makes it a lake.
        target: A local folder, which is made where it is missing.
        hard_links: Link data files instead of copying them where the file system can. That is fast and takes no room,
            but it is not a second copy: what damages the lake's file damages the backup's.

    Returns:
        ``{created_time, tables, files, bytes}``.

    Raises:
        InvalidRequest: the target is not an empty folder, or inside the lake.
        Busy: files went away faster than they could be copied.
        Internal: the backup could not be written; what there was of it has been removed.
    """
    if isinstance(lake, LocalStore) and target.resolve().is_relative_to(lake.root.resolve()):
        raise InvalidRequest(f"target: {quoted(str(target))} is inside the lake")
    with _filling(target, lake):
        created_time = format_time(now())
        has_users = bool(marker_of(lake.read(marker)).get(AUTHENTICATION))
        copy = _LakeCopy(lake, LocalStore(target), hard_links=hard_links, has_users=has_users)
        tables = copy.copy()
        files = list(copy.files())
        _sync_folders(target)
        body = {
            "format_version": FORMAT_VERSION,
            "created_time": created_time,
            "lake": lake.read(marker).decode(),
            "tables": [asdict(table) for table in tables],
            "files": [asdict(file) for file in files],
        }
        LocalStore(target).put_if_absent(MANIFEST, json.dumps({"sha256": _digest(body), "backup": body}).encode())
    return _summary(body)


def restore(source: Path, marker: str, target: Path) -> dict[str, Any]:
    """Make a lake from a backup.

    Args:
        source: The backup's folder.
        marker: The name of the file that makes the target a lake; it is written last.
        target: An empty local folder, which is made where it is missing.

    Returns:
        ``{created_time, tables, files, bytes}``; ``created_time`` is the backup's.

    Raises:
        InvalidRequest: the source is no finished backup, or a file of it is missing or damaged; the target is not an
            empty folder. Nothing is left in the target.
        Internal: the lake could not be written; what there was of it has been removed.
    """
    body = _read_manifest(source)
    files = [_Copied(**file) for file in body["files"]]
    backup, lake = LocalStore(source), LocalStore(target)
    for file in files:
        _check_size(backup, file)
    with _filling(target, backup):
        for file in files:
            if _copy(backup, file.path, target / file.path) != (file.bytes, file.sha256):
                raise InvalidRequest(f"source: {file.path!a} is damaged, its content is not what was backed up")
            os.utime(target / file.path, ns=(file.modified, file.modified))
        for table in body["tables"]:
            found = DeltaLog(lake.below(table["path"])).load()
            if (found.version, len(found.files)) != (table["version"], table["files"]):
                raise InvalidRequest(f"source: the table {table['path']!a} is not the one that was backed up")
        _sync_folders(target)
        lake.put_if_absent(marker, _as_another(body["lake"]))
    return _summary(body)


def _as_another(marker: str) -> bytes:
    """The marker of a lake for a restored one: a server that has the first one open must not take it for that."""
    return json.dumps({**json.loads(marker), LAKE_ID: str(uuid4())}, indent=1).encode() + b"\n"


class _LakeCopy:
    """The copy of a lake on its way.

    Args:
        lake: The lake's folder.
        target: The backup's folder.
        hard_links: Whether data files may be links.
        has_users: Whether the lake says that it has users.
    """

    def __init__(self, lake: Store, target: LocalStore, *, hard_links: bool, has_users: bool) -> None:
        self._has_users = has_users
        self._lake = lake
        self._target = target
        self._hard_links = hard_links
        self._checksums: dict[str, str] = {}

    def copy(self) -> list[_TableCopy]:
        """Copy all tables; users come last, so that no tenant's key is missing which its data needs."""
        tables: list[_TableCopy] = []
        for tenant_id in tenant_ids(self._lake):
            tables += self._again(self._pin_tenant, tenant_folder(tenant_id))
            self._copy_accepted(tenant_folder(tenant_id))
        if self._has_users or self._lake.exists(USERS_FOLDER):
            _refuse_lost(users_table(self._lake.below(USERS_FOLDER), made=self._has_users))
        tables += self._again(self._pin_all, USERS_FOLDER)
        self._copy_accepted(USERS_FOLDER)
        return tables

    def _copy_accepted(self, folder: str) -> None:
        """What has been taken for meant of what others wrote, which is among the rows of the copy, too."""
        path = f"{folder}/{ACCEPTED}"
        with contextlib.suppress(FileNotFoundError):  # a lake without users has no such folder
            self._copy(self._lake, path, path, time.time())

    def files(self) -> Iterator[_Copied]:
        """All files of the copy."""
        for file in sorted(self._target.list(), key=lambda file: file.path):
            path = self._target.root / file.path
            checksum = self._checksums.get(file.path) or _checksum(path)
            yield _Copied(file.path, file.size, checksum, path.stat().st_mtime_ns)

    def _again(self, pin: Callable[[str], list[_Pinned]], folder: str) -> list[_TableCopy]:
        for _ in range(_ATTEMPTS):
            try:
                return self._copy_data(folder, pin(folder))
            except FileNotFoundError as error:
                # Log clean-up or vacuum was faster. What has been copied of the data stays for the next try.
                _log.warning("backup: %s went away, %s is pinned anew", error.filename, folder)
                for file in list(self._target.list(folder)):
                    if f"/{LOG_FOLDER}/" in file.path:
                        self._target.delete(file.path)
        raise Busy("lake: files are vacuumed faster than they can be copied; raise TIMEDB_RETENTION_HOURS or retry")

    def _pin_tenant(self, folder: str) -> list[_Pinned]:
        tables = TenantTables.below(self._lake.below(folder))
        for table in tables.all().values():
            _refuse_lost(table)
        tables.check()
        values = tables.values.snapshot()
        pinned: list[_Pinned] = []
        if values.version >= 0:
            pinned.append(self._pin(f"{folder}/values", values))
            ledger = Ledger(tables.values, tables.runs, tables.updates)
            ledger.catch_up(values)
            ledger.write()
            copies = TenantTables.below(self._target.below(folder))
            for name, source, copy in (("runs", tables.runs, copies.runs), ("updates", tables.updates, copies.updates)):
                if source.exists():
                    pinned.append(self._pin(f"{folder}/{name}", source.snapshot()))
                    leave_out_later(source.store, copy, values)
        pinned += self._pin_all(folder, {f"{folder}/{name}" for name in ("values", "runs", "updates")})
        marks = {one.path.removeprefix(f"{folder}/"): one.snapshot.transactions.get(UNITS, 0) for one in pinned}
        if marks.get("series", 0) != marks.get("values", 0):
            raise FileNotFoundError(2, "the unit of a series has just changed", f"{folder}/series")  # both anew
        return pinned

    def _pin_all(self, folder: str, known: Collection[str] = ()) -> list[_Pinned]:
        """Pin every table below a folder but those that are known."""
        marks = (file.path.partition(f"/{LOG_FOLDER}/") for file in self._lake.list(folder))
        found = {path for path, separator, _ in marks if separator}.difference(known)
        return [self._pin(path, DeltaLog(self._lake.below(path)).load()) for path in sorted(found)]

    def _pin(self, path: str, snapshot: Snapshot) -> _Pinned:
        source = self._lake.below(path)
        for file in _log_of(source, snapshot):
            self._copy(source, file.path, f"{path}/{file.path}", file.modified)
        return _Pinned(path, source, snapshot)

    def _copy_data(self, folder: str, pinned: Sequence[_Pinned]) -> list[_TableCopy]:
        done, kept = [], set()
        for table in pinned:
            target = self._target.below(table.path)
            snapshot = _finish_log(target)
            kept |= {f"{table.path}/{file}" for file in snapshot.files}
            for file in snapshot.files.values():
                name = f"{table.path}/{file.path}"
                if not target.exists(file.path):
                    self._copy(table.source, file.path, name, file.modified_ms / 1000, link=self._hard_links)
                if (target.root / file.path).stat().st_size != file.size:
                    raise Internal(f"{name} has not the size that its table's log tells; run timedb doctor")
            rows = sum(max(file.rows, 0) for file in snapshot.files.values())
            done.append(_TableCopy(table.path, snapshot.version, len(snapshot.files), rows))
        for left in [file.path for file in self._target.list(folder)]:
            if f"/{LOG_FOLDER}/" not in left and left not in kept:
                self._target.delete(left)  # copied for a version that was pinned before
        return done

    def _copy(self, source: Store, path: str, name: str, modified: float, *, link: bool = False) -> None:
        target = self._target.root / name
        if link and isinstance(source, LocalStore) and _link(source.root / path, target):
            return
        self._checksums[name] = _copy(source, path, target)[1]
        os.utime(target, (modified, modified))


def _log_of(source: Store, snapshot: Snapshot) -> list[StoredFile]:
    """The files of a log that its last checkpoint and the commits from there to a version take.

    Raises:
        FileNotFoundError: a commit is no longer there.
    """
    files = list(source.list(LOG_FOLDER))
    checkpoints = {found for file in files if -1 < (found := checkpoint_version(file.path)) <= snapshot.version}
    readable = (version for version in sorted(checkpoints, reverse=True) if is_readable(DeltaLog(source), version))
    start = next(readable, -1)
    commits = {version: file for file in files if (version := commit_version(file.path)) >= 0}
    needed = range(start + 1, snapshot.version + 1)
    if missing := [version for version in needed if version not in commits]:
        raise FileNotFoundError(2, "a commit is gone", f"{missing[0]:020d}.json")
    checkpoint = [file for file in files if checkpoint_version(file.path) == start >= 0]
    return [
        *checkpoint,
        *(commits[version] for version in range(max(start, 0), snapshot.version + 1) if version in commits),
    ]


def _refuse_lost(table: Table) -> None:
    """Refuse to back up a table that has lost rows: the backup would take the place of one that has them.

    Raises:
        Damaged: its log is gone, or does not reach to where it was.
    """
    table.refuse_lost()
    table.snapshot()


def leave_out_later(source: Store, copy: Table, values: Snapshot) -> None:
    """Take the records of values that came after a snapshot out of the copy of a register."""
    snapshot = copy.snapshot()
    newest = values.transactions.get(CHANGE_TIME, 0)
    adds: list[DataFile] = []
    removes: list[DataFile] = []
    for file in snapshot.files.values():
        last = file.maximum.get("change_time")
        if isinstance(last, int) and last <= newest:
            continue
        rows = pq.read_table(source.open(file.path)).cast(copy.schema)  # other writers have text of their own kinds
        kept = rows.filter(pc.less_equal(rows["change_time"].cast(pa.int64()), newest))
        if kept.num_rows < rows.num_rows:
            removes.append(file)
            adds += [write_file(copy.store, kept, {})] if kept.num_rows else []
    reached = {REACHED: values.version}
    if copy.commit(snapshot, adds=adds, removes=removes, transactions=reached) is None:
        raise Internal("somebody else writes to the backup")


def _finish_log(target: LocalStore) -> Snapshot:
    """Let a copied log begin with a checkpoint of its last version, and say what it holds."""
    log = DeltaLog(target)
    before = log.load()
    version = write_checkpoint(log)
    for file in list(target.list(LOG_FOLDER)):
        if -1 < max(commit_version(file.path), checkpoint_version(file.path)) < version:
            target.delete(file.path)
    after = log.load()
    if (after.version, after.files.keys(), after.transactions) != (
        before.version,
        before.files.keys(),
        before.transactions,
    ):
        raise Internal("the log of the backup does not hold what the lake's does")
    return after


@contextlib.contextmanager
def _filling(target: Path, source: Store) -> Iterator[None]:
    """Fill an empty folder, or leave it as it was; others may not look into it, its group as into the source.

    Raises:
        InvalidRequest: it is not empty, or no folder.
        Internal: a file could not be read or written.
    """
    there = target.exists()
    mode = _PRIVATE
    if isinstance(source, LocalStore) and not is_open_to_others(source.root):
        mode = source.root.stat().st_mode & 0o777
    if there and not target.is_dir():
        raise InvalidRequest(f"target: {quoted(str(target))} is no folder")
    if there and any(target.iterdir()):
        raise InvalidRequest(f"target: {quoted(str(target))} is not empty")
    try:
        make_folder(target)
        close_folder(target, mode, new=not there)
        yield
    except BaseException as error:
        for path in target.iterdir() if there else [target]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise Internal(f"target: {quoted(str(target))} could not be filled: {error.strerror or error}") from error
        raise


def _copy(source: Store, path: str, target: Path) -> tuple[int, str]:
    """Copy a file durably, all but its name; its bytes and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    with pa.input_stream(source.open(path), compression=None) as reading:
        make_folder(target.parent)
        with open(target, "xb", opener=opener_as_folder) as writing:
            while chunk := reading.read(_CHUNK):
                digest.update(chunk)
                size += writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
    return size, digest.hexdigest()


def _link(path: Path, target: Path) -> bool:
    """Link a file; False where the file system cannot."""
    make_folder(target.parent)
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        sync_folder(Path(folder))


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_manifest(source: Path) -> dict[str, Any]:
    try:
        text = (source / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidRequest(
            f"source: {quoted(str(source))} is no backup, or one that was not finished: {MANIFEST} is missing"
        ) from None
    try:
        manifest = json.loads(text)
        body: dict[str, Any] = manifest["backup"]
        if manifest["sha256"] != _digest(body):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest(f"source: {MANIFEST} of {quoted(str(source))} is damaged") from None
    if body["format_version"] > FORMAT_VERSION:
        raise InvalidRequest(
            f"source: {quoted(str(source))} has backup format {body['format_version']}, "
            f"this service knows {FORMAT_VERSION}"
        )
    return body


def _check_size(backup: LocalStore, file: _Copied) -> None:
    parts = PurePosixPath(file.path).parts
    if not parts or ".." in parts or parts[0] not in (TENANTS, "users"):
        raise InvalidRequest(f"source: {file.path!a} is no path of a lake")
    try:
        size = (backup.root / file.path).stat().st_size
    except FileNotFoundError:
        raise InvalidRequest(f"source: {file.path!a} is missing") from None
    if size != file.bytes:
        raise InvalidRequest(f"source: {file.path!a} is damaged, it has {size} bytes instead of {file.bytes}")


def _summary(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "created_time": body["created_time"],
        "tables": len(body["tables"]),
        "files": len(body["files"]),
        "bytes": sum(file["bytes"] for file in body["files"]),
    }
