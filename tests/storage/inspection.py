"""What must agree in a lake whatever has happened to it, and what may not be left lying about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from tests.storage.lakes import Stored, read, scan_delta, scan_table, tenant_folder
from tests.storage.model import Model
from timedb.contract.wire import ListRuns
from timedb.storage import Tenant


def disagreements(tenant: Tenant, folder: Path) -> Iterator[str]:
    """Where views, direct readers and the other tables do not say the same as the stored rows."""
    audit = read(tenant)
    model = Model()
    model.rows = audit
    for view in ("flat", "overlapping"):
        if Counter(read(tenant, view, all_versions=False)) != Counter(model.answer(view)):
            yield f"the {view} view is not that of the stored rows"
    if Counter(scan_delta(folder)) != Counter(audit):
        yield "scan_delta sees other rows"
    series = scan_table(folder, "series")["series_id"]
    if series.n_unique() != len(series):
        yield "a series has several rows"
    yield from _disagreeing_runs(tenant, folder, audit)


def _disagreeing_runs(tenant: Tenant, folder: Path, audit: list[Stored]) -> Iterator[str]:
    uploaded = Counter(revision[-1] for revision in {row.revision for row in audit})
    recorded = {run["run_id"]: run["rows"] for run in tenant.list_runs(ListRuns(limit=10_000))}
    for run_id in uploaded.keys() | recorded.keys():
        if uploaded.get(run_id) != recorded.get(run_id):
            yield f"run {run_id} has {uploaded.get(run_id)} rows and a record of {recorded.get(run_id)}"
    tenant.records.write()
    runs = scan_table(folder, "runs")["run_id"].to_list()
    if sorted(runs) != sorted(recorded):
        yield f"a direct reader sees the runs {sorted(runs)}"


def left_behind(folder: Path) -> list[str]:
    """Files that no version of any table refers to: what a write has left that did not take place."""
    found = []
    for table in sorted(path for path in tenant_folder(folder).glob("*") if path.is_dir()):
        known = set()
        if any((table / "_delta_log").glob("*.json")):
            known.update(pa.table(DeltaTable(str(table)).get_add_actions()).column("path").to_pylist())
        for commit in (table / "_delta_log").glob("*.json"):
            for line in commit.read_text().splitlines():
                action = json.loads(line)
                known |= {action[name]["path"] for name in ("add", "remove") if name in action}
        for path in table.rglob("*"):
            name = str(path.relative_to(table))
            if ".aside-" in name or (name.endswith(".parquet") and "_delta_log" not in name and name not in known):
                found.append(f"{table.name}/{name}")
    return found


def listing(folder: Path) -> str:
    """The files of a folder with sizes and times, as text that can be compared."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return json.dumps([[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files])
