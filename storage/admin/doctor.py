"""Finds what is wrong with a lake on disk and, asked to, repairs it. Works on the files; no server needs to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from timedb.contract.errors import Damaged, TimeDBError, Unimplemented
from timedb.storage.admin.accepted import Accepted
from timedb.storage.admin.backup import leave_out_later
from timedb.storage.admin.findings import BEHIND, CLOSED, FOREIGN, LOST_LOG, OUTDATED, WRONG_ROWS, Finding
from timedb.storage.admin.marker_doctor import examine_marker
from timedb.storage.admin.table_doctor import TableDoctor
from timedb.storage.catalog.ledger import Ledger
from timedb.storage.delta.damage import check_files
from timedb.storage.delta.log import LOG_FOLDER
from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Promised, Table
from timedb.storage.rows.scan import scan
from timedb.storage.tables.commit_marks import REACHED, REPAIRED
from timedb.storage.tables.inventory import INVENTORY, Inventory
from timedb.storage.tables.layout import USERS_FOLDER, TenantTables, tenant_folder, tenant_ids
from timedb.storage.tables.marker import known_tenants
from timedb.storage.tables.removed import REMOVED
from timedb.storage.tables.schemas import USERS

__all__ = ["Examination", "Progress", "examine_lake"]

Progress = Callable[[str, int], object]
"""Is told of the table and the bytes of each file that has been looked at."""
_REGISTERS = ("runs", "updates")
_SHOWN = 20


@dataclass(frozen=True)
class Examination:
    """How a lake is examined.

    Attributes:
        repair: Mend what can be mended without loss of acknowledged rows.
        accept_loss: With ``repair``: mend what costs rows, too.
        verify: Read every byte of every live file, not of the small tables' alone.
        progress: Is told how far it has come.
        accept_foreign: Take what other writers have done so far for meant.
    """

    repair: bool = False
    accept_loss: bool = False
    verify: bool = False
    progress: Progress = lambda table, size: None
    accept_foreign: bool = False


def examine_lake(lake: Store, how: Examination) -> list[Finding]:
    """Examine the marker and every table of a lake."""
    found = list(examine_marker(lake, repair=how.repair))
    tenants = tenant_ids(lake)
    for tenant_id in sorted(known_tenants(lake).difference(tenants)):
        path = tenant_folder(tenant_id)
        found.append(Finding(tenant_id, LOST_LOG, path, "none: restore a backup", loss="all that the tenant had"))
    for tenant_id in tenants:
        found += _Folder(tenant_id, lake.below(tenant_folder(tenant_id)), how).examine_tenant()
    return found + _Folder(USERS_FOLDER, lake.below(USERS_FOLDER), how).examine_users()


class _Folder:
    """Examines the tables that lie in one folder.

    Args:
        name: The tenant, or what the folder of the users is called.
        store: The folder.
        how: What is to be done.
    """

    def __init__(self, name: str, store: Store, how: Examination) -> None:
        self._name = name
        self._store = store
        self._how = how
        self._inventory = Inventory(store)
        self._closed = False
        self._accepted: set[str] = set()
        self._lost_rows = False

    def examine_users(self) -> list[Finding]:
        """The faults of the users table."""
        table = Table(self._store, USERS)
        found = self._table(USERS_FOLDER, table, self._inventory.promised.get(USERS_FOLDER), full=True)
        return self._judged(found + list(self._note({USERS_FOLDER: table})))

    def examine_tenant(self) -> list[Finding]:
        """The faults of a tenant's tables, each for itself, then of them together."""
        tables = TenantTables.below(self._store)
        promised = {**self._inventory.promised, **self._known_by_runs(tables)}
        found: list[Finding] = []
        for name, table in tables.all().items():
            found += self._table(name, table, promised.get(name), full=self._how.verify or name != "values")
        found += self._note(tables.all())
        if not self._closed:
            found += self._together(TenantTables.below(self._store))
        return self._judged(found)

    def _judged(self, found: list[Finding]) -> list[Finding]:
        """The findings by what was taken for meant; of many runs the first ones."""
        accepted = Accepted(self._store)
        if self._how.accept_foreign:
            accepted.take(found)
        judged = list(accepted.judge(found))
        runs = [one for one in judged if one.fault == WRONG_ROWS]
        faults, notices = ([one for one in runs if one.notice is kind][:_SHOWN] for kind in (False, True))
        return [one for one in judged if one.fault != WRONG_ROWS] + faults + notices

    def _known_by_runs(self, tables: TenantTables) -> Mapping[str, Promised]:
        """What the runs table knows of the values, where nothing is written down or that is less."""
        known = self._inventory.promised.get("values", Promised("", -1))
        try:
            reached = Table(tables.runs.store, tables.runs.schema).snapshot().transactions.get(REACHED, -1)
        except TimeDBError:
            return {}
        return {"values": Promised(known.table_id, reached)} if reached > known.version else {}

    def _table(self, name: str, table: Table, promised: Promised | None, *, full: bool) -> list[Finding]:
        label = name if name == self._name else f"{self._name}/{name}"
        how = self._how
        rebuild = table.create_anew if name in _REGISTERS and self._values_reach_back() else None
        doctor = TableDoctor(
            label,
            table.store,
            promised,
            repair=how.repair,
            accept_loss=how.accept_loss,
            every_page=full,
            rebuild=rebuild,
            progress=lambda size: how.progress(label, size),
        )
        found = list(doctor.examine())
        if doctor.accepted:
            self._accepted.add(name)
        lost = (each for each in found if each.fault.endswith("data file"))
        self._lost_rows = self._lost_rows or not all(each.repaired for each in lost)
        closed = any(finding.fault in CLOSED and not finding.repaired for finding in found)
        self._closed = self._closed or closed
        if doctor.without_checksums:
            many = f"none needed: {doctor.without_checksums} files are of a release or writer without them"
            found.append(Finding(label, "files without checksums", "", many, notice=True))
        if closed or not table.log.exists():
            return found
        return found + list(self._changed_or_old(label, Table(table.store, table.schema, table.partitions)))

    def _values_reach_back(self) -> bool:
        """Whether the values log still has every record, so that runs and updates can be written again."""
        return self._store.below("values").exists(f"{LOG_FOLDER}/{1:020d}.json")

    def _changed_or_old(self, label: str, table: Table) -> Iterator[Finding]:
        try:
            if not table.is_current():
                yield Finding(label, OUTDATED, "_delta_log", "timedb upgrade", self._how.repair and table.renew())
        except Unimplemented as error:
            self._closed = True
            yield Finding(label, FOREIGN, "_delta_log", f"none: {error.detail}")
        except TimeDBError:
            self._closed = True  # the log has been found out to be damaged

    def _note(self, tables: Mapping[str, Table]) -> Iterator[Finding]:
        """Bring what is known of the tables up to what the doctor was told to take as it is."""
        if self._inventory.fault is not None:
            mended = self._how.repair and not self._closed
            if mended:
                self._inventory.write(_as_they_are(tables))
            yield Finding(self._name, "damaged file", INVENTORY, "write it anew from the tables", mended)
        elif self._accepted:
            kept = {name: one for name, one in self._inventory.promised.items() if name not in self._accepted}
            now = _as_they_are({name: tables[name] for name in self._accepted})
            self._inventory.write({**kept, **now})

    def _together(self, tables: TenantTables) -> Iterator[Finding]:
        """What is wrong between the tables of a tenant."""
        try:
            yield from self._ahead_of_values(tables)
            tables.check()
            if self._lost_rows:
                return  # of runs or of values; what they say together is known when that is mended
            if self._how.repair and self._accepted.intersection(_REGISTERS):
                Ledger(tables.values, tables.runs, tables.updates).write_again(tables.values.snapshot())
            yield from self._runs_without_row(tables)
            damaged = list(self._damaged_values(tables.values))
            yield from damaged or self._rows_of_runs(tables)
        except Damaged as error:
            yield Finding(self._name, BEHIND, "", f"none: restore a backup ({error.detail})")

    def _ahead_of_values(self, tables: TenantTables) -> Iterator[Finding]:
        """Records of runs whose rows were lost with the end of the values log, once that loss has been accepted."""
        values = tables.values.snapshot()
        for name in _REGISTERS:
            table = tables.all()[name]
            if table.exists() and table.snapshot().transactions.get(REACHED, 0) > values.version:
                if self._how.repair and self._how.accept_loss:
                    leave_out_later(table.store, table, values)
                yield Finding(
                    f"{self._name}/{name}",
                    BEHIND,
                    "",
                    "restore a backup, or --repair --accept-loss takes them out",
                    self._how.repair and self._how.accept_loss,
                    f"records of what was written after version {values.version} of the values, which is gone",
                )

    def _damaged_values(self, values: Table) -> Iterator[Finding]:
        """Files of values that could not be counted."""
        for file in values.snapshot().files.values():
            try:
                check_files(values.store, [file.path])
            except Damaged:
                cure = "restore a backup, or --verify --repair --accept-loss takes it out"
                loss = f"its {file.rows} rows of the table values"
                yield Finding(f"{self._name}/values", "damaged data file", file.path, cure, loss=loss)

    def _runs_without_row(self, tables: TenantTables) -> Iterator[Finding]:
        ledger = Ledger(tables.values, tables.runs, tables.updates)
        snapshot = tables.values.snapshot()
        reached = ledger.runs.snapshot().transactions.get(REACHED, 0)
        commits = list(tables.values.log.commits_after(reached, snapshot.version))
        run_ids = [run["run_id"] for commit in commits for run in commit.info.get("uploads", ())]
        lost = [run_id for run_id in run_ids if ledger.runs.find(run_id) is None]
        if lost and self._how.repair:
            ledger.catch_up(snapshot)
            ledger.write()
        for run_id in lost:
            cure = "none needed: a server writes it within seconds from the values log, or when it opens the lake"
            yield Finding(f"{self._name}/runs", "run without a row", run_id, cure, self._how.repair, notice=True)

    def _rows_of_runs(self, tables: TenantTables) -> Iterator[Finding]:
        """Runs that have not as many rows as their record says: another writer took or added some."""
        snapshot = tables.values.snapshot()
        if any(name.startswith((REMOVED, REPAIRED)) for name in snapshot.transactions):
            return  # retention, or the doctor, has taken rows, and which is not written down
        runs = Ledger(tables.values, tables.runs, tables.updates).runs.scan()
        rows = scan(tables.values.store, snapshot.files.values())
        stored = rows.group_by("run_id", "change_time").agg(stored=pl.len().cast(pl.Int64))
        there = runs.select("run_id", "change_time", "rows").join(stored, on=["run_id", "change_time"], how="left")
        wrong = there.filter(pl.col("stored").fill_null(0) != pl.col("rows")).sort("change_time")
        found = wrong.collect(engine="in-memory")
        for run_id, moment, rows_, stored_ in found.iter_rows():
            yield self._wrong_run(run_id, moment, f"{stored_ or 0} of its {rows_} rows are there", found.height)

    def _wrong_run(self, run_id: str, moment: datetime, text: str, count: int) -> Finding:
        others = f", as of {count - 1} other runs" if count > 1 else ""
        cure = f"restore a backup, or upload it again under another run_id ({moment:%Y-%m-%dT%H:%M:%SZ}{others})"
        return Finding(f"{self._name}/values", WRONG_ROWS, run_id, cure, loss=text)


def _as_they_are(tables: Mapping[str, Table]) -> dict[str, Promised]:
    found = {}
    for name, table in tables.items():
        fresh = Table(table.store, table.schema, table.partitions)
        if fresh.log.exists():
            fresh.snapshot()
            known = fresh.known()
            if known is not None:
                found[name] = known
    return found
